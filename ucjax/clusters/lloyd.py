"""The device programs of k-means: Lloyd's iteration, nearest centres.

Rows are spread over the mesh; the pass over them is written per device and in blocks (never n×k×d,
and n×k only within a block), everything else in the global view. A pass looks only at the rows
whose nearest centre may have changed, by a bound of Hamerly (Making k-means even faster, 2010),
and sums change only by the rows that changed: the results are Lloyd's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from ucjax.runtime import parallel
from ucjax.runtime.parallel import REPLICATED, SHARDED

# Rows per block: on a CPU a block stays in the cache, elsewhere it keeps the device busy.
_CPU_BLOCK_ROWS = 1024
_ACCELERATOR_BLOCK_FLOATS = 2**26
# Relative errors of |x|² - 2xc + |c|² and of a sum of hundreds of shifts, with room to spare.
_SCORE_ERROR = 1e-5
_SUM_ERROR = 1e-4

_Pair = tuple[jax.Array, jax.Array]


class Rows(NamedTuple):
    """Rows on the devices, padded to a multiple of their number."""

    x: jax.Array  # f32 [n, d], mean removed: |x|² - 2xc + |c|² cancels least around 0
    squares: jax.Array  # f32 [n], |x|²
    real: jax.Array  # bool [n], False for padding


class Fit(NamedTuple):
    """One finished restart."""

    centers: jax.Array  # f32 [k, d], of rows with their mean removed
    labels: jax.Array  # i32 [n]; k for padding
    inertia: jax.Array  # f32 []
    iterations: jax.Array  # i32 []


class _Members(NamedTuple):
    """Which rows are whose, and what follows from it."""

    labels: jax.Array  # i32 [n], k for rows of no cluster (padding, all before the first pass)
    gaps: jax.Array  # f32 [n], see `_nearest`; a pass looks at the rows whose gap is closed
    sums: jax.Array  # f32 [k, d], sum of the rows of each cluster
    counts: jax.Array  # f32 [k]


class _State(NamedTuple):
    """What goes from one iteration to the next."""

    centers: jax.Array  # f32 [k, d]
    members: _Members  # of the centres before
    iterations: jax.Array  # i32 []
    final: jax.Array  # bool [], whether the centres are; then one more pass labels the rows
    labelled: jax.Array  # bool [], whether it has


def place(features: np.ndarray, mean: np.ndarray, mesh: Mesh) -> Rows:
    """Spreads `features` `[n, d]` less their `mean` `[d]` over the mesh."""
    padded, mask = parallel.pad(features, mesh.size)
    x, real = parallel.shard((padded, mask > 0), mesh)
    return _remove_mean(x, real, parallel.replicate(mean, mesh))


@partial(jax.jit, donate_argnums=0)
def _remove_mean(x: jax.Array, real: jax.Array, mean: jax.Array) -> Rows:
    x = x - mean[None, :]
    return Rows(x, jnp.sum(x * x, axis=1), real)


@partial(jax.jit, static_argnames="mesh")
def iterate(
    rows: Rows, centers: jax.Array, *, tolerance: jax.Array, max_iterations: jax.Array, mesh: Mesh
) -> Fit:
    """Iterates from `centers` `[k, d]` (mean removed) to convergence."""
    k, d = centers.shape
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    block = _CPU_BLOCK_ROWS if on_cpu else max(1, _ACCELERATOR_BLOCK_FLOATS // max(k, d))
    members_specs = _Members._make((SHARDED, SHARDED, REPLICATED, REPLICATED))
    update = parallel.pmap(
        partial(_update, block=block, on_cpu=on_cpu), mesh=mesh,
        in_specs=(SHARDED, REPLICATED, members_specs), out_specs=members_specs,
    )  # fmt: skip
    measure = parallel.pmap(
        partial(_measure, block=block), mesh=mesh,
        in_specs=(SHARDED, SHARDED, REPLICATED), out_specs=(SHARDED, REPLICATED),
    )  # fmt: skip
    variance = jnp.sum(jnp.where(rows.real, rows.squares, 0)) / (jnp.sum(rows.real) * d)

    def fill(old: jax.Array, found: _Members) -> _Members:
        return _fill_empty(rows, found, measure(rows, found.labels, old)[0])

    def step(state: _State) -> _State:
        old = state.centers
        found = update(rows, old, state.members)
        some_empty = jnp.any(found.counts == 0)
        filled = lax.cond(some_empty, fill, lambda _, found: found, old, found)
        centers = filled.sums / jnp.maximum(filled.counts, 1)[:, None]
        keep = state.final | (filled.counts == 0)
        centers = jnp.where(keep[:, None], old, centers)
        shifts = jnp.sum(jnp.square(centers - old), axis=1)
        iterations = state.iterations + ~state.final
        settled = jnp.all(found.labels == state.members.labels) & ~some_empty
        converged = settled | (jnp.sum(shifts) <= tolerance * variance)
        # A row's own centre goes away, and another comes nearer, by at most what they move.
        moved = jnp.sqrt(shifts)
        gaps = found.gaps - moved.at[found.labels].get(mode="clip") - jnp.max(moved)
        final = converged | (iterations >= max_iterations)
        return _State(centers, found._replace(gaps=gaps), iterations, final, state.final)

    start = _State(
        centers, _nobody(rows, centers), jnp.zeros((), jnp.int32), max_iterations <= 0,
        jnp.zeros((), bool),
    )  # fmt: skip
    end = lax.while_loop(lambda state: ~state.labelled, step, start)
    labels = end.members.labels
    return Fit(end.centers, labels, measure(rows, labels, end.centers)[1], end.iterations)


def _nobody(rows: Rows, centers: jax.Array) -> _Members:
    """Clusters before the first pass, which is to look at all rows but padding."""
    k = len(centers)
    gaps = jnp.where(rows.real, 0, jnp.inf)
    return _Members(jnp.full(len(gaps), k, jnp.int32), gaps, jnp.zeros_like(centers), jnp.zeros(k))


def _update(
    rows: Rows, centers: jax.Array, members: _Members, *, block: int, on_cpu: bool
) -> _Members:
    """Passes over this device's rows; sums and counts are of all devices."""
    labels, gaps = _assign(rows, centers, members.labels, members.gaps, block=block)
    sums, counts = _changes(rows.x, members.labels, labels, len(centers), block, on_cpu=on_cpu)
    sums, counts = lax.psum((sums, counts), parallel.AXIS)
    return _Members(labels, gaps, members.sums + sums, members.counts + counts)


