"""The loss of a noise step and its gradient with respect to the noise (DDU, arXiv:2301.01217)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.optimize import linear_sum_assignment

Embed = Callable[[Any, jax.Array], jax.Array]


class Batch(NamedTuple):
    """Images of one step (on one device, inside a mapped function)."""

    images: jax.Array  # [b, s, s, 3], uint8 from the feed, then float32 in [0, 1]
    cluster: jax.Array  # [b] int32
    weight: jax.Array  # [b] float32: what an image's distance counts in the loss; 0 for padding
    share: jax.Array  # [b] float32: 1 / real images in the global batch; 0 for padding


class Value(NamedTuple):
    """The part of the loss of one device; sums over the devices' batches give the whole."""

    loss: jax.Array  # scalar: sum over the clusters of a mean distance
    gradient: jax.Array  # [P, s, s, 3]: d loss / d noise
    moved: jax.Array  # scalar: share of images whose nearest centre is their target


class Objective(Protocol):
    """Loss and gradient of `noise` `[P, s, s, 3]` given centres `[p, d]` and targets `[p]`."""

    def __call__(  # noqa: D102
        self, noise: jax.Array, params: Any, centers: jax.Array, target: jax.Array, batch: Batch
    ) -> Value: ...


def targets(centers: np.ndarray, rule: str, seed: int) -> np.ndarray:
    """Returns a derangement g `[p]` int32: cluster i is dragged to centre g[i] != i.

    "offset" is i + 1 mod p (the authors' code); "farthest" the derangement with the largest
    summed distance between centres; "permuted" a uniform derangement drawn from `seed`.
    """
    p = len(centers)
    if rule == "offset":
        return ((np.arange(p) + 1) % p).astype(np.int32)
    if rule == "farthest":
        distance = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
        # Staying must cost more than any gain elsewhere.
        np.fill_diagonal(distance, -p * (distance.max() + 1))
        return linear_sum_assignment(distance, maximize=True)[1].astype(np.int32)
    rng = np.random.default_rng((seed, p))
    while True:
        permutation = rng.permutation(p).astype(np.int32)
        if (permutation != np.arange(p)).all():
            return permutation


def distances(features: jax.Array, centers: jax.Array, distance: str) -> jax.Array:
    """Distance `[b]` of features `[b, d]` to their target centres `[b, d]`.

    "kl" is KL(softmax(centre) ‖ softmax(feature)), the authors' choice; "l2" is the squared
    Euclidean distance over 2d, to which "kl" tends for small features; "cosine" is 1 - cosine.
    """
    if distance == "kl":
        log_center = jax.nn.log_softmax(centers)
        return jnp.sum(jnp.exp(log_center) * (log_center - jax.nn.log_softmax(features)), axis=-1)
    if distance == "l2":
        return jnp.mean((features - centers) ** 2, axis=-1) / 2
    norms = jnp.linalg.norm(features, axis=-1) * jnp.linalg.norm(centers, axis=-1)
    return 1 - jnp.sum(features * centers, axis=-1) / jnp.maximum(norms, 1e-12)


def make_objective(embed: Embed, *, distance: str, scope: str) -> Objective:
    """Builds the objective: each image with its cluster's noise, or with everyone's ("all").

    Only the gradient with respect to the noise is computed, never the surrogate's.
    """

    def value(
        noise: jax.Array, row: jax.Array, goal: jax.Array, params: Any, centers: jax.Array,
        batch: Batch,
    ) -> Value:  # fmt: skip
        def loss(noise: jax.Array) -> tuple[jax.Array, jax.Array]:
            features = embed(params, jnp.clip(batch.images + noise[row], 0, 1))
            total = jnp.sum(distances(features, centers[goal], distance) * batch.weight)
            return total, jnp.sum((nearest(features, centers) == goal) * batch.share)

        (total, moved), gradient = jax.value_and_grad(loss, has_aux=True)(noise)
        return Value(total, gradient, moved)

    def own_noise(
        noise: jax.Array, params: Any, centers: jax.Array, target: jax.Array, batch: Batch
    ) -> Value:
        return value(noise, batch.cluster, target[batch.cluster], params, centers, batch)

    def every_noise(
        noise: jax.Array, params: Any, centers: jax.Array, target: jax.Array, batch: Batch
    ) -> Value:
        first = jnp.zeros_like(batch.cluster)

        def one(i: jax.Array) -> Value:
            own = batch._replace(share=batch.share * (batch.cluster == i))
            return value(noise[i][None], first, first + target[i], params, centers, own)

        # One cluster after the other: p times the work of a pass, but the memory of one.
        parts = lax.map(one, jnp.arange(len(target)))
        padding = ((0, len(noise) - len(target)), (0, 0), (0, 0), (0, 0))
        gradient = jnp.pad(parts.gradient[:, 0], padding)
        return Value(jnp.sum(parts.loss), gradient, jnp.sum(parts.moved))

    return own_noise if scope == "cluster" else every_noise


def nearest(features: jax.Array, centers: jax.Array) -> jax.Array:
    """Index `[b]` of the centre `[p, d]` nearest to each feature `[b, d]`."""
    squares = jnp.sum(centers**2, axis=-1)
    return jnp.argmin(squares[None] - 2 * features @ centers.T, axis=-1)
