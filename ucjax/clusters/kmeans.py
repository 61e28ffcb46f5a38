"""k-means of features that are spread over the devices.

Lloyd's iteration from greedy k-means++ seeds (Arthur and Vassilvitskii 2007), with the stopping
rule and the treatment of empty clusters of scikit-learn's `KMeans(algorithm="lloyd")`. Seeding is
written in the global view and draws by row index, so that results do not depend on the number of
devices beyond rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import chex
import numpy as np
from jax.sharding import Mesh

from ucjax.clusters import lloyd, seeding
from ucjax.errors import UserError
from ucjax.runtime import parallel

# Restarts that reach one optimum differ in inertia by rounding: the first of them is kept.
_SAME_INERTIA = 1e-6
_ASSIGN_ROWS = 512


@dataclass(frozen=True)
class Clusters:
    """A partition of n feature vectors.

    Attributes:
      centers: float32 `[k, d]`, the mean feature of each cluster.
      assignment: int32 `[n]`, the nearest centre of each row; every cluster has a member.
      inertia: sum of squared distances to the nearest centre.
      iterations: updates of the centres made by the restart that was kept.
    """

    centers: np.ndarray
    assignment: np.ndarray
    inertia: float
    iterations: int


def fit(
    features: np.ndarray,
    k: int,
    *,
    seed: int,
    mesh: Mesh,
    n_init: int = 10,
    max_iterations: int = 300,
    tolerance: float = 1e-4,
    centers: np.ndarray | None = None,
) -> Clusters:
    """Groups `features` `[n, d]` into `k` clusters; the restart of least inertia is kept.

    A restart ends when no row changes its cluster, when the squared shift of the centres is at
    most `tolerance` times the mean variance of a feature, or after `max_iterations`. An empty
    cluster takes the row that lies farthest from its centre. Clusters are sorted by size, largest
    first (equal sizes: by first member).

    Args:
      features: finite, `[n, d]`, equal on every process; computed with in float32.
      k: number of clusters.
      seed: of the k-means++ seeds of all restarts.
      mesh: the devices to spread the rows over.
      n_init: number of restarts.
      max_iterations: limit on each restart.
      tolerance: see above; 0 asks for a fixed point.
      centers: initial centres `[k, d]`. Replaces seeding and restarts; clusters keep its order.

    Returns:
      The clusters, none of them empty.

    Raises:
      UserError: fewer rows, or fewer distinct rows, than `k`; a row with NaN or infinity; a
        cluster that is still empty at the end.
      AssertionError: shapes do not fit.
    """
    features = np.asarray(features, np.float32)
    _check(features, k, centers)
    with np.errstate(invalid="ignore"):
        mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    if not np.isfinite(mean).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
        raise UserError(
            f"features row {row} of {len(features)} is not finite: remove that image, or check "
            "the surrogate's weights"
        )
    _check_distinct(features, k)
    rows = lloyd.place(features, mean, mesh)
    limits = {"tolerance": np.float32(tolerance), "max_iterations": np.int32(max_iterations)}
    if centers is not None:
        start = parallel.replicate(np.asarray(centers, np.float32) - mean, mesh)
        best = lloyd.iterate(rows, start, **limits, mesh=mesh)
    else:
        best = _best_restart(rows, k, seed=seed, n_init=n_init, limits=limits, mesh=mesh)
    return _clusters(parallel.to_host(best), mean, len(features), sort=centers is None)


def assign(features: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Returns the nearest of `centers` `[k, d]` to each of `features` `[n, d]`: int32 `[n]`.

    Of equally near centres the first is taken.
    """
    centers = np.asarray(centers, np.float32)
    block = min(_ASSIGN_ROWS, max(len(features), 1))
    padded, _ = parallel.pad(np.asarray(features, np.float32), block)
    blocks = padded.reshape(-1, block, padded.shape[1])
    labels = lloyd.label_blocks(blocks, centers, centers.mean(axis=0))
    return np.asarray(labels)[: len(features)]


def purity(assignment: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of images whose label is the commonest of their cluster.

    Args:
      assignment: cluster of each image, `[n]`.
      labels: class of each image, `[n]`; images with label -1 (unknown) are left out.

    Returns:
      A number in (0, 1], NaN if no label is known.
    """
    known = labels >= 0
    if not known.any():
        return math.nan
    table = np.zeros((assignment.max() + 1, labels.max() + 1), np.int64)
    np.add.at(table, (assignment[known], labels[known]), 1)
    return float(table.max(axis=1).sum() / known.sum())


def _check(features: np.ndarray, k: int, centers: np.ndarray | None) -> None:
    chex.assert_rank(features, 2)
    if centers is not None:
        chex.assert_shape(centers, (k, features.shape[1]))
    if not 1 <= k <= len(features):
        raise UserError(
            f"cannot make {k} clusters of {len(features)} images: "
            f"ask for 1 to {len(features)} clusters or add images"
        )


def _check_distinct(features: np.ndarray, k: int) -> None:
    seen = set()
    for row in features:
        seen.add((row + 0.0).tobytes())  # -0.0 equals 0.0
        if len(seen) == k:
            return
    raise UserError(
        f"cannot make {k} clusters of {len(features)} images: only {len(seen)} have distinct "
        f"features; ask for at most {len(seen)} clusters or remove duplicates"
    )


def _best_restart(
    rows: lloyd.Rows, k: int, *, seed: int, n_init: int, limits: dict[str, Any], mesh: Mesh
) -> lloyd.Fit:
    """Runs the restarts one by one: each stops when it has converged, and memory holds one."""

    def run(restart: int) -> tuple[lloyd.Fit, float]:
        start = seeding.seeds(rows, np.uint32(seed), np.uint32(restart), k=k)
        found = lloyd.iterate(rows, start, **limits, mesh=mesh)
        return found, float(parallel.to_host(found.inertia))

    best, least = run(0)
    for restart in range(1, n_init):
        found, inertia = run(restart)
        if inertia < least * (1 - _SAME_INERTIA):
            best, least = found, inertia
    return best


def _clusters(best: lloyd.Fit, mean: np.ndarray, n: int, *, sort: bool) -> Clusters:
    """Restores the mean and the order, and refuses empty clusters."""
    k, labels = len(best.centers), np.asarray(best.labels)[:n]
    _, first, counts = np.unique(labels, return_index=True, return_counts=True)
    if len(counts) < k:
        raise UserError(
            f"{k - len(counts)} of {k} clusters are empty when k-means stops (iteration "
            f"{best.iterations}): ask for at most {len(counts)} clusters or raise max_iterations"
        )
    order = np.lexsort((first, -counts)) if sort else np.arange(k)
    rank = np.argsort(order).astype(np.int32)
    return Clusters(
        centers=np.asarray(best.centers)[order] + mean,
        assignment=rank[labels],
        inertia=float(best.inertia),
        iterations=int(best.iterations),
    )
