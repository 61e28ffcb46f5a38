"""What training two victims at the same time on one device gains.

    python -m benchmarks.together

All ways train the same two victims of the quickstart: in turn, together (in two threads), stacked
(as one program); full-width ones are there for comparison.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks import timing
from configs import quickstart
from ucjax.runtime import parallel
from ucjax.victims.contract import VictimSpec
from ucjax.victims.step import compile_stack, compile_victim

_CLASSES = 10


class Case(NamedTuple):
    """A victim's width, and the steps a timed call takes."""

    width: int
    steps: int


_CASES = (Case(16, 60), Case(64, 8))


def main() -> None:
    """Prints a line a width and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/together.json"))
    arguments = parser.parse_args()
    mesh, rows = parallel.make_mesh(jax.devices()[:1]), []
    for case in _CASES:
        victims = [_victim(case, seed, mesh) for seed in range(2)]
        ways = {
            "in turn": lambda v=victims: _in_turn(v),
            "together": lambda v=victims: _both(v),
            "stacked": _stack(case, mesh),
        }
        for way in ways.values():
            timing.timed(way)  # compiles
        times = timing.in_turns(ways, arguments.repeats)
        found = {
            way: timing.ratios(times["in turn"], times[way]) for way in ("together", "stacked")
        }
        each = {name: [t.wall / 2 / case.steps for t in taken] for name, taken in times.items()}
        spelled = ", ".join(
            f"{name} {timing.spelled([1e3 * s for s in seconds], 1)} ms a step"
            for name, seconds in each.items()
        )
        gains = ", ".join(f"{way} {timing.spelled(ratios)}" for way, ratios in found.items())
        print(f"width {case.width}: {spelled}; times as fast: {gains}", flush=True)
        rows.append({**case._asdict(), "seconds_a_step": each, "ratios": found})
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    values = {"machine": timing.machine(), "rows": rows}
    arguments.out.write_text(json.dumps(values, indent=2) + "\n")


def _spec(case: Case) -> VictimSpec:
    given = {**quickstart.get_config().victim, "width": case.width}
    return VictimSpec(model="resnet18", recipes=(), **given)


def _batch(spec: VictimSpec, seed: int, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (spec.batch_size, spec.crop, spec.crop, 3), np.uint8)
    labels = rng.integers(0, _CLASSES, spec.batch_size).astype(np.int32)
    return parallel.shard((pixels, labels), mesh)


def _victim(case: Case, seed: int, mesh: Mesh) -> Callable[[], Any]:
    """Returns what trains a new victim for `case.steps` steps."""
    spec = _spec(case)
    programs = compile_victim(spec, _CLASSES, case.steps, mesh)
    placed, batch = parallel.replicate(np.uint32(seed), mesh), _batch(spec, seed, mesh)

    def train() -> Any:
        state = programs.init(placed)
        for _ in range(case.steps):
            state, values = programs.step(state, *batch, placed)
        return jax.block_until_ready(values)

    return train


def _stack(case: Case, mesh: Mesh) -> Callable[[], Any]:
    """Returns what trains both victims as one program."""
    spec = _spec(case)
    init = compile_victim(spec, _CLASSES, case.steps, mesh).init
    step = compile_stack(spec, _CLASSES, case.steps, mesh, 2)
    placed = tuple(parallel.replicate(np.uint32(seed), mesh) for seed in range(2))
    images, labels = zip(*(_batch(spec, seed, mesh) for seed in range(2)), strict=True)

    def train() -> Any:
        states = tuple(map(init, placed))
        for _ in range(case.steps):
            states, values = step(states, images, labels, placed)
        return jax.block_until_ready(values)

    return train


def _in_turn(victims: list[Callable[[], Any]]) -> Any:
    return [train() for train in victims]


def _both(victims: list[Callable[[], Any]]) -> Any:
    with ThreadPoolExecutor(len(victims)) as pool:
        return list(pool.map(lambda train: train(), victims))


if __name__ == "__main__":
    main()
