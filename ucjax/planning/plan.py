"""What a run will cost before it starts: its stages, their steps, and what each step takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax import job
from ucjax.data.images import Listing
from ucjax.planning import cost, files, stand_ins, steps, targets
from ucjax.planning.cost import Cost
from ucjax.planning.files import FileCost
from ucjax.planning.schedule import Stage, count, schedule
from ucjax.planning.steps import Images
from ucjax.planning.targets import ASSUMED_UTILISATION, Target, TargetRow
from ucjax.protections.uc import perturbation
from ucjax.runtime import parallel, platforms
from ucjax.surrogates import Surrogate
from ucjax.victims import training as victims

_SAMPLE_FILES = 12


@dataclass(frozen=True)
class Row:
    """A stage and its cost; None where it is not known.

    `flops` of a step are those of this machine's program on each device, `lowered_flops` those of
    the program accelerators get, on all devices together.
    """

    stage: Stage
    flops: float | None
    lowered_flops: float | None
    memory_bytes: int | None
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """What is known of a run before it starts; `problems` are what will stop it."""

    images: Images
    machine: str
    free_bytes: int
    surrogate: str
    rows: tuple[Row, ...]
    files: FileCost | None
    written_files: int
    target: Target | None
    target_rows: tuple[TargetRow, ...]
    problems: tuple[str, ...]


def make(
    config: ConfigDict,
    *,
    assumed: Images | None = None,
    listed: Listing | None = None,
    measured: bool = True,
    target: Target | None = None,
    run: bool = True,
    mesh: Mesh | None = None,
    say: Callable[[str], None] = print,
) -> Plan:
    """Compiles the steps of a run, runs each a few times, and puts their costs together.

    Args:
      config: the experiment.
      assumed: the number of images, instead of the known one.
      listed: the images, instead of those the config names.
      measured: whether the effect will be measured, as `ucjax.main` does; False stops at the
        protected files, as `ucjax protect` does.
      target: also what it costs there.
      run: False compiles only: no times, no sample of files.
      mesh: the devices of this machine (None: all).
      say: is told what is being done.

    Raises:
      UserError: impossible settings here or on the target, or no data to count.
    """
    mesh = mesh or parallel.make_mesh()
    this = job.check(config, Path(), mesh)
    if target is not None:
        perturbation.check(this.noise, p=config.clusters.k, devices=target.chips)
        victims.check(this.victim, devices=target.chips)
    if listed is None and assumed is None:
        listed = files.listing(this)
    images = assumed or count(config, listed)
    spec = config.surrogate
    surrogate = stand_ins.load(spec.name, path=spec.path, image_size=config.data.crop)
    stages = [x for x in schedule(config, images, mesh) if measured or not x.measures]
    built = steps.build(this, surrogate, images)
    costs = _costs(built, {stage.cost for stage in stages}, run=run, say=say)
    lowered = _lowered_flops(config, surrogate, images)
    sample = None
    if run and listed is not None:
        say("timing: files")
        sample = files.measure(this, listed, surrogate, files=_SAMPLE_FILES)
    kmeans = None
    if run:
        d = steps.dimensions(surrogate)
        kmeans = cost.kmeans_seconds(images.train, d, config.clusters, mesh)
    target_rows: tuple[TargetRow, ...] = ()
    if target is not None:
        times = {name: sum(s.count for s in stages if s.cost == name) for name in costs}
        target_rows = targets.rows(target, config, images, lowered, times, say)
    return Plan(
        images=images,
        machine=f"{mesh.size} × {mesh.devices.flat[0].device_kind}",
        free_bytes=cost.available_bytes(),
        surrogate=surrogate.id,
        rows=tuple(_row(stage, costs, lowered, sample, kmeans) for stage in stages),
        files=sample,
        written_files=sum(stage.count for stage in stages if stage.cost == "write"),
        target=target,
        target_rows=target_rows,
        problems=_problems(costs, target, target_rows),
    )


def _costs(
    built: dict[str, steps.Step], needed: set[str], *, run: bool, say: Callable[[str], None]
) -> dict[str, Cost]:
    costs = {}
    for name, step in built.items():
        if name in needed:
            say(f"compiling{' and timing' if run else ''}: {name}")
            costs[name] = cost.compiled(step, run=run)
    return costs


def _lowered_flops(config: ConfigDict, surrogate: Surrogate, images: Images) -> dict[str, float]:
    """FLOPs of each step as accelerators get it, with `lax.conv`: a count, nothing is compiled."""
    one = job.check(config, Path(), parallel.make_mesh(jax.local_devices()[:1]))
    with platforms.traced_for("accelerator"):
        built = steps.build(one, surrogate, images)
        return {name: cost.lowered_flops(step) for name, step in built.items()}


def _row(
    stage: Stage,
    costs: dict[str, Cost],
    lowered: dict[str, float],
    sample: FileCost | None,
    kmeans: float | None,
) -> Row:
    if stage.cost == "k-means":
        return Row(stage, None, None, None, kmeans)
    if stage.unit == "images":
        each = getattr(sample, f"{stage.cost}_seconds", None)
        return Row(stage, None, None, None, None if each is None else each * stage.count)
    step = costs[stage.cost]
    seconds = None if step.seconds is None else step.seconds * stage.count
    return Row(stage, step.flops, lowered[stage.cost], step.memory_bytes, seconds)


def _problems(
    costs: dict[str, Cost], target: Target | None, rows: tuple[TargetRow, ...]
) -> tuple[str, ...]:
    cure = "lower its batch size"
    free = cost.available_bytes()
    found = [
        f"a step of {name} needs {step.memory_bytes / 1e9:.1f} GB, this machine has "
        f"{free / 1e9:.1f} GB free: {cure}"
        for name, step in costs.items()
        if step.memory_bytes > free
    ]
    if target is not None:
        found += [
            f"a step of {row.step} needs {row.memory_bytes / 1e9:.1f} GB on each chip, "
            f"{target.name} has {target.chip.memory_gb} GB: {cure}, or use more chips"
            for row in rows
            if row.memory_bytes is not None and row.memory_bytes > target.chip.memory_gb * 1e9
        ]
    return tuple(found)


def text(plan: Plan) -> str:
    """Returns the plan as a table for people."""
    images = plan.images
    classes = f"{images.classes} classes" if images.classes else "no labels"
    header = ("stage", "how often", "each", "GFLOP each", "on accelerators", "memory", "time")
    lines = [
        f"{images.train} images to protect, {images.test} clean test images, {classes} "
        f"({images.origin})",
        f"{plan.surrogate} on {plan.machine}, {_bytes(plan.free_bytes)} of memory free",
        "",
        *_aligned([header, *(_cells(row) for row in plan.rows)]),
        *_totals(plan.rows),
        "",
        *_disk(plan),
        "GFLOP are those of this machine's program on each device, and of the one "
        "accelerators get (lax.conv) in all",
    ]
    if plan.target is not None:
        lines += ["", *_target_lines(plan.target, plan.target_rows)]
    lines += [f"problem: {problem}" for problem in plan.problems]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    each = None if row.seconds is None or not row.stage.count else row.seconds / row.stage.count
    bound = "≤ " if row.stage.at_most else ""
    return (
        row.stage.name,
        f"{bound}{row.stage.count} {row.stage.unit}",
        "-" if each is None else f"{1e3 * each:.1f} ms",
        "-" if row.flops is None else f"{row.flops / 1e9:.3g}",
        "-" if row.lowered_flops is None else f"{row.lowered_flops / 1e9:.3g}",
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
    controls = f", with controls {_bytes(plan.written_files * each)}"
    return [
        f"disk, at most, from {sample.files} images with random noise: protected files "
        f"{_bytes(n * each)} ({_bytes(each)} each{growth}){controls * (plan.written_files > n)}; "
        f"decoded images {_bytes((n + plan.images.test) * sample.cache_bytes)} in the cache",
    ]


def _target_lines(target: Target, rows: tuple[TargetRow, ...]) -> list[str]:
    compiled = any(row.memory_bytes is not None for row in rows)
    peak = target.chip.peak_flops / 1e12
    how = (
        f"FLOPs and memory by the TPU compiler for {target.topology}"
        if compiled
        else "estimate, nothing was compiled for it: FLOPs are this machine's count"
    )
    header = ("step", "how often", "GFLOP a chip", "memory a chip", "time (estimate)")
    table = [
        (
            row.step,
            str(row.count),
            f"{row.flops / 1e9:.3g}",
            "-" if row.memory_bytes is None else _bytes(row.memory_bytes),
            _duration(row.seconds),
        )
        for row in rows
    ]
    return [
        f"{target.name}, {target.chips} chips of {peak:.0f} bf16 TFLOP/s and "
        f"{target.chip.memory_gb} GB: {how}",
        *_aligned([header, *table]),
        f"estimate of the steps' time: {_duration(sum(row.seconds for row in rows))}, = FLOPs / "
        f"(peak × assumed utilisation of {ASSUMED_UTILISATION}); small steps reach far less",
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
