"""Augmentation on the device, inside the step."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def to_float(images: jax.Array) -> jax.Array:
    """Turns uint8 pixels into float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


def flip_mask(key: jax.Array, batch: int) -> jax.Array:
    """Draws which of a batch's images are flipped, bool `[batch]`, each with probability 1/2.

    Drawn for the whole batch, of which a device takes its part, so that the same images are
    flipped on any number of devices.
    """
    return jax.random.bernoulli(key, 0.5, (batch,))


def flip(images: jax.Array, mask: jax.Array) -> jax.Array:
    """Mirrors the images `[b, h, w, 3]` chosen by `mask` `[b]` from left to right."""
    return jnp.where(mask[:, None, None, None], images[:, :, ::-1], images)
