"""The device program that draws the first centres of k-means."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ucjax.clusters import lloyd


@partial(jax.jit, static_argnames="k")
def seeds(rows: lloyd.Rows, seed: jax.Array, restart: jax.Array, *, k: int) -> jax.Array:
    """Draws `k` rows by greedy k-means++: `[k, d]`.

    Each further centre is the best of 2 + log k rows drawn with probability proportional to their
    squared distance to the centres so far, as in scikit-learn (but drawn without replacement).
    """
    x, squares, real = rows
    trials = min(2 + int(math.log(k)), len(x))
    key = jax.random.fold_in(jax.random.key(seed), restart)

    def add(step: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        centers, distances = carry
        candidates = draw_rows(jax.random.fold_in(key, step), distances, trials)
        reached = jnp.minimum(distances[None, :], lloyd.distances(x, squares, x[candidates]))
        best = jnp.argmin(jnp.sum(reached, axis=1))
        # Exactly 0, so that rounding cannot let the same row be drawn again.
        distances = reached[best].at[candidates[best]].set(0)
        return centers.at[step].set(x[candidates[best]]), distances

    first = draw_rows(jax.random.fold_in(key, 0), real.astype(x.dtype), 1)
    distances = jnp.where(real, lloyd.distances(x, squares, x[first])[0], 0).at[first].set(0)
    centers = jnp.zeros((k, x.shape[1]), x.dtype).at[0].set(x[first[0]])
    return lax.fori_loop(1, k, add, (centers, distances))[0]


def draw_rows(key: jax.Array, weights: jax.Array, count: int) -> jax.Array:
    """Draws `count` different rows, in turn and in proportion to `weights` `[n]`: `[count]`."""
    # Gumbel top-k: one independent number a row, so neither padding nor the rounding of a
    # running sum moves a draw. "high": a million rows would tie in the tail otherwise.
    noise = jax.random.gumbel(key, weights.shape, mode="high")
    return lax.top_k(jnp.log(weights) + noise, count)[1]
