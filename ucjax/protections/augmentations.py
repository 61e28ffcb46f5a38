"""Differentiable augmentations, through which baselines make their noise; in `parallel.pmap`.

Numbers are drawn for the whole batch, of which each device takes its share.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ucjax.data import augment
from ucjax.errors import UserError

# (key, this device's pixels [b, s, s, 3] of [0, 1]) -> as many, of the same shape.
Augmentation = Callable[[jax.Array, jax.Array], jax.Array]
# What YIQ calls I and Q: the two axes of color, by which a hue turns.
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def unchanged(key: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the images."""
    return images


def shifted(key: jax.Array, images: jax.Array) -> jax.Array:
    """Moves each image by up to an eighth of its side, zeros coming in, and mirrors every other.

    Moves are by parts of pixels, interpolated bilinearly (arXiv:2106.10807).
    """
    side = images.shape[1]
    move_key, flip_key = jax.random.split(key)
    whole = augment.whole_batch(len(images))
    move = jax.random.uniform(move_key, (whole, 2), minval=-side / 8, maxval=side / 8)
    moved = resample(images, augment.own_share(move), jnp.ones((len(images), 2)))
    return augment.random_flip(flip_key, moved)


def strong(strength: float, *, least_area: float | None = None) -> Augmentation:
    """Returns the family of contrastive learning at a strength of 0 to 1.

    A random resized crop, a flip, color jitter (brightness, contrast, saturation, hue, in this
    order) and grey, as in Wang et al., NeurIPS 2024 (AUE and AAP). The hue is turned in YIQ, not
    in HSV, whose gradient jumps.

    Args:
      strength: of all of them.
      least_area: of a crop, as a share of the image's; None for what the strength says.
    """
    least = max(1 - 0.9 * strength, 0.05) if least_area is None else least_area

    def apply(key: jax.Array, images: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 7)
        whole, b = augment.whole_batch(len(images)), len(images)

        def uniform(number: int, *shape: int, low: float = 0.0, high: float = 1.0) -> jax.Array:
            drawn = jax.random.uniform(keys[number], (whole, *shape), minval=low, maxval=high)
            return augment.own_share(drawn)

        images = _resized_crop(images, uniform(0), uniform(1), uniform(2, 2), least)
        images = augment.random_flip(keys[3], images)
        jittered = _jitter(images, uniform(4, 4, low=-1.0), strength)
        chance = min(0.99, 0.8 * strength)
        images = jnp.where((uniform(5) < chance).reshape(b, 1, 1, 1), jittered, images)
        grey = jnp.broadcast_to(_grey(images), images.shape)
        return jnp.where((uniform(6) < 0.2 * strength).reshape(b, 1, 1, 1), grey, images)

    return apply


def strength_of(asked: float, classes: int, *, few: float, many: float) -> float:
    """Returns the strength asked for; for 0 that of the paper for few (to 10) or many classes.

    Raises:
      UserError: it is not within 0 to 1.
    """
    if not 0 <= asked <= 1:
        raise UserError(f"strength of a row is {asked:g}: give 0 (automatic) to 1")
    return asked or (few if classes <= 10 else many)


def resample(
    images: jax.Array, start: jax.Array, scale: jax.Array, *, clamped: bool = False
) -> jax.Array:
    """Cuts a rectangle out of each image and stretches it to the image's size, bilinearly.

    Args:
      images: `[b, s, s, 3]`.
      start: top and left edge of the rectangles in pixels, `[b, 2]`.
      scale: their height and width as shares of the image's, `[b, 2]`.
      clamped: whether what lies outside repeats the border; else it is 0.

    Returns:
      `[b, s, s, 3]`, differentiable in the images.
    """
    side = images.shape[1]
    pixel = jnp.arange(side, dtype=images.dtype)
    where = start[..., None] + scale[..., None] * (pixel + 0.5)[None, None] - 0.5
    if clamped:
        where = jnp.clip(where, 0, side - 1)
    # Products with matrices of weights: faster than gathers, and so are their gradients.
    weights = jnp.maximum(1 - jnp.abs(where[..., None] - pixel[None, None, None]), 0)
    rows = jnp.einsum("bij,bjkc->bikc", weights[:, 0], images)
    return jnp.einsum("blk,bikc->bilc", weights[:, 1], rows)


def _resized_crop(
    images: jax.Array, area: jax.Array, ratio: jax.Array, place: jax.Array, least: float
) -> jax.Array:
    """Crops as torchvision's RandomResizedCrop, of aspect 3/4 to 4/3, from uniform numbers."""
    side = images.shape[1]
    area = least + (1 - least) * area
    aspect = jnp.exp((2 * ratio - 1) * jnp.log(4 / 3))
    sides = jnp.sqrt(area)[:, None] * jnp.stack([aspect**-0.5, aspect**0.5], 1)
    sides = jnp.minimum(sides, 1)
    return resample(images, place * (1 - sides) * side, sides, clamped=True)


def _jitter(images: jax.Array, drawn: jax.Array, strength: float) -> jax.Array:
    """Changes colors by numbers `[b, 4]` of -1 to 1."""
    brightness, contrast, saturation = (
        (1 + 0.4 * strength * drawn[:, i]).reshape(-1, 1, 1, 1) for i in range(3)
    )
    images = jnp.clip(images * brightness, 0, 1)
    middle = _grey(images).mean((1, 2, 3), keepdims=True)
    images = jnp.clip(middle + contrast * (images - middle), 0, 1)
    grey = _grey(images)
    images = jnp.clip(grey + saturation * (images - grey), 0, 1)
    angle = 2 * jnp.pi * 0.1 * strength * drawn[:, 3]
    cos, sin, one = jnp.cos(angle), jnp.sin(angle), jnp.ones_like(angle)
    turn = jnp.stack([one, 0 * one, 0 * one, 0 * one, cos, -sin, 0 * one, sin, cos], 1)
    to_yiq = jnp.array(_TO_YIQ)
    back = jnp.linalg.inv(to_yiq)
    matrix = jnp.einsum("ij,bjk,kl->bil", back, turn.reshape(-1, 3, 3), to_yiq)
    return jnp.clip(jnp.einsum("bil,bhwl->bhwi", matrix, images), 0, 1)


def _grey(images: jax.Array) -> jax.Array:
    """Returns the luminance of ITU-R 601, `[b, s, s, 1]`."""
    return (images * jnp.array(_TO_YIQ[0]).reshape(1, 1, 1, 3)).sum(-1, keepdims=True)
