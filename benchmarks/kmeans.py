"""k-means against scikit-learn: same rows, same seeds, same number of iterations.

    python -m benchmarks.kmeans                                   # 100 k x 512, k 100: 2 minutes
    python -m benchmarks.kmeans --rows=1000000 --features=256 --clusters=1000 --iterations=3

Prints a table of times taken in turns in one run, beside two floors of passes over all rows: the
floating point operations at the rate of a large dense product, and the bytes at the rate of a
copy. Skipping rows that cannot change their cluster goes below them. Compilation is left out of
the times and reported by itself. Fails if memory grows by more than 1 GB above the input. Needs
scikit-learn (the `test` extra).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus

from benchmarks import timing
from ucjax.clusters import kmeans, lloyd, seeding
from ucjax.runtime import checkpoint, parallel

MOST_MB = 1000  # above the input


def make_rows(n: int, d: int, k: int) -> np.ndarray:
    """Overlapping blobs `[n, d]` that need many iterations, made without a second copy."""
    rng = np.random.default_rng(0)
    rows = np.empty((n, d), np.float32)
    means = 0.3 * rng.standard_normal((k, d), dtype=np.float32)
    for start in range(0, n, 10_000):
        part = rows[start : start + 10_000]
        rng.standard_normal(out=part, dtype=np.float32)
        part += means[rng.integers(k, size=len(part))]
    return rows


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Runs both sides in turns."""
    x = make_rows(args.rows, args.features, args.clusters)
    k, mesh, centers = args.clusters, parallel.make_mesh(), x[: args.clusters].copy()
    limits = {"max_iterations": args.iterations, "tolerance": 0.0}

    def ours() -> kmeans.Clusters:
        return kmeans.fit(x, k, seed=0, mesh=mesh, centers=centers, **limits)

    def theirs() -> KMeans:
        return KMeans(k, init=centers, n_init=1, max_iter=args.iterations, tol=0).fit(x)

    before = timing.peak_mb()
    first, _ = timing.timed(ours)
    peak = timing.peak_mb() - before
    rows = lloyd.place(x, x.mean(axis=0), mesh)

    def our_seeds() -> jax.Array:
        return seeding.seeds(rows, np.uint32(0), np.uint32(0), k=k)

    sides: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {"iterations": (ours, theirs)}
    if not args.skip_seeding:
        jax.block_until_ready(our_seeds())
        sides["seeding"] = (our_seeds, lambda: kmeans_plusplus(x, k, random_state=0))
    times: dict[str, list[list[float]]] = {name: [[], []] for name in sides}
    results: dict[str, Any] = {}
    for _ in range(args.repeats):
        for name, pair in sides.items():
            for i, function in enumerate(pair):
                taken, results[f"{name}{i}"] = timing.timed(function)
                times[name][i].append(taken.wall)
    mine, oracle = results["iterations0"], results["iterations1"]
    return {
        "settings": {key: value for key, value in vars(args).items() if key != "out"},
        **timing.machine("scikit-learn"),
        "times": {name: {"ucjax": a, "scikit_learn": b} for name, (a, b) in times.items()},
        "compile_seconds": first.wall - statistics.median(times["iterations"][0]),
        "iterations": [mine.iterations, int(oracle.n_iter_)],
        "inertia": [mine.inertia, float(oracle.inertia_)],
        "same_assignment": float(np.mean(mine.assignment == oracle.labels_)),
        "peak_above_input_mb": peak,
        "ceilings": timing.ceilings(max(args.repeats, 5))._asdict(),
    }


def floors(result: dict[str, Any], name: str) -> tuple[float, float]:
    """Least seconds of all passes by operations and by bytes: each reads every row once."""
    settings = result["settings"]
    n, d, k = settings["rows"], settings["features"], settings["clusters"]
    if name == "iterations":  # a last pass labels the rows
        passes, width = result["iterations"][0] + 1, k
    else:  # one pass for each seed, against its candidates
        passes, width = k, 2 + int(np.log(k))
    operations = passes * (2 * n * d * width + n * d)
    ceilings = timing.Ceilings(**result["ceilings"])
    return operations / ceilings.product, passes * 4 * n * d / ceilings.copy


def show(result: dict[str, Any]) -> None:
    """Prints the table."""
    print(
        f"{'':12}{'ucjax s (spread)':>24}{'scikit-learn s (spread)':>26}{'ratio (spread)':>22}"
        f"{'FLOP floor s':>14}{'byte floor s':>14}"
    )
    for name, times in result["times"].items():
        mine, theirs = times["ucjax"], times["scikit_learn"]
        ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
        cells = [timing.spelled(part) for part in (mine, theirs, ratios)]
        operations, traffic = floors(result, name)
        print(
            f"{name:12}{cells[0]:>24}{cells[1]:>26}{cells[2]:>22}{operations:14.2f}{traffic:14.2f}"
        )
    mine, theirs = result["inertia"]
    ceilings = result["ceilings"]
    print(
        f"iterations {result['iterations']}, inertia {mine:.6g} against {theirs:.6g} "
        f"({100 * (mine / theirs - 1):+.4f} %), {100 * result['same_assignment']:.2f} % of rows in "
        f"the same cluster\ncompilation {result['compile_seconds']:.1f} s once, peak memory "
        f"{result['peak_above_input_mb']:.0f} MB above the input\nceilings: product "
        f"{ceilings['product'] / 1e9:.0f} GFLOP/s, copy {ceilings['copy'] / 1e9:.1f} GB/s on "
        f"{result['devices']} × {result['device']}"
    )


def main() -> None:
    """Parses the flags, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-seeding", action="store_true")
    parser.add_argument("--out", default=Path(__file__).parent / "results" / "kmeans.json")
    args = parser.parse_args()
    args.out = str(args.out)
    result = measure(args)
    show(result)
    checkpoint.write_json(Path(args.out), result)
    print(f"written to {args.out}")
    if (peak := result["peak_above_input_mb"]) > MOST_MB:
        sys.exit(f"{peak:.0f} MB above the input, at most {MOST_MB} MB")


if __name__ == "__main__":
    main()
