"""What training two victims at the same time on one CPU device gains.

    python -m benchmarks.together

Both ways train the same two victims of the quickstart; a full-width one is there for comparison.
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
from ucjax.victims.step import compile_victim

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
        ways = {"in turn": lambda v=victims: _in_turn(v), "together": lambda v=victims: _both(v)}
        for way in ways.values():
            timing.timed(way)  # compiles
        times = timing.in_turns(ways, arguments.repeats)
        found = timing.ratios(times["in turn"], times["together"])
        each = {name: [t.wall / 2 / case.steps for t in taken] for name, taken in times.items()}
        spelled = ", ".join(
            f"{name} {timing.spelled([1e3 * s for s in seconds], 1)} ms a step"
            for name, seconds in each.items()
        )
        print(f"width {case.width}: {spelled}; ratio {timing.spelled(found)}", flush=True)
        rows.append({**case._asdict(), "seconds_a_step": each, "ratios": found})
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    values = {"machine": timing.machine(), "rows": rows}
    arguments.out.write_text(json.dumps(values, indent=2) + "\n")


def _victim(case: Case, seed: int, mesh: Mesh) -> Callable[[], Any]:
    """Returns what trains a new victim for `case.steps` steps."""
    given = quickstart.get_config().victim
    spec = VictimSpec(model="resnet18", recipes=(), **{**given, "width": case.width})
    programs = compile_victim(spec, _CLASSES, case.steps, mesh)
    rng, placed = np.random.default_rng(seed), parallel.replicate(np.uint32(seed), mesh)
    pixels = rng.integers(0, 256, (spec.batch_size, spec.crop, spec.crop, 3), np.uint8)
    labels = rng.integers(0, _CLASSES, spec.batch_size).astype(np.int32)
    batch = parallel.shard((pixels, labels), mesh)

    def train() -> Any:
        state = programs.init(placed)
        for _ in range(case.steps):
            state, values = programs.step(state, *batch, placed)
        return jax.block_until_ready(values)

    return train


def _in_turn(victims: list[Callable[[], Any]]) -> Any:
    return [train() for train in victims]


def _both(victims: list[Callable[[], Any]]) -> Any:
    with ThreadPoolExecutor(len(victims)) as pool:
        return list(pool.map(lambda train: train(), victims))


if __name__ == "__main__":
    main()
