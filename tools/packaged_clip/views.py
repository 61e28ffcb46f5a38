"""What training images look like: random resized crops, flips and mild colour, on the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ucjax.runtime import parallel


def random_views(
    key: jax.Array, images: jax.Array, *, smallest_area: float, colour: float
) -> jax.Array:
    """Crops, mirrors and recolours each image; to be called in `parallel.pmap`.

    The numbers are drawn for the whole batch, so that they do not depend on how many devices
    share it.

    Args:
      key: a PRNG key, the same on all devices.
      images: this device's share of the batch, float32 `[b, s, s, 3]` in [0, 1].
      smallest_area: of a crop, as a share of the image's; the largest is 1. Aspects are 3/4 to
        4/3.
      colour: brightness, contrast and saturation are scaled by 1 ± this.

    Returns:
      The views, of the same shape and range.
    """
    share = len(images)
    drawn = jax.random.uniform(key, (share * lax.axis_size(parallel.AXIS), 8))
    start = lax.axis_index(parallel.AXIS) * share
    area, aspect, top, left, flip, *factors = lax.dynamic_slice_in_dim(drawn, start, share).T
    images = resized_crops(images, *_boxes(area, aspect, smallest_area), top, left, flip < 0.5)
    brightness, contrast, saturation = (1 + colour * (2 * x - 1) for x in factors)
    return recolour(images, brightness, contrast, saturation)


def _boxes(area: jax.Array, aspect: jax.Array, smallest_area: float) -> tuple[jax.Array, jax.Array]:
    """Heights and widths in (0, 1] from uniform numbers, as torchvision's RandomResizedCrop."""
    side = jnp.sqrt(smallest_area + (1 - smallest_area) * area)
    stretch = jnp.exp(jnp.log(4 / 3) * (aspect - 0.5))
    return jnp.minimum(side / stretch, 1.0), jnp.minimum(side * stretch, 1.0)


def resized_crops(
    images: jax.Array,
    height: jax.Array,
    width: jax.Array,
    top: jax.Array,
    left: jax.Array,
    flip: jax.Array,
) -> jax.Array:
    """Enlarges a box of each image `[b, s, s, 3]` to s x s, bilinearly.

    Args:
      images: any range.
      height: of the boxes, as a share of s in (0, 1], `[b]`.
      width: likewise.
      top: where the box lies between the image's edges, 0 to 1, `[b]`.
      left: likewise.
      flip: whether to mirror left to right, bool `[b]`.
    """
    s = images.shape[1]
    rows = _weights(height, top, s)
    columns = _weights(width, left, s)
    columns = jnp.where(flip[:, None, None], columns[:, ::-1], columns)
    # Products of matrices: gathers of single pixels would be the slowest part on a CPU.
    images = jnp.einsum("bij,bjkc->bikc", rows, images)
    return jnp.einsum("blk,bikc->bilc", columns, images)


def _weights(length: jax.Array, offset: jax.Array, s: int) -> jax.Array:
    """Interpolation matrices `[b, s, s]` along one axis: each row sums to 1."""
    first = (1 - length) * offset * s
    centre = first[:, None] + (jnp.arange(s)[None] + 0.5) * length[:, None] - 0.5
    centre = jnp.clip(centre, 0, s - 1)
    return jnp.maximum(0, 1 - jnp.abs(centre[:, :, None] - jnp.arange(s)[None, None]))


def recolour(
    images: jax.Array, brightness: jax.Array, contrast: jax.Array, saturation: jax.Array
) -> jax.Array:
    """Scales brightness, contrast around the mean grey, and saturation, by factors `[b]`."""
    brightness, contrast, saturation = (
        x[:, None, None, None] for x in (brightness, contrast, saturation)
    )
    images = images * brightness
    grey = images.mean(axis=-1, keepdims=True)
    images = grey + saturation * (images - grey)
    mean = grey.mean(axis=(1, 2), keepdims=True)
    return jnp.clip(mean + contrast * (images - mean), 0, 1)
