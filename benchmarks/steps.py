"""Steps of noise and victims on a CPU against PyTorch: published, frozen and plain training.

    python -m benchmarks.steps                             # all, about 30 minutes on 2 cores
    python -m benchmarks.steps --only rn50 --repeats 5
    python -m benchmarks.steps --miniature                 # only that everything runs

Both sides take turns in one run, after a call that compiles. A ratio is PyTorch's time over ours
for the same work; "published" counts the passes that its scheme needs for the same epoch, p for
each of ours. The floors are operations at the rate of a dense product, and the bytes of arguments
and results at the rate of a copy. PyTorch is optional (`pip install torch`).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from benchmarks import rows, timing
from benchmarks.rows import MINIATURE, Row, Scale
from ucjax.runtime import checkpoint, parallel

_CLIP = partial(rows.clip_noise, tower=rows.B32, p=10, goals=(8.0, 1.0))
ROWS: dict[str, Callable[[Scale, Mesh], Row]] = {
    "generator": partial(rows.generator, p=1),
    "rn50": partial(rows.resnet_noise, p=1, batch=16, goals=(1.5, 1.2)),
    "clip": partial(_CLIP, batch=32),
    "clip-256": partial(_CLIP, batch=256),  # the paper's batch
    "rn18-64": partial(rows.victim, side=64, batch=64),
    "rn18-224": partial(rows.victim, side=224, batch=32),
    "lite0-64": partial(rows.lite0, side=64, batch=64),
    "lite0-224": partial(rows.lite0, side=224, batch=32),
}


def show(row: dict[str, Any], ceilings: timing.Ceilings) -> None:
    """Prints a row: our time, its floors, and a line for each other side."""
    wall = [taken.wall for taken in row["times"]["ucjax"]]
    rate = row["images"] / statistics.median(wall)
    floors = row["flops"] / ceilings.product, row["traffic"] / ceilings.copy
    print(
        f"{row['name']:12}ucjax {timing.spelled(wall)} s, {rate:.1f} images/s; "
        f"first call {row['first_seconds']['ucjax']:.0f} s; floors: operations "
        f"{floors[0]:.2f} s, bytes {floors[1]:.2f} s; peak so far {row['peak_mb']:.0f} MB"
    )
    for side, goal in row["goals"].items():
        theirs, ratios = rows.against(row, side)
        cells = f"{timing.spelled(theirs)} s: ratio {timing.spelled(ratios)}"
        print(f"{'':12}{side} {cells}, goal {goal}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Parses the flags, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--miniature", action="store_true", help="tiny: only that it runs")
    default = Path(__file__).parent / "results" / "steps.json"
    parser.add_argument("--out", type=Path, default=default)
    args = parser.parse_args(arguments)
    scale, mesh = MINIATURE if args.miniature else Scale(), parallel.make_mesh()
    if rows.usable_peers():
        rows.peers.use_all_cores()
    else:
        print("PyTorch is not installed: only our side is timed (pip install torch)")
    ceilings = timing.ceilings(max(args.repeats, 5), side=300 if args.miniature else 3000)
    print(f"product {ceilings.product / 1e9:.0f} GFLOP/s, copy {ceilings.copy / 1e9:.1f} GB/s")
    found = []
    for name in args.only:
        found.append(rows.measure(name, ROWS[name](scale, mesh), repeats=args.repeats))
        show(found[-1], ceilings)
        jax.clear_caches()
    result = {"scale": asdict(scale), **timing.machine("torch", "transformers")}
    checkpoint.write_json(args.out, result | {"ceilings": ceilings._asdict(), "rows": found})
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
