"""Gaussian smoothing of the training images, as a defence (arXiv:2301.01217, its authors' code).

Reflected at the border without repeating it, as torch's padding "reflect".
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def smooth(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Smoothes images `[b, h, w, 3]` with 3 x 3 pixels, sigma 1.

    APBench (arXiv:2308.03258) has sigma 0.1, which changes no pixel by 1/255.
    """
    del key
    return _smoothed(images, 1, 1.0), targets


def smooth_as_in_the_paper(
    key: jax.Array, images: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Smoothes images `[b, h, w, 3]` with 7 x 7 pixels, sigma 3."""
    del key
    return _smoothed(images, 3, 3.0), targets


def _smoothed(images: jax.Array, radius: int, sigma: float) -> jax.Array:
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        around = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
        padded, length = jnp.pad(images, around, mode="reflect"), images.shape[axis]
        parts = [
            jax.lax.slice_in_dim(padded, i, i + length, axis=axis) * float(weight)
            for i, weight in enumerate(weights)
        ]
        images = sum(parts[1:], parts[0])
    return images
