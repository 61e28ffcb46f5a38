"""TrivialAugment: one operation for a batch, of a strength of its own in each image.

Source: Müller and Hutter, arXiv:2103.10158, with the operations, ranges and one-sided rotations,
shears and moves of the library that UEraser (arXiv:2303.15127) takes it from.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy import ndimage

from ucjax.data import augment


def apply(key: jax.Array, images: jax.Array) -> jax.Array:
    """Changes images `[b, h, w, 3]` in [0, 1]; to be called in `parallel.pmap`."""
    which_key, strength_key = jax.random.split(key)
    which = jax.random.randint(which_key, (), 0, len(OPERATIONS))
    whole = augment.whole_batch(len(images))
    strengths = augment.own_share(jax.random.uniform(strength_key, (whole,)))
    return lax.switch(which, OPERATIONS, images, strengths)


def auto_contrast(images: jax.Array, strengths: jax.Array) -> jax.Array:
    """Stretches each channel to [0, 1]; one of a single value stays."""
    del strengths
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    flat = high <= low
    return jnp.where(flat, images, (images - low) / jnp.where(flat, 1, high - low))


def equalize(images: jax.Array, strengths: jax.Array) -> jax.Array:
    """Spreads each channel's values evenly, as Pillow's ImageOps.equalize does."""
    del strengths

    def channel(values: jax.Array) -> jax.Array:
        counts = jnp.zeros(256, jnp.int32).at[values.ravel()].add(1)
        step = (values.size - counts[values.max()]) // 255
        table = (step // 2 + jnp.cumsum(counts) - counts) // jnp.maximum(step, 1)
        return jnp.where(step > 0, jnp.minimum(table, 255)[values], values)

    spread = jax.vmap(jax.vmap(channel, 2, 2))(_levels(images))
    return spread.astype(images.dtype) / 255


def posterize(images: jax.Array, strengths: jax.Array) -> jax.Array:
    """Keeps the top 0 to 3 bits."""
    kept = jnp.floor(4 * strengths).astype(jnp.int32)[:, None, None, None]
    return (_levels(images) & ~(255 >> kept) & 255).astype(images.dtype) / 255


def solarize(images: jax.Array, strengths: jax.Array) -> jax.Array:
    """Inverts what is at least as bright as a threshold of 0 to 1."""
    return jnp.where(images < strengths[:, None, None, None], images, 1 - images)


def contrast(images: jax.Array, strengths: jax.Array) -> jax.Array:
    """Multiplies by 0.1 to 1.9."""
    return jnp.clip(images * _factor(strengths), 0, 1)


def brightness(images: jax.Array, strengths: jax.Array) -> jax.Array:
    """Adds -0.9 to 0.9."""
    return jnp.clip(images + _factor(strengths) - 1, 0, 1)


def sharpness(images: jax.Array, strengths: jax.Array) -> jax.Array:
    """Goes 0.1 to 1.9 of the way from the smoothed image to it and past it, as Pillow does."""
    height, width = images.shape[1:3]
    parts = [
        images[:, i : height - 2 + i, j : width - 2 + j] * (5 if i == j == 1 else 1) / 13
        for i in range(3)
        for j in range(3)
    ]
    smooth = images.at[:, 1:-1, 1:-1].set(sum(parts[1:], parts[0]))
    return jnp.clip(smooth + _factor(strengths) * (images - smooth), 0, 1)


def rotate(images: jax.Array, strengths: jax.Array) -> jax.Array:
    """Turns by 0 to 30 degrees against the clock."""
    angles = strengths * math.radians(30)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return _moved(images, jnp.stack([cos, sin, -sin, cos], 1))


def shear_x(images: jax.Array, strengths: jax.Array) -> jax.Array:
    """Moves rows by 0 to 0.3 of their distance from the middle."""
    one, none = jnp.ones_like(strengths), jnp.zeros_like(strengths)
    return _moved(images, jnp.stack([one, none, 0.3 * strengths, one], 1))


def shear_y(images: jax.Array, strengths: jax.Array) -> jax.Array:
    """Moves columns by 0 to 0.3 of their distance from the middle."""
    one, none = jnp.ones_like(strengths), jnp.zeros_like(strengths)
    return _moved(images, jnp.stack([one, 0.3 * strengths, none, one], 1))


def translate_x(images: jax.Array, strengths: jax.Array) -> jax.Array:
    """Moves to the right by 0 to half the width."""
    return _moved(images, across=0.5 * images.shape[2] * strengths)


def translate_y(images: jax.Array, strengths: jax.Array) -> jax.Array:
    """Moves down by 0 to half the height."""
    return _moved(images, down=0.5 * images.shape[1] * strengths)


OPERATIONS = (
    auto_contrast, equalize, rotate, posterize, solarize, contrast, brightness, sharpness,
    shear_x, shear_y, translate_x, translate_y,
)  # fmt: skip


def _levels(images: jax.Array) -> jax.Array:
    return jnp.rint(images * 255).astype(jnp.int32)


def _factor(strengths: jax.Array) -> jax.Array:
    return (0.1 + 1.8 * strengths)[:, None, None, None]


def _moved(
    images: jax.Array,
    matrices: jax.Array | None = None,
    down: jax.Array | float = 0.0,
    across: jax.Array | float = 0.0,
) -> jax.Array:
    """Takes each pixel, bilinear, from where a matrix about the middle and a move say; 0 outside.

    Args:
      images: `[b, h, w, 3]`.
      matrices: from the distances (down, across) of a pixel to those of its source, row by row,
        `[b, 4]`; None for the same.
      down: pixels by which images move, `[b]`.
      across: likewise.
    """
    count, height, width = images.shape[:3]
    same = jnp.broadcast_to(jnp.array([[1.0, 0.0, 0.0, 1.0]]), (count, 4))
    matrices = same if matrices is None else matrices
    middle = jnp.array([(height - 1) / 2, (width - 1) / 2])
    rows, columns = jnp.arange(height) - middle[0], jnp.arange(width) - middle[1]
    moves = jnp.stack([jnp.broadcast_to(move, (count,)) for move in (down, across)], 1)

    def one(image: jax.Array, matrix: jax.Array, move: jax.Array) -> jax.Array:
        y, x = rows[:, None] - move[0], columns[None] - move[1]
        where = [
            jnp.broadcast_to(a * y + b * x + m, (height, width))
            for a, b, m in zip(matrix[::2], matrix[1::2], middle, strict=True)
        ]
        return jax.vmap(lambda channel: ndimage.map_coordinates(channel, where, order=1), 2, 2)(
            image
        )

    return jax.vmap(one)(images, matrices, moves)