def _assign(
    rows: Rows, centers: jax.Array, labels: jax.Array, gaps: jax.Array, *, block: int
) -> _Pair:
    """Finds labels and gaps anew for the rows whose gap is closed."""

    def visit(row: jax.Array, found: _Pair) -> _Pair:
        x = rows.x.at[row].get(mode="clip")
        new = _nearest(x, rows.squares.at[row].get(mode="clip"), centers)
        return found[0].at[row].set(new[0], mode="drop"), found[1].at[row].set(new[1], mode="drop")

    return _for_rows(gaps <= 0, block, visit, (labels, gaps))


def _changes(
    x: jax.Array, old: jax.Array, new: jax.Array, k: int, block: int, *, on_cpu: bool
) -> _Pair:
    """By how much sums `[k, d]` and counts `[k]` change with the labels `[n]` of rows `x`."""

    def visit(row: jax.Array, found: _Pair) -> _Pair:
        x_row = x.at[row].get(mode="clip")
        left, joined = (part.at[row].get(mode="fill", fill_value=k) for part in (old, new))
        return _move_rows(*found, x_row, left, joined, on_cpu=on_cpu)

    return _for_rows(old != new, block, visit, (jnp.zeros((k, x.shape[1])), jnp.zeros(k)))


def _for_rows(
    mask: jax.Array, block: int, visit: Callable[[jax.Array, _Pair], _Pair], start: _Pair
) -> _Pair:
    """Folds `visit` over the indices of the rows in `mask` `[n]`, a block at a time.

    The last block is filled up with the index n, which is out of bounds.
    """
    n = len(mask)
    block = min(n, block)
    indices = jnp.sort(jnp.where(mask, jnp.arange(n), n))  # compiles faster than `jnp.nonzero`
    rows = jnp.pad(indices, (0, -n % block), constant_values=n).reshape(-1, block)
    return lax.fori_loop(
        0, -(-jnp.sum(mask) // block), lambda i, found: visit(rows[i], found), start
    )


def _move_rows(
    sums: jax.Array, counts: jax.Array, x: jax.Array, left: jax.Array, joined: jax.Array,
    *, on_cpu: bool,
) -> _Pair:  # fmt: skip
    """Moves rows `[b, d]` between the clusters of `[k, d]` sums; label k is no cluster."""
    if on_cpu:
        sums = sums.at[joined].add(x, mode="drop").at[left].add(-x, mode="drop")
        return sums, counts.at[joined].add(1, mode="drop").at[left].add(-1, mode="drop")
    # A product rather than a scatter, whose atomics add in another order each time.
    k = len(sums)
    moves = jax.nn.one_hot(joined, k, axis=0) - jax.nn.one_hot(left, k, axis=0)
    products = jnp.matmul(moves, x, precision=lax.Precision.HIGHEST)
    return sums + products, counts + jnp.sum(moves, axis=1)


def _measure(rows: Rows, labels: jax.Array, centers: jax.Array, *, block: int) -> _Pair:
    """Squared distances of the rows to their centres `[n]`, and their sum over all devices `[]`.

    From differences: small distances do not survive in the expanded form.
    """

    def visit(row: jax.Array, found: _Pair) -> _Pair:
        distances, inertia = found
        own = centers[labels.at[row].get(mode="clip")]
        new = jnp.sum(jnp.square(rows.x.at[row].get(mode="clip") - own), axis=1)
        inertia += jnp.sum(jnp.where(row < len(labels), new, 0))
        return distances.at[row].set(new, mode="drop"), inertia

    nothing = jnp.zeros_like(rows.squares), jnp.zeros(())
    distances, inertia = _for_rows(rows.real, block, visit, nothing)
    return distances, lax.psum(inertia, parallel.AXIS)


def _fill_empty(rows: Rows, found: _Members, distances: jax.Array) -> _Members:
    """Moves the rows farthest from their centres into the empty clusters, one each."""
    k = len(found.counts)
    _, farthest = lax.top_k(jnp.where(rows.real, distances, -1), k)
    empty = found.counts == 0
    row = farthest[jnp.cumsum(empty) - 1]
    donor = jnp.where(empty, found.labels[row], k)
    # Not added to sums: those of a cluster that has lost its rows are 0 but for rounding.
    sums = jnp.where(empty[:, None], rows.x[row], found.sums).at[donor].add(-rows.x[row])
    counts = (found.counts + empty).at[donor].add(-1.0)
    return found._replace(sums=sums, counts=counts)


def distances(x: jax.Array, squares: jax.Array, centers: jax.Array) -> jax.Array:
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


def _label(scores: jax.Array) -> _Pair:
    """Where (first of equals) and what is the least of `scores` `[k, b]`: `[b]`, `[b]`.

    Two plain reductions: XLA's argmin does not vectorise on a CPU.
    """
    least = jnp.min(scores, axis=0)
    index = lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    return jnp.min(jnp.where(scores == least[None, :], index, len(scores)), axis=0), least


def _nearest(x: jax.Array, squares: jax.Array, centers: jax.Array) -> _Pair:
    """Labels `[b]` of the nearest of `centers`, and gaps `[b]`.

    The gap is by how much (in distance) the nearest is nearer than the others, less what
    rounding may add: while its centre and another have moved by less in all, a row stays.
    """
    # The barrier keeps reductions on the same bits, or no score might equal the least.
    scores = lax.optimization_barrier(_scores(x, centers))
    labels, least = _label(scores)
    index = lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    second = jnp.min(jnp.where(index == labels[None, :], jnp.inf, scores), axis=0)
    slack = _SCORE_ERROR * (squares + jnp.max(jnp.sum(centers * centers, axis=1)))
    near = jnp.sqrt(jnp.maximum(squares + least, 0) + slack)
    far = jnp.sqrt(jnp.maximum(squares + second - slack, 0))
    return labels, (1 - _SUM_ERROR) * (far - near)


@jax.jit
def label_blocks(blocks: jax.Array, centers: jax.Array, origin: jax.Array) -> jax.Array:
    """Labels `[m * b]` of `blocks` `[m, b, d]`, compared around `origin` `[d]`."""
    centers = centers - origin[None, :]

    def label(x: jax.Array) -> jax.Array:
        return _label(lax.optimization_barrier(_scores(x - origin[None, :], centers)))[0]

    return lax.map(label, blocks).reshape(-1)
