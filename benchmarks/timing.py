"""What every benchmark does: time sides in turns, measure the machine's ceilings, spell results."""

from __future__ import annotations

import importlib.metadata
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Run = Callable[[], Any]


class Taken(NamedTuple):
    """Seconds of one call: by the clock, and of all threads of this process."""

    wall: float
    cpu: float


class Ceilings(NamedTuple):
    """What the first device reaches at best: FLOP/s of a dense product, B/s read and written."""

    product: float
    copy: float


def timed(run: Run) -> tuple[Taken, Any]:
    """Times one call, to the end of what it started on a device; returns its result too."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(run())
    return Taken(time.perf_counter() - wall, time.process_time() - cpu), result


def in_turns(
    runs: Mapping[str, Run], repeats: int, *, warm: bool = False
) -> dict[str, list[Taken]]:
    """Times each of `runs` `repeats` times, one after the other, so that all see the same machine.

    With `warm` every timed call follows one that is not: for runs so short that it matters that
    the side before has emptied the caches.
    """
    times: dict[str, list[Taken]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            if warm:
                timed(run)
            times[name].append(timed(run)[0])
    return times


def per_second(run: Run, seconds: float) -> float:
    """Returns calls a second over at least so many seconds, after a first one that compiles."""
    timed(run)
    taken = [timed(run)[0].wall]
    while sum(taken) < seconds:
        taken.append(timed(run)[0].wall)
    return len(taken) / sum(taken)


def repeated(run: Run, calls: int) -> Run:
    """Makes one call of several; the result is the last one's."""

    def all_of_them() -> Any:
        for _ in range(calls - 1):
            run()
        return run()

    return all_of_them


def ceilings(repeats: int, *, dtype: Any = jnp.float32, side: int = 3000) -> Ceilings:
    """Takes the best of `repeats` dense products of `side` squared and copies of 256 MB."""
    a, x = jnp.ones((side, side), dtype), jnp.ones(2**28 // jnp.dtype(dtype).itemsize, dtype)
    product, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    jax.block_until_ready((product(a, a), copy(x)))
    product_time = min(timed(lambda: product(a, a))[0].wall for _ in range(repeats))
    copy_time = min(timed(lambda: copy(x))[0].wall for _ in range(repeats))
    return Ceilings(2 * side**3 / product_time, 2 * x.nbytes / copy_time)


def spelled(values: Sequence[float], digits: int = 2) -> str:
    """Returns "median (least-greatest)"."""
    numbers = (statistics.median(values), min(values), max(values))
    return "{:.{d}f} ({:.{d}f}-{:.{d}f})".format(*numbers, d=digits)


def ratios(theirs: Sequence[Taken], ours: Sequence[Taken]) -> list[float]:
    """Returns how many times ours theirs took, turn by turn."""
    return [b.wall / a.wall for a, b in zip(ours, theirs, strict=True)]


def peak_mb() -> float:
    """Returns the largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def machine(*packages: str) -> dict[str, Any]:
    """Returns what a number depends on: devices, cores and the versions of jax and `packages`."""

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {package: version(package) for package in ("jax", "jaxlib", *packages)},
    }
