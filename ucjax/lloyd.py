"""The device programs of k-means: seeds, Lloyd's iteration, nearest centres.

Rows are spread over the mesh; the pass over them is written per device and in blocks (never n×k×d,
and n×k only within a block), everything else in the global view.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from ucjax import parallel
from ucjax.parallel import REPLICATED, SHARDED

# Rows per block: on a CPU a block stays in the cache, elsewhere it keeps the device busy.
_CPU_BLOCK_ROWS = 512
_ACCELERATOR_BLOCK_FLOATS = 2**26


class Rows(NamedTuple):
    """Rows on the devices, padded to a multiple of their number."""

    x: jax.Array  # f32 [n, d], mean removed: |x|² - 2xc + |c|² cancels least around 0
    squares: jax.Array  # f32 [n], |x|²
    real: jax.Array  # bool [n], False for padding


class Fit(NamedTuple):
    """One finished restart."""

    centers: jax.Array  # f32 [k, d], of rows with their mean removed
    labels: jax.Array  # i32 [n]
    inertia: jax.Array  # f32 []
    iterations: jax.Array  # i32 []


class _Sweep(NamedTuple):
    """What one pass over the rows finds for given centres."""

    labels: jax.Array  # i32 [n], nearest centre
    distances: jax.Array  # f32 [n], squared distance to it
    sums: jax.Array  # f32 [k, d], sum of the rows of each cluster
    counts: jax.Array  # f32 [k]


def place(features: np.ndarray, mean: np.ndarray, mesh: Mesh) -> Rows:
    """Spreads `features` `[n, d]` less their `mean` `[d]` over the mesh."""
    padded, mask = parallel.pad(features, mesh.size)
    x, real = parallel.shard((padded, mask > 0), mesh)
    return _remove_mean(x, real, parallel.replicate(mean, mesh))


@partial(jax.jit, donate_argnums=0)
def _remove_mean(x: jax.Array, real: jax.Array, mean: jax.Array) -> Rows:
    x = x - mean[None, :]
    return Rows(x, jnp.sum(x * x, axis=1), real)


@partial(jax.jit, static_argnames="k")
def seeds(rows: Rows, seed: jax.Array, restart: jax.Array, *, k: int) -> jax.Array:
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
        reached = jnp.minimum(distances[None, :], _distances(x, squares, x[candidates]))
        best = jnp.argmin(jnp.sum(reached, axis=1))
        # Exactly 0, so that rounding cannot let the same row be drawn again.
        distances = reached[best].at[candidates[best]].set(0)
        return centers.at[step].set(x[candidates[best]]), distances

    first = draw_rows(jax.random.fold_in(key, 0), real.astype(x.dtype), 1)
    distances = jnp.where(real, _distances(x, squares, x[first])[0], 0).at[first].set(0)
    centers = jnp.zeros((k, x.shape[1]), x.dtype).at[0].set(x[first[0]])
    return lax.fori_loop(1, k, add, (centers, distances))[0]


def draw_rows(key: jax.Array, weights: jax.Array, count: int) -> jax.Array:
    """Draws `count` different rows, in turn and in proportion to `weights` `[n]`: `[count]`."""
    # Gumbel top-k: one independent number a row, so neither padding nor the rounding of a
    # running sum moves a draw. "high": a million rows would tie in the tail otherwise.
    noise = jax.random.gumbel(key, weights.shape, mode="high")
    return lax.top_k(jnp.log(weights) + noise, count)[1]


@partial(jax.jit, static_argnames="mesh")
def iterate(
    rows: Rows, centers: jax.Array, *, tolerance: jax.Array, max_iterations: jax.Array, mesh: Mesh
) -> Fit:
    """Iterates from `centers` `[k, d]` (mean removed) to convergence."""
    x, squares, real = rows
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    block = _CPU_BLOCK_ROWS if on_cpu else max(1, _ACCELERATOR_BLOCK_FLOATS // max(centers.shape))
    sweep = parallel.pmap(
        partial(_sweep, block=block, on_cpu=on_cpu),
        mesh=mesh,
        in_specs=(SHARDED, REPLICATED),
        out_specs=_Sweep._make((SHARDED, SHARDED, REPLICATED, REPLICATED)),
    )
    measure = parallel.pmap(
        partial(_inertia, block=block),
        mesh=mesh,
        in_specs=(SHARDED, SHARDED, REPLICATED),
        out_specs=REPLICATED,
    )
    variance = jnp.sum(jnp.where(real, squares, 0)) / (jnp.sum(real) * x.shape[1])

    def unfinished(state: tuple[Fit, jax.Array]) -> jax.Array:
        return ~state[1] & (state[0].iterations < max_iterations)

    def step(state: tuple[Fit, jax.Array]) -> tuple[Fit, jax.Array]:
        old = state[0]
        found = sweep(rows, old.centers)
        filled = lax.cond(
            jnp.any(found.counts == 0), _fill_empty, lambda rows, found: found, rows, found
        )
        centers = filled.sums / jnp.maximum(filled.counts, 1)[:, None]
        centers = jnp.where(filled.counts[:, None] > 0, centers, old.centers)
        settled = jnp.all((found.labels == old.labels) | ~real) & jnp.all(found.counts > 0)
        shift = jnp.sum(jnp.square(centers - old.centers))
        new = Fit(centers, found.labels, old.inertia, old.iterations + 1)
        return new, settled | (shift <= tolerance * variance)

    start = Fit(centers, jnp.full(len(x), -1, jnp.int32), jnp.zeros(()), jnp.zeros((), jnp.int32))
    end, _ = lax.while_loop(unfinished, step, (start, jnp.zeros((), bool)))
    labels = sweep(rows, end.centers).labels
    return end._replace(labels=labels, inertia=measure(rows, labels, end.centers))


def _sweep(rows: Rows, centers: jax.Array, *, block: int, on_cpu: bool) -> _Sweep:
    """Finds the nearest centre of this device's rows; sums and counts are of all devices."""
    n, k = len(rows.x), len(centers)
    block = min(n, block)

    def visit(i: jax.Array, found: _Sweep) -> _Sweep:
        (x, squares, real), start = _block(rows, i, block)
        labels, distances = _nearest(x, squares, centers)
        counted = jnp.where(real, labels, k)
        sums, counts = _add_rows(found.sums, found.counts, x, counted, on_cpu=on_cpu)
        return _Sweep(
            lax.dynamic_update_slice_in_dim(found.labels, labels, start, 0),
            lax.dynamic_update_slice_in_dim(found.distances, distances, start, 0),
            sums,
            counts,
        )

    nothing = _Sweep(jnp.zeros(n, jnp.int32), jnp.zeros(n), jnp.zeros_like(centers), jnp.zeros(k))
    found = lax.fori_loop(0, -(-n // block), visit, nothing)
    sums, counts = lax.psum((found.sums, found.counts), parallel.AXIS)
    return found._replace(sums=sums, counts=counts)


def _inertia(rows: Rows, labels: jax.Array, centers: jax.Array, *, block: int) -> jax.Array:
    """Sums the squared distances of the rows to their centres over all devices: `[]`.

    From differences: small distances do not survive in the expanded form.
    """
    block = min(len(rows.x), block)

    def visit(i: jax.Array, inertia: jax.Array) -> jax.Array:
        (x, _, real), start = _block(rows, i, block)
        near = centers[lax.dynamic_slice_in_dim(labels, start, block)]
        return inertia + jnp.sum(jnp.where(real[:, None], jnp.square(x - near), 0))

    return lax.psum(lax.fori_loop(0, -(-len(rows.x) // block), visit, jnp.zeros(())), parallel.AXIS)


def _block(rows: Rows, i: jax.Array, block: int) -> tuple[Rows, jax.Array]:
    """The i-th block of rows and where it starts.

    The last block ends with the last row; what it shares with the one before is not `real` in it.
    """
    start = jnp.minimum(i * block, len(rows.x) - block)
    x, squares, real = (lax.dynamic_slice_in_dim(part, start, block) for part in rows)
    return Rows(x, squares, real & (start + jnp.arange(block) >= i * block)), start


def _add_rows(
    sums: jax.Array, counts: jax.Array, x: jax.Array, labels: jax.Array, *, on_cpu: bool
) -> tuple[jax.Array, jax.Array]:
    """Adds rows `[b, d]` to the `[k, d]` sums and `[k]` counts; rows with label k are dropped."""
    if on_cpu:
        return sums.at[labels].add(x, mode="drop"), counts.at[labels].add(1, mode="drop")
    # A product rather than a scatter, whose atomics add in another order each time.
    members = jax.nn.one_hot(labels, len(sums), dtype=x.dtype, axis=0)
    products = jnp.matmul(members, x, precision=lax.Precision.HIGHEST)
    return sums + products, counts + jnp.sum(members, axis=1)


def _fill_empty(rows: Rows, found: _Sweep) -> _Sweep:
    """Moves the rows farthest from their centres into the empty clusters, one each."""
    k = len(found.counts)
    _, farthest = lax.top_k(jnp.where(rows.real, found.distances, -1), k)
    empty = found.counts == 0
    row = farthest[jnp.cumsum(empty) - 1]
    moved = jnp.where(empty[:, None], rows.x[row], 0)
    donor = jnp.where(empty, found.labels[row], k)
    sums = (found.sums + moved).at[donor].add(-moved)
    counts = (found.counts + empty).at[donor].add(-1.0)
    return found._replace(sums=sums, counts=counts)


def _distances(x: jax.Array, squares: jax.Array, centers: jax.Array) -> jax.Array:
    """Squared distances of `[k, d]` centres to rows `[b, d]`: `[k, b]`."""
    return jnp.maximum(squares[None, :] + _scores(x, centers), 0)


def _scores(x: jax.Array, centers: jax.Array) -> jax.Array:
    """|c|² - 2cx of centres `[k, d]` and rows `[b, d]`: `[k, b]`.

    This way round, products run up to 1.3 times and reductions over k many times as fast on a CPU.
    """
    products = lax.dot_general(
        -2 * centers, x, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST
    )
    return products + jnp.sum(centers * centers, axis=1)[:, None]


def _nearest(x: jax.Array, squares: jax.Array, centers: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Labels `[b]` of the nearest (first of equals) of `centers` and squared distances `[b]`."""
    # Two plain reductions: XLA's argmin does not vectorise on a CPU. The barrier keeps them on
    # the same bits, or none of the scores might equal the least one.
    scores = lax.optimization_barrier(_scores(x, centers))
    least = jnp.min(scores, axis=0)
    index = lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    labels = jnp.min(jnp.where(scores == least[None, :], index, len(centers)), axis=0)
    return labels, jnp.maximum(squares + least, 0)


@jax.jit
def label_blocks(blocks: jax.Array, centers: jax.Array, origin: jax.Array) -> jax.Array:
    """Labels `[m * b]` of `blocks` `[m, b, d]`, compared around `origin` `[d]`."""
    centers = centers - origin[None, :]

    def label(x: jax.Array) -> jax.Array:
        x = x - origin[None, :]
        return _nearest(x, jnp.sum(x * x, axis=1), centers)[0]

    return lax.map(label, blocks).reshape(-1)
