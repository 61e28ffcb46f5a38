"""What a run will cost before it starts: its stages, their steps, and what each step takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax import surrogates
from ucjax.comparison import run as comparison
from ucjax.data.images import Listing
from ucjax.errors import UserError
from ucjax.planning import cost, files, steps
from ucjax.planning.cost import Cost
from ucjax.planning.files import FileCost
from ucjax.planning.schedule import Images, Stage, count, noisy, schedule, surrogate_of
from ucjax.protections import table
from ucjax.runtime import parallel
from ucjax.surrogates import Surrogate

_SAMPLE_FILES = 12


@dataclass(frozen=True)
class Row:
    """A stage and its cost; None where it is not known."""

    stage: Stage
    memory_bytes: int | None
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """What is known of a run before it starts; `problems` are what will stop it."""

    images: Images
    machine: str
    free_bytes: int
    rows: tuple[Row, ...]
    files: FileCost | None
    written_files: int
    problems: tuple[str, ...]


def make(
    config: ConfigDict,
    *,
    assumed: Images | None = None,
    listed: Listing | None = None,
    run: bool = True,
    mesh: Mesh | None = None,
    say: Callable[[str], None] = print,
) -> Plan:
    """Compiles the steps of a run, runs each a few times, and puts their costs together.

    Args:
      config: the experiment; with no victims it ends at the files.
      assumed: the number of images, instead of the known one.
      listed: the images, instead of those the config names.
      run: False compiles only: no times, no sample of files.
      mesh: the devices of this machine (None: all).
      say: is told what is being done.

    Raises:
      UserError: impossible settings, or no data to count.
    """
    mesh = mesh or parallel.make_mesh()
    asked = comparison.check(config, mesh)
    if listed is None and assumed is None:
        listed = files.listing(config)
    images = assumed or count(config, listed)
    stages = schedule(config, asked, images, mesh)
    loaded = _surrogates(asked, config, say)
    built = steps.build(config, asked, loaded, images, mesh)
    costs = {}
    for name in dict.fromkeys(stage.cost for stage in stages if stage.cost in built):
        say(f"compiling{' and timing' if run else ''}: {name}")
        costs[name] = cost.compiled(built[name], run=run)
    if run:
        costs |= _kmeans(asked, config, loaded, images, mesh, say)
    sample = None
    if run and listed is not None:
        say("timing: files")
        sample = files.measure(config, listed, files=_SAMPLE_FILES)
    return Plan(
        images=images,
        machine=f"{mesh.size} × {mesh.devices.flat[0].device_kind}",
        free_bytes=cost.available_bytes(),
        rows=tuple(_row(stage, costs, sample) for stage in stages),
        files=sample,
        written_files=sum(stage.count for stage in stages if stage.cost == "write"),
        problems=_problems(costs),
    )


def _surrogates(
    asked: comparison.Plan, config: ConfigDict, say: Callable[[str], None]
) -> dict[str, Surrogate]:
    """Loads what the rows need; of one without weights here no step can be timed."""
    found: dict[str, Surrogate] = {}
    missing: set[str] = set()
    for row, own, _ in noisy(asked, config):
        name = surrogate_of(own)
        if "surrogate" not in table.find(row).shared or name in found or name in missing:
            continue
        spec, size = own.surrogate, own.data.crop
        try:
            found[name] = surrogates.load(
                spec.name, path=spec.path, image_size=size, precision=spec.precision
            )
        except UserError as error:
            missing.add(name)
            say(f"not timed: the steps of {name}, which cannot be loaded ({error})")
    return found


def _kmeans(
    asked: comparison.Plan,
    config: ConfigDict,
    loaded: dict[str, Surrogate],
    images: Images,
    mesh: Mesh,
    say: Callable[[str], None],
) -> dict[str, Cost]:
    """Returns what an iteration of k-means takes, its seeds included."""
    costs: dict[str, Cost] = {}
    for _, own, _ in noisy(asked, config):
        name = surrogate_of(own)
        key = f"k-means {name} {own.clusters.k}"
        if name in loaded and key not in costs:
            say(f"timing: {key}")
            d, spec = steps.dimensions(loaded[name]), own.clusters
            seconds = cost.kmeans_seconds(images.train, d, spec, mesh)
            costs[key] = Cost(0, seconds / (spec.n_init * spec.max_iterations))
    return costs


def _row(stage: Stage, costs: dict[str, Cost], sample: FileCost | None) -> Row:
    if stage.unit == "images":
        each = getattr(sample, f"{stage.cost}_seconds", None)
        return Row(stage, None, None if each is None else each * stage.count)
    step = costs.get(stage.cost)
    if step is None:
        return Row(stage, None, None)
    seconds = None if step.seconds is None else step.seconds * stage.count
    return Row(stage, step.memory_bytes or None, seconds)


def _problems(costs: dict[str, Cost]) -> tuple[str, ...]:
    free = cost.available_bytes()
    return tuple(
        f"a step of {name} needs {step.memory_bytes / 1e9:.1f} GB, this machine has "
        f"{free / 1e9:.1f} GB free: lower its batch size"
        for name, step in costs.items()
        if step.memory_bytes > free
    )


def text(plan: Plan) -> str:
    """Returns the plan as a table for people."""
    images = plan.images
    classes = f"{images.classes} classes" if images.classes else "no labels"
    header = ("stage", "how often", "each", "memory", "time")
    lines = [
        f"{images.train} images to protect, {images.test} clean test images, {classes} "
        f"({images.origin})",
        f"{plan.machine}, {_bytes(plan.free_bytes)} of memory free",
        "",
        *_aligned([header, *(_cells(row) for row in plan.rows)]),
        *_totals(plan.rows),
        "",
        *_disk(plan),
        *(f"problem: {problem}" for problem in plan.problems),
    ]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    each = None if row.seconds is None else row.seconds / row.stage.count
    bound = "≤ " if row.stage.at_most else ""
    return (
        row.stage.name,
        f"{bound}{row.stage.count} {row.stage.unit}",
        "-" if each is None else f"{1e3 * each:.1f} ms",
        "-" if row.memory_bytes is None else _bytes(row.memory_bytes),
        "-" if row.seconds is None else f"{bound}{_duration(row.seconds)}",
    )


def _totals(rows: tuple[Row, ...]) -> list[str]:
    """Sums the stages up to the protected files, and all."""
    protecting = [row for row in rows if not row.stage.measures]
    sums = [("until the protected files are written and checked", protecting)]
    if len(rows) > len(protecting):
        sums.append(("with the measurement of their effect", list(rows)))
    lines = []
    for what, chosen in sums:
        known = [row.seconds for row in chosen if row.seconds is not None]
        missing = len(chosen) - len(known)
        note = f", without {missing} stages that were not timed" if missing else ""
        lines.append(f"{what}: {_duration(sum(known)) if known else '-'}{note}")
    return [*lines, "(times exclude compilation; this machine, from a few runs of each step)"]


def _disk(plan: Plan) -> list[str]:
    sample = plan.files
    if sample is None:
        return ["disk: not known without a sample of the files"]
    n, each = plan.images.train, sample.written_bytes
    growth = f", {each / sample.source_bytes:.1f} × the originals" if sample.source_bytes else ""
    all_rows = f", of all rows {_bytes(plan.written_files * each)}"
    return [
        f"disk, at most, from {sample.files} images with random noise: protected files "
        f"{_bytes(n * each)} ({_bytes(each)} each{growth}){all_rows * (plan.written_files > n)}; "
        f"decoded images {_bytes((n + plan.images.test) * sample.cache_bytes)} in the cache",
    ]


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _bytes(count: float) -> str:
    power = min(int(math.log10(max(count, 1)) / 3), 4)
    return f"{count / 1000**power:.{min(power, 1)}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
