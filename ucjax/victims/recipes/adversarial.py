"""Adversarial training: the victim learns from the worst images near those it is given.

Source: Madry et al., arXiv:1706.06083, with APBench's random start (arXiv:2308.03258). A radius
below the noise's budget need not undo it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ucjax.data import augment
from ucjax.victims.contract import Forward, Loss

_STEPS = 10


def training(epsilon_255: int) -> Loss:
    """Returns the loss of images at most `epsilon_255`/255 away in every channel.

    They start at a quarter of that times N(0, 1) from the given ones and take ten steps of a
    quarter of it along the gradient's sign, in test mode.
    """
    epsilon = epsilon_255 / 255

    def loss(
        forward: Forward, images: jax.Array, targets: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, Any]:
        worst = attacked(forward, images, targets, key, epsilon)
        logits, stats = forward(worst, train=True)
        return jnp.mean(optax.softmax_cross_entropy(logits, targets)), logits, stats

    return loss


def attacked(
    forward: Forward, images: jax.Array, targets: jax.Array, key: jax.Array, epsilon: float
) -> jax.Array:
    """Returns images `[b, h, w, 3]` in [0, 1] of higher loss, no farther than `epsilon` away."""

    def near(moved: jax.Array) -> jax.Array:
        return jnp.clip(jnp.clip(moved, images - epsilon, images + epsilon), 0, 1)

    def loss(moved: jax.Array) -> jax.Array:
        logits, _ = forward(moved, train=False)
        return jnp.sum(optax.softmax_cross_entropy(logits, targets))

    def step(_: int, moved: jax.Array) -> jax.Array:
        return near(moved + epsilon / 4 * jnp.sign(jax.grad(loss)(moved)))

    keys = augment.own_keys(key, len(images))
    start = jax.vmap(lambda k: jax.random.normal(k, images.shape[1:]))(keys)
    return lax.fori_loop(0, _STEPS, step, near(images + epsilon / 4 * start))
