"""How a step of noise training grows, and what its devices tell each other.

    python -m benchmarks.scaling                # 1, 2, 4 and 8 fake CPU devices; mostly compilation
    python -m benchmarks.scaling --miniature    # 1 and 2 devices in seconds, times mean nothing

A child process per number of devices compiles the real step, with small generators and a random
surrogate, and reads from the optimised program what enters its collectives: noise and
gradients with respect to it, never parameters. The noise after a few steps is compared with that
of one device. Times on one device are taken in turns and fitted with a power of images, clusters
and pixels; fake devices share the cores, so that their exponent is the price of being many.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ucjax.protections.uc import perturbation
from ucjax.protections.uc import training as noise
from ucjax.protections.uc.objective import Batch, make_objective, targets
from ucjax.protections.uc.perturbation import NoiseSpec
from ucjax.runtime import checkpoint, parallel

ROOT = Path(__file__).parents[1]
COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
FEATURES = 64
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?(%[\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\(([^)]*)\)")


class Case(NamedTuple):
    """What is trained."""

    images: int
    clusters: int
    size: int  # pixels a side


def array_bytes(shape: str) -> int:
    """Bytes of the arrays in an HLO type such as `(f32[2,3]{1,0}, pred[])`."""
    total = 0
    for kind, dimensions in re.findall(r"([a-z]+\d*)\w*\[([\d,]*)\]", shape):
        width = int(re.sub(r"\D", "", kind) or 8) // 8  # pred takes a byte
        total += width * math.prod(map(int, filter(None, dimensions.split(","))))
    return total


def collective_bytes(hlo: str) -> dict[str, int]:
    """Bytes that enter each kind of collective on one device, in a pass over the program `hlo`."""
    shapes: dict[str, str] = {}
    entering: list[tuple[str, str]] = []
    for line in hlo.splitlines():
        if match := _INSTRUCTION.match(line):
            name, shape, operation, operands = match.groups()
            shapes[name] = shape
            if (kind := operation.removesuffix("-start")) in COLLECTIVES:
                entering += [(kind, operand) for operand in re.findall(r"%[\w.-]+", operands)]
    found: dict[str, int] = {}
    for kind, operand in entering:
        found[kind] = found.get(kind, 0) + array_bytes(shapes[operand])
    return found


def exponent(x: list[float], y: list[float]) -> float:
    """The power of `x` that `y` grows with, by least squares of logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def embed(params: Any, images: jax.Array) -> jax.Array:
    """A random surrogate: patches, then two layers on their mean `[b, s, s, 3]` -> `[b, d]`."""
    patches = lax.conv_general_dilated(
        images, params["patches"], (8, 8), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(jnp.tanh(patches).mean((1, 2)) @ params["hidden"]) @ params["out"]


def make_spec(args: argparse.Namespace) -> NoiseSpec:
    """The settings of the paper, but for the size of the generators."""
    return NoiseSpec(
        scope="cluster", distance="kl", bound="tanh", target="offset",
        parametrization=args.parametrization, norm="linf",
        epsilon_255=16, grain=1, epochs=1, batch_size=args.batch, learning_rate=1e-4,
        final_learning_rate=1e-6, weight_decay=5e-4, width=args.width, blocks=args.blocks,
        flip=True, order="shuffled", seed=0,
    )  # fmt: skip


class Program(NamedTuple):
    """A compiled step and what it runs on."""

    step: Callable[..., Any]
    state: perturbation.NoiseState
    fixed: Any
    batch: Batch
    render: Callable[[perturbation.NoiseState], jax.Array]


def make_program(case: Case, args: argparse.Namespace) -> Program:
    """Compiles the step for all devices of this process."""
    mesh, spec, rng = parallel.make_mesh(), make_spec(args), np.random.default_rng(0)
    optimizer = perturbation.make_optimizer(spec, 100)
    state = perturbation.init(spec, optimizer, p=case.clusters, size=case.size, mesh=mesh)
    shapes = {"patches": (8, 8, 3, 256), "hidden": (256, 1024), "out": (1024, FEATURES)}
    params = {
        name: rng.standard_normal(shape, np.float32) / np.float32(math.prod(shape[:-1]) ** 0.5)
        for name, shape in shapes.items()
    }
    centers = rng.standard_normal((case.clusters, FEATURES), np.float32)
    fixed = (params, centers, targets(centers, spec.target, spec.seed))
    b = args.batch
    pixels = rng.integers(0, 256, (b, case.size, case.size, 3), dtype=np.uint8)
    share = np.full(b, 1 / b, np.float32)
    cluster = rng.integers(0, case.clusters, b).astype(np.int32)
    batch = Batch(pixels, cluster, share * case.clusters, share)
    fixed, batch = parallel.replicate(fixed, mesh), parallel.shard(batch, mesh)
    objective = make_objective(embed, distance=spec.distance, scope=spec.scope)
    step = noise.make_step(spec, objective, optimizer, mesh=mesh, state=state)
    number = parallel.replicate(np.int32(0), mesh)
    compiled = step.lower(state, fixed, batch, number).compile()
    render = parallel.pmap(
        lambda state: perturbation.make_render(spec)(state.params, state.inputs), mesh=mesh,
        in_specs=(perturbation.state_specs(state),), out_specs=parallel.SHARDED,
    )  # fmt: skip
    return Program(compiled, state, fixed, batch, render)


def run(program: Program, steps: int) -> tuple[Program, float]:
    """Takes `steps` steps; returns the program with its new state, and seconds."""
    mesh, state = parallel.make_mesh(), program.state
    start = time.perf_counter()
    for n in range(steps):
        number = parallel.replicate(np.int32(n), mesh)
        state, record = program.step(state, program.fixed, program.batch, number)
    jax.block_until_ready(record)
    return program._replace(state=state), time.perf_counter() - start


def measure_child(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures `args.cases` on the devices of this process; writes the noise of the first."""
    cases = [Case(*case) for case in json.loads(args.cases)]
    programs = [make_program(case, args) for case in cases]
    rows = []
    for i, (case, program) in enumerate(zip(cases, programs, strict=True)):
        generators, surrogate = program.state.params, program.fixed[0]
        rows.append(
            case._asdict()
            | {
                "devices": jax.device_count(),
                "bytes": collective_bytes(program.step.as_text()),
                "parameter_bytes": sum(x.nbytes for x in jax.tree.leaves((generators, surrogate))),
                "seconds": [],
            }
        )
        if jax.device_count() == 1:
            rows[i]["bytes"] = {}  # its collectives are copies
        programs[i], _ = run(program, args.steps)
        if i == 0:
            np.save(args.noise, parallel.to_host(program.render(programs[0].state)))
    for _ in range(args.repeats):
        for i, row in enumerate(rows):
            programs[i], seconds = run(programs[i], max(1, row["images"] // args.batch))
            row["seconds"].append(seconds)
    return rows


def start_child(
    devices: int, cases: list[Case], args: argparse.Namespace, scratch: Path
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Runs `measure_child` in a process with that many devices: its rows and the noise."""
    file = scratch / f"{devices}.npy"
    names = ("parametrization", "batch", "width", "blocks", "steps", "repeats")
    passed = {name: getattr(args, name) for name in names}
    flags = [f"--{name}={value}" for name, value in passed.items()]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scaling", f"--cases={json.dumps(cases)}", *flags,
         f"--noise={file}"],
        cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return json.loads(done.stdout), np.load(file)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Runs a child a number of devices; the one of one device also measures the growth."""
    base = Case(*args.base)
    grown = [
        base._replace(**{field: getattr(base, field) * factor})
        for field in Case._fields
        for factor in args.factors
    ]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        alone = None
        for devices in args.devices:
            cases = [base, *(grown if devices == 1 else [])]
            found, images = start_child(devices, cases, args, Path(scratch))
            images = images[: base.clusters]
            alone = images if alone is None else alone
            found[0]["difference"] = float(np.abs(images - alone).max())
            rows += found
    return {"rows": rows, "exponents": fit(rows, base)}


def fit(rows: list[dict[str, Any]], base: Case) -> dict[str, float]:
    """Exponents of time in each field of `Case` and in devices, the others as in `base`."""
    origin = base._asdict() | {"devices": 1}
    found = {}
    for field in origin:
        others = {name: value for name, value in origin.items() if name != field}
        along = [row for row in rows if all(row[name] == others[name] for name in others)]
        if len(along) > 1:
            times = [statistics.median(row["seconds"]) for row in along]
            found[field] = exponent([row[field] for row in along], times)
    return found


def show(result: dict[str, Any]) -> None:
    """Prints the table."""
    titles = (*COLLECTIVES[:3], "others", "of parameters")
    print(
        f"{'devices':>7}{'images':>8}{'clusters':>9}{'px':>5}{'epoch s (spread)':>24}"
        + "".join(f"{title:>16}" for title in titles)
        + f"{'|difference|':>14}"
    )
    for row in result["rows"]:
        taken = row["seconds"]
        spread = f"{statistics.median(taken):.3f} ({min(taken):.3f}-{max(taken):.3f})"
        sizes = [row["bytes"].get(kind, 0) for kind in COLLECTIVES]
        cells = "".join(f"{x:16,}" for x in (*sizes[:3], sum(sizes[3:]), row["parameter_bytes"]))
        difference = f"{row['difference']:14.1e}" if "difference" in row else f"{'':14}"
        print(
            f"{row['devices']:7}{row['images']:8}{row['clusters']:9}{row['size']:5}{spread:>24}"
            f"{cells}{difference}"
        )
    print("bytes enter a collective on one device in one step")
    for field, power in result["exponents"].items():
        print(f"time of an epoch ~ {field}^{power:.2f}")


def main() -> None:
    """Parses the flags, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--base", type=int, nargs=3, default=[64, 8, 32], metavar=Case._fields)
    parser.add_argument("--factors", type=int, nargs="+", default=[2, 4], help="of growth")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--parametrization", choices=("generator", "direct"), default="generator")
    parser.add_argument("--width", type=int, default=16, help="of the generators")
    parser.add_argument("--blocks", type=int, default=2, help="of the generators")
    parser.add_argument("--steps", type=int, default=5, help="before noise is compared")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--miniature", action="store_true", help="to see that it runs")
    parser.add_argument("--cases", help=argparse.SUPPRESS)
    parser.add_argument("--noise", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/scaling.json")
    args = parser.parse_args()
    if args.cases:
        print(json.dumps(measure_child(args)))
        return
    if args.miniature:
        args.devices, args.base, args.factors = [1, 2], [8, 3, 8], [2]
        args.parametrization, args.batch, args.steps, args.repeats = "direct", 4, 2, 1
    result = measure(args)
    show(result)
    settings = {k: v for k, v in vars(args).items() if k not in ("cases", "noise", "out")}
    checkpoint.write_json(args.out, {"settings": settings, "jax": jax.__version__} | result)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
