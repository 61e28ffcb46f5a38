"""Machines that are not here: what their chips can do, and compiling for TPUs ahead of time."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ucjax.errors import UserError
from ucjax.planning.cost import Cost
from ucjax.planning.steps import Images

# What a well-written program reaches of a chip's peak, assumed; ours has not been timed on them.
ASSUMED_UTILISATION = 0.4


class Chip(NamedTuple):
    """A public specification (cloud.google.com/tpu/docs, nvidia.com's data sheets)."""

    peak_flops: float  # a second, dense bf16
    memory_gb: int
    dimensions: int  # of the interconnect's torus; 0: not a TPU
    cores: int = 1  # counted by the names of slices: v4-8 has four chips


CHIPS = {
    "v4": Chip(275e12, 32, 3, cores=2),
    "v5e": Chip(197e12, 16, 2),
    "v5p": Chip(459e12, 95, 3, cores=2),
    "v6e": Chip(918e12, 32, 2),
    "h200": Chip(989e12, 141, 0),
    "h100": Chip(989e12, 80, 0),  # SXM
    "a100": Chip(312e12, 80, 0),
}


class Target(NamedTuple):
    """So many chips of a kind; `topology` is what the TPU compiler calls them, "" for others."""

    name: str
    chip: Chip
    chips: int
    topology: str


@dataclass(frozen=True)
class TargetRow:
    """A step on a target: memory is the compiler's or None, seconds are estimated."""

    step: str
    count: int
    flops: float  # of a step, on each chip
    memory_bytes: int | None
    seconds: float  # of all steps


def parse(text: str) -> Target:
    """Reads a name such as "v5e-16" or "h100-8", as Google Cloud names slices.

    Raises:
      UserError: an unknown chip or an impossible number of them.
    """
    match = re.fullmatch(r"(\w+)-(\d+)", text.lower())
    if not match or match[1] not in CHIPS:
        raise UserError(
            f"--target {text!r}: give a chip and a number, such as v5e-16; chips are "
            f"{', '.join(CHIPS)}"
        )
    chip, count = CHIPS[match[1]], int(match[2])
    least = 4 * chip.cores if chip.dimensions == 3 else 1
    if count < least or (chip.dimensions and count & (count - 1)):
        raise UserError(
            f"--target {text!r}: {match[1]} comes in powers of two from {least}"
            if chip.dimensions
            else f"--target {text!r}: at least 1"
        )
    count //= chip.cores
    topology = f"{match[1]}:{_shape(count, chip.dimensions)}" if chip.dimensions else ""
    return Target(text.lower(), chip, count, topology)


def _shape(count: int, dimensions: int) -> str:
    """Returns the sides of a torus as equal as can be: 2x4, 2x2x1, 4x4x8."""
    exponent, sides = count.bit_length() - 1, []
    for left in range(dimensions, 0, -1):
        sides.append(2 ** (exponent // left))
        exponent -= exponent // left
    return "x".join(str(side) for side in sorted(sides, key=lambda side: (side == 1, side)))


def rows(
    target: Target,
    config: ConfigDict,
    images: Images,
    lowered: dict[str, float],
    times: dict[str, int],
    say: Callable[[str], None],
) -> tuple[TargetRow, ...]:
    """Returns what the steps take on a target, compiled for it if that is possible here.

    Args:
      target: the machine.
      config: the experiment.
      images: how many there are.
      lowered: FLOPs of each step on all devices together, as XLA counts them here.
      times: how often each step runs.
      say: is told what is being done.

    Raises:
      UserError: as `compile_for`.
    """
    compiled: dict[str, Cost] = {}
    if can_compile(target):
        say(f"compiling ahead of time: {target.name} (a minute or more)")
        compiled = compile_for(target, config, images)
    found = []
    for name in times:
        each = compiled[name].flops if compiled else lowered[name] / target.chips
        memory = compiled[name].memory_bytes if compiled else None
        seconds = times[name] * each / (target.chip.peak_flops * ASSUMED_UTILISATION)
        found.append(TargetRow(name, times[name], each, memory, seconds))
    return tuple(found)


def can_compile(target: Target) -> bool:
    """Whether the TPU compiler is installed (the extra "tpu") and knows the target."""
    return bool(target.topology) and importlib.util.find_spec("libtpu") is not None


def compile_for(target: Target, config: ConfigDict, images: Images) -> dict[str, Cost]:
    """Compiles the steps of a run for TPUs that are not here; returns costs without seconds.

    In a child process: a process can compile for one topology only.

    Raises:
      UserError: the config does not fit the target, or the compiler fails.
    """
    request = {"topology": target.topology, "config": config.to_dict(), "images": images}
    # There is no cloud to ask about this machine, and this process may have libtpu's lock.
    tpu = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | tpu
    with _large_stack():
        done = subprocess.run(
            [sys.executable, "-m", "ucjax.planning.ahead"],
            input=json.dumps(request), env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    answer = _last_json(done.stdout)
    if "costs" in answer:
        return {name: Cost(**cost) for name, cost in answer["costs"].items()}
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    reason = answer.get("error") or (lines[-1] if lines else f"exit code {done.returncode}")
    raise UserError(f"cannot compile for {target.name} ({target.topology}): {reason}")


def _last_json(output: str) -> dict[str, Any]:
    # libtpu writes to the standard output, too.
    lines = [line for line in output.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}


@contextlib.contextmanager
def _large_stack() -> Iterator[None]:
    """Gives processes started inside all the stack they may have: the compiler recurses deeply."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
