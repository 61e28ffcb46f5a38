"""What a step costs: memory by the compiler, seconds by running it a few times."""

from __future__ import annotations

import os
import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax.clusters import lloyd, seeding
from ucjax.planning.steps import Step

_REPETITIONS, _ENOUGH_SECONDS = 8, 2.0


@dataclass(frozen=True)
class Cost:
    """The cost of one step.

    Attributes:
      memory_bytes: on each device: arguments, results and what lies between them, of all that run
        at the same time.
      seconds: of each of these; None if it was not run.
    """

    memory_bytes: int
    seconds: float | None = None


def compiled(step: Step, *, run: bool) -> Cost:
    """Compiles a step for the devices of its arguments and asks the compiler; runs it if asked to.

    It is not run where its memory is more than there is.
    """
    program = step.program.lower(*step.arguments).compile()
    memory = program.memory_analysis()
    needed = step.at_once * (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes  # donated arguments, counted as results too
    )
    seconds = _time(program, step) if run and needed < available_bytes() else None
    return Cost(needed, seconds)


def available_bytes() -> int:
    """Returns the free memory of the first device, or of the host if that is it."""
    statistics_ = jax.local_devices()[0].memory_stats()
    if statistics_ and "bytes_limit" in statistics_:
        return statistics_["bytes_limit"] - statistics_.get("bytes_in_use", 0)
    meminfo = Path("/proc/meminfo")  # counts what caches would give back, unlike sysconf
    if meminfo.exists() and (match := re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())):
        return int(match[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def kmeans_seconds(count: int, dimensions: int, settings: ConfigDict, mesh: Mesh) -> float:
    """Returns what k-means takes at most, by timing seeds and iterations on random features."""
    rng, k, timed = np.random.default_rng(0), settings.k, 3
    rows = rng.standard_normal((count, dimensions), np.float32)
    placed = lloyd.place(rows, rows.mean(0), mesh)
    limits = {"tolerance": np.float32(-1), "max_iterations": np.int32(timed)}
    seconds = []
    for restart in range(2):  # the first one compiles
        start = time.perf_counter()
        seeds = jax.block_until_ready(seeding.seeds(placed, np.uint32(0), np.uint32(restart), k=k))
        seeded = time.perf_counter()
        jax.block_until_ready(lloyd.iterate(placed, seeds, **limits, mesh=mesh))
        seconds = [seeded - start, (time.perf_counter() - seeded) / timed]
    return settings.n_init * (seconds[0] + settings.max_iterations * seconds[1])


def _time(program: Any, step: Step) -> float:
    """Returns the median of a few runs on made-up arguments, each divided by `at_once`."""
    rng = np.random.default_rng(0)
    made_up = [
        jax.tree.map(lambda x: _example(x, rng), step.arguments) for _ in range(step.at_once)
    ]
    seconds: list[float] = []
    with ThreadPoolExecutor(step.at_once) as pool:
        while not seconds or (len(seconds) < _REPETITIONS and sum(seconds) < _ENOUGH_SECONDS):
            start = time.perf_counter()
            results = list(pool.map(lambda x: jax.block_until_ready(program(*x)), made_up))
            seconds.append((time.perf_counter() - start) / step.at_once)
            if step.carries:
                made_up = [(result[0], *x[1:]) for result, x in zip(results, made_up, strict=True)]
    return statistics.median(seconds)


def _example(leaf: jax.ShapeDtypeStruct, rng: np.random.Generator) -> jax.Array:
    """Makes an argument: values do not matter to the cost, if they stay of order one.

    Weights with mean 1 / fan-in hand on the order of their inputs.
    """
    value: np.ndarray
    if leaf.dtype == np.uint8:
        value = rng.integers(0, 256, leaf.shape, np.uint8)
    elif np.issubdtype(leaf.dtype, np.floating):
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 1
        value = (rng.random(leaf.shape, np.float32) + 0.5) / fan_in
    else:
        value = np.zeros(leaf.shape, leaf.dtype)
    value = np.asarray(value, leaf.dtype)
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda part: value[part])
