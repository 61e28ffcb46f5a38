"""Everything that is measured on a GPU, in one call: ceilings, steps, k-means, feeds, a whole job.

    python -m benchmarks.gpu                         # all
    python -m benchmarks.gpu --only clip-b16 job
    python -m benchmarks.gpu --miniature             # only that everything runs, on a CPU too

Weights are random, as nothing here depends on them. Operations are XLA's count for the step as it
is written (generators, surrogate, optimiser; nothing for what is computed again), and MFU is their
rate over the peak of the device's data sheet for dense bfloat16, or over the measured product if
the device is not known. PyTorch (channels_last, bfloat16 autocast, torch.compile) is timed in turns
with ours if it sees the GPU. The job is what `ucjax.main` does on the devices: features, clusters
and noise of 3,680 synthetic images; its second run finds the compiled programs in the cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks import pets_job, rows, timing
from benchmarks.rows import B16, B32, L14, MINIATURE, Row, Scale
from ucjax.clusters import lloyd
from ucjax.runtime import checkpoint, parallel

_CLIP = partial(rows.clip_noise, p=10, goals=(8.0, 1.0))
STEPS: dict[str, Callable[[Scale, Mesh], Row]] = {
    "generator": partial(rows.generator, p=1),
    "generators": partial(rows.generator, p=10),
    "clip-b32": partial(_CLIP, tower=B32, batch=256),
    "clip-b16": partial(_CLIP, tower=B16, batch=256),
    "clip-l14": partial(_CLIP, tower=L14, batch=64),
    "rn50": partial(rows.resnet_noise, p=10, batch=256, goals=(8.0, 1.0)),
    "rn18": partial(rows.victim, side=224, batch=512),
}
# Rows, features and clusters.
KMEANS = {"kmeans-100k": (100_000, 512, 100), "kmeans-1m": (1_000_000, 256, 1000)}
_ITERATIONS = 20
# Dense bf16 operations a second, by NVIDIA's data sheets.
PEAK_FLOPS = {"h200": 989e12, "h100": 989e12, "a100": 312e12}


def step(name: str, scale: Scale, mesh: Mesh, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Times one of `STEPS`."""
    row = STEPS[name](scale, mesh)
    yield rows.measure(name, row, repeats=args.repeats, calls=args.calls)


def kmeans(
    name: str, scale: Scale, mesh: Mesh, args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Times Lloyd's iterations on rows that are on the devices."""
    n, d, k = KMEANS[name]
    n, d, k = min(n, 32 * scale.most), min(d, scale.side), min(k, scale.most)
    x = np.random.default_rng(0).standard_normal((n, d), np.float32)
    placed = lloyd.place(x, x.mean(axis=0), mesh)
    centers = parallel.replicate(x[:k], mesh)
    limits = {"tolerance": np.float32(-1), "max_iterations": np.int32(_ITERATIONS)}

    def run() -> Any:
        return lloyd.iterate(placed, centers, **limits, mesh=mesh)

    compile_seconds = timing.timed(run)[0].wall
    passes = _ITERATIONS + 1  # the last one labels the rows
    yield {
        "name": name,
        "images": n * passes,
        "flops": passes * 2 * n * d * k / mesh.size,
        "traffic": passes * x.nbytes // mesh.size,
        "first_seconds": {"ucjax": compile_seconds},
        "times": timing.in_turns({"ucjax": run}, args.repeats),
        "goals": {},
        "runs_for_one": {},
    }


def job(name: str, scale: Scale, mesh: Mesh, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Runs the whole job twice, then with streamed images; times its step alone beside it."""
    yield {"name": name, **pets_job.measure(scale, mesh, epochs=args.epochs)}


SECTIONS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    **dict.fromkeys(STEPS, step),
    **dict.fromkeys(KMEANS, kmeans),
    "job": job,
}


def show(row: dict[str, Any], ceilings: dict[str, timing.Ceilings]) -> None:
    """Prints a row."""
    if "stages" in row:
        pets_job.show(row)
        return
    seconds = [taken.wall for taken in row["times"]["ucjax"]]
    median = statistics.median(seconds)
    kind = jax.devices()[0].device_kind.lower()
    sheets = [peak for name, peak in PEAK_FLOPS.items() if name in kind]
    peak = (sheets or [ceilings["bfloat16"].product])[0]
    print(
        f"{row['name']:12}ucjax {timing.spelled([1e3 * s for s in seconds])} ms, "
        f"{row['images'] / median:.0f} images or rows/s, {row['flops'] / median / 1e12:.1f} "
        f"TFLOP/s, MFU {100 * row['flops'] / median / peak:.1f} %; byte floor "
        f"{1e3 * row['traffic'] / ceilings['float32'].copy:.2f} ms; first call "
        f"{row['first_seconds']['ucjax']:.0f} s"
    )
    for side in row["goals"]:
        theirs, ratios = rows.against(row, side)
        cells = f"{timing.spelled([1e3 * s for s in theirs])} ms: ratio {timing.spelled(ratios)}"
        print(f"{'':12}{side} {cells}", flush=True)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measures what is asked for, printing each row when it is there."""
    scale, mesh = MINIATURE if args.miniature else Scale(), parallel.make_mesh()
    side = 256 if args.miniature else 8192
    ceilings = {
        dtype.__name__: timing.ceilings(10, dtype=dtype, side=side)
        for dtype in (jnp.bfloat16, jnp.float32)
    }
    print(f"{mesh.size} × {jax.devices()[0].device_kind}, jax {jax.__version__}")
    for dtype, (product, copy) in ceilings.items():
        print(f"{dtype}: product {product / 1e12:.2f} TFLOP/s, copy {copy / 1e9:.0f} GB/s")
    if rows.usable_peers():
        rows.peers.use_all_cores()
    else:
        print("PyTorch does not see these devices: only our side is timed")
    found = []
    for name in args.only:
        for row in SECTIONS[name](name, scale, mesh, args):
            show(row, ceilings)
            found.append(row)
        jax.clear_caches()
    return {
        **timing.machine("torch", "transformers"),
        "ceilings": {dtype: each._asdict() for dtype, each in ceilings.items()},
        "rows": found,
    }


def main(arguments: list[str] | None = None) -> None:
    """Parses the flags, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(SECTIONS)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="ROW")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--calls", type=int, default=10, help="of a step in one repeat")
    parser.add_argument("--epochs", type=int, default=50, help="of the job, at least 2")
    parser.add_argument("--miniature", action="store_true", help="tiny: only that it runs")
    default = Path(__file__).parent / "results" / "gpu.json"
    parser.add_argument("--out", type=Path, default=default)
    args = parser.parse_args(arguments)
    # PyTorch needs memory on the same device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["UCJAX_CACHE"] = cache  # so that first calls compile, and second ones do not
        parallel.initialize(coordinator="", processes=1, process_id=0, detect=False)
        result = measure(args)
    checkpoint.write_json(args.out, result)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
