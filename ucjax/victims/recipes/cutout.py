"""Cutout: a square of every training image is blackened.

Source: DeVries and Taylor, arXiv:1708.04552. The authors of Unlearnable Clusters cut the same,
smaller square out of all images of a batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ucjax.data import augment

_PAPER_AREA = 0.1


def cut(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sets a square of half the side to 0, around a pixel of each image's own, cut at the border.

    To be called in `parallel.pmap` on images `[b, h, w, 3]`.
    """
    height, width = images.shape[1:3]
    side = height // 2
    b = augment.whole_batch(len(images))
    keys = jax.random.split(key)
    centers = (
        jax.random.randint(k, (b,), 0, n) for k, n in zip(keys, (height, width), strict=True)
    )
    top, left = (augment.own_share(c) - side // 2 for c in centers)
    return _blackened(images, top, left, side), targets


def cut_as_in_the_paper(
    key: jax.Array, images: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sets one square of 10 % of the area to 0, in the same place in all images of the batch."""
    height, width = images.shape[1:3]
    side = int(_PAPER_AREA**0.5 * height)
    top, left = (
        jax.random.randint(k, (1,), 0, n - side + 1)
        for k, n in zip(jax.random.split(key), (height, width), strict=True)
    )
    return _blackened(images, top, left, side), targets


def _blackened(images: jax.Array, top: jax.Array, left: jax.Array, side: int) -> jax.Array:
    """Sets a square of each image to 0; its corner is `top`, `left`, each `[b]` or `[1]`."""
    height, width = images.shape[1:3]

    def inside(first: jax.Array, length: int) -> jax.Array:
        distance = jnp.arange(length)[None] - first[:, None]
        return (distance >= 0) & (distance < side)

    square = inside(top, height)[:, :, None] & inside(left, width)[:, None, :]
    return jnp.where(square[..., None], 0.0, images)
