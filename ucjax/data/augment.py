"""What happens to images on the device, inside a step; pure functions of a key.

Numbers are drawn for the whole batch and each device takes its share of them, so that results
do not depend on the number of devices.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ucjax.runtime import parallel


def to_float(images: jax.Array) -> jax.Array:
    """Turns 8-bit pixels into float32 in [0, 1], value / 255, of the same shape."""
    return images.astype(jnp.float32) / 255


def random_crop_offsets(
    key: jax.Array, lengths: jax.Array, short_side: int, size: int
) -> tuple[jax.Array, jax.Array]:
    """Places a square of `size` pixels in each image, uniformly as torchvision's RandomCrop.

    The numbers of an image depend on its position in the batch, not on the batch's size.

    Args:
      key: a PRNG key.
      lengths: long sides in pixels, int32 `[b]`, at least `size`.
      short_side: the images' common short side in pixels, at least `size`.
      size: side of the crop in pixels.

    Returns:
      First pixel along the long side, in [0, length - size], and along the short side, in
      [0, short_side - size]: int32 `[b]` each.
    """
    long_key, short_key = jax.random.split(key)
    return (
        jax.random.randint(long_key, lengths.shape, 0, lengths - size + 1),
        jax.random.randint(short_key, lengths.shape, 0, short_side - size + 1),
    )


def whole_batch(share: int) -> int:
    """Returns the size of the batch of which each device has `share` images."""
    return share * lax.axis_size(parallel.AXIS)


def own_share(values: jax.Array) -> jax.Array:
    """Returns this device's rows of values `[b, ...]` of a whole batch, in `parallel.pmap`."""
    share = len(values) // lax.axis_size(parallel.AXIS)
    return lax.dynamic_slice_in_dim(values, lax.axis_index(parallel.AXIS) * share, share)


def own_keys(key: jax.Array, share: int) -> jax.Array:
    """Returns keys `[share]` for this device's rows, each that of its row in the whole batch."""
    first = lax.axis_index(parallel.AXIS) * share
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(first + jnp.arange(share))


def shuffled(key: jax.Array, tree: Any) -> Any:
    """Returns the rows of a whole batch in random order, this device's share of them.

    Args:
      key: a PRNG key, the same on all devices.
      tree: arrays of this device's share `[b, ...]`, all in the same order.
    """
    share = len(jax.tree.leaves(tree)[0])
    order = own_share(jax.random.permutation(key, whole_batch(share)))
    return jax.tree.map(lambda x: lax.all_gather(x, parallel.AXIS, tiled=True)[order], tree)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability 1/2; to be called in `parallel.pmap`.

    Args:
      key: a PRNG key, the same on all devices.
      images: this device's share `[b, h, w, c]` of the batch, upright.
    """
    return flip(images, own_share(flip_mask(key, whole_batch(len(images)))))


def flip_mask(key: jax.Array, batch: int) -> jax.Array:
    """Tosses a coin for each image of a whole batch: bool `[batch]`."""
    return jax.random.bernoulli(key, shape=(batch,))


def flip(images: jax.Array, mask: jax.Array) -> jax.Array:
    """Mirrors the images `[b, h, w, c]` left to right where the mask `[b]` is true."""
    return jnp.where(mask[:, None, None, None], images[:, :, ::-1], images)
