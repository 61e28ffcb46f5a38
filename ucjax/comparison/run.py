"""Fills a table: protections × victims × seeds, each cell once.

One room for every door: the research run, the owner's evaluation, and the comparison of anybody's
files are choices of rows and columns.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax import names
from ucjax.comparison import availability, cells, columns, foreign, ground, imported, rows, table
from ucjax.comparison.availability import Availability
from ucjax.comparison.ground import Ground, Known
from ucjax.comparison.rows import Row
from ucjax.comparison.table import Column, Entry, Line, Table
from ucjax.data.images import ImageSet, Item
from ucjax.errors import UserError
from ucjax.files.picture import FORMATS
from ucjax.names import Name
from ucjax.protections import table as protections
from ucjax.protections.uc import perturbation
from ucjax.protections.uc.perturbation import NoiseSpec
from ucjax.runtime import checkpoint, disk, parallel, workdir
from ucjax.runtime.progress import MetricsFile, Progress, say
from ucjax.victims import pretraining, together, training
from ucjax.victims import table as victims
from ucjax.victims.contract import Labels, Victim
from ucjax.victims.training import VictimResult


@dataclass(frozen=True)
class Filled:
    """A finished comparison, and what its page shows beside the numbers."""

    table: Table
    ground: Ground
    rows: tuple[Row, ...]


class Plan(NamedTuple):
    """What a config asks for, checked."""

    rows: tuple[Name, ...]
    columns: tuple[Victim, ...]


class _Wanted(NamedTuple):
    """A cell that is asked for."""

    row: Row
    victim: Victim
    seed: int
    key: str
    train: ImageSet
    test: ImageSet
    pretrain: ImageSet | None = None


def check(config: ConfigDict, mesh: Mesh) -> Plan:
    """Reads the rows and columns, and refuses impossible settings before anything is loaded.

    Raises:
      UserError: naming the row, column or key, its value and the cure.
    """
    for module in config.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f"config.modules: cannot import {module!r} ({error})") from error
    found = tuple(names.parse(text, "row") for text in config.protections)
    asked = tuple(names.parse(text, "column") for text in config.victims)
    for kind, listed in (("protections", found), ("victims", asked)):
        if twice := [str(name) for name in listed if listed.count(name) > 1]:
            raise UserError(f"config.{kind} names {twice[0]!r} twice")
    _check_seeds(config)
    for name in found:
        own, _ = protections.resolve(name, config)
        if "epochs" in protections.find(name).shared:
            spec = NoiseSpec(**own.noise, seed=0)
            perturbation.check(spec, p=own.clusters.k, devices=mesh.size)
    _check_labels(found)
    columns = tuple(victims.resolve(name, config) for name in asked)
    for victim in columns:
        training.check(victim.spec, devices=mesh.size)
    _check_geometry(config, columns)
    return Plan(found, columns)


def _check_labels(found: Sequence[Name]) -> None:
    """Refuses two rows of one label, since results are kept by it."""
    for number, name in enumerate(found):
        label = rows.label_of(name)
        others = [rows.label_of(other) for other in found[:number]]
        taken = name.base == "folder" and label in protections.PROTECTIONS
        if label in others or taken:
            whose = "another row is" if label in others else "a protection is"
            raise UserError(f"row {str(name)!r} is called {label!r}, as {whose}: give it a label")


def _check_seeds(config: ConfigDict) -> None:
    for key in ("seed", "noise_seeds", "seeds"):
        given = config[key]
        for seed in given if isinstance(given, tuple) else (given,):
            if not 0 <= seed < 2**31:
                raise UserError(f"config.{key} holds {seed}: seeds go from 0 to {2**31 - 1}")


def _check_geometry(config: ConfigDict, columns: Sequence[Victim]) -> None:
    pairs = [("config.data", config.data.short_side, config.data.crop)]
    pairs += [(f"column {v.name}", v.spec.short_side, v.spec.crop) for v in columns]
    for where, short_side, crop in pairs:
        if not 1 <= crop <= short_side:
            raise UserError(
                f"{where} has a crop of {crop} and a short side of {short_side}: a crop must fit "
                "into the short side"
            )
    source, geometry = config.data.source, config.files.geometry
    if geometry not in ("crop", "native") or (geometry == "native") > (source == "folder"):
        raise UserError(
            f"config.files.geometry is {geometry!r} with data.source {source!r}: choose crop, or "
            "native, which needs the files of a folder"
        )
    if config.files.format not in FORMATS:
        raise UserError(
            f"config.files.format is {config.files.format!r}: choose one of {', '.join(FORMATS)}"
        )


def run(
    config: ConfigDict,
    folder: Path,
    *,
    command: Sequence[str],
    mesh: Mesh | None = None,
    reuse: Sequence[Path] = (),
    known: Known | None = None,
    wanted: Callable[[Name, Victim], bool] = lambda row, victim: True,
    elsewhere: Path | None = None,
    progress: Callable[..., Progress] = Progress,
) -> Filled:
    """Fills the table of a config in `folder`, where a rerun goes on.

    Args:
      config: the experiment, locked.
      folder: of the run.
      command: what was typed, for the record.
      mesh: the devices (None: all).
      reuse: other runs' folders whose cells may be taken.
      known: clusters that are given with the images.
      wanted: which cells are to be filled.
      elsewhere: accuracies that were measured elsewhere (see `imported.add`).
      progress: makes progress lines.

    Raises:
      UserError: bad input, in one line.
    """
    mesh = mesh or parallel.make_mesh()
    plan = check(config, mesh)
    if elsewhere is not None:
        imported.read(elsewhere)  # before anything takes hours
    # One run at a time writes to a folder; of a run, its first process.
    with disk.held(folder) if parallel.is_main() else contextlib.nullcontext():
        return _run(config, folder, command, mesh, plan, reuse, known, wanted, elsewhere, progress)


def _run(
    config: ConfigDict,
    folder: Path,
    command: Sequence[str],
    mesh: Mesh,
    plan: Plan,
    reuse: Sequence[Path],
    known: Known | None,
    wanted: Callable[[Name, Victim], bool],
    elsewhere: Path | None,
    progress: Callable[..., Progress],
) -> Filled:
    workdir.claim(folder, config)
    environment = workdir.record_environment(folder, command, mesh)
    place = _ground(config, folder, mesh, plan, known, progress)
    made = [
        rows.make(name, noise_seed, place)
        for name in plan.rows
        for noise_seed in _noise_seeds(name, config)
    ]
    seen = _seen_early(made, place) if config.availability else {}
    columns, results = _fill(plan, made, place, reuse, wanted)
    found = Table(
        config=workdir.plain(config),
        environment=environment,
        train_count=len(place.splits.train),
        lines=tuple(_line(name, made, seen) for name in plan.rows),
        columns=columns,
        entries=_entries(plan, made, results),
    )
    if elsewhere is not None:
        found = imported.add(found, elsewhere, place.splits.test)
    if parallel.is_main():
        checkpoint.write_json(folder / table.FILE, found.to_json())
        checkpoint.write_bytes(folder / "table.csv", found.csv().encode())
    parallel.barrier("table")
    return Filled(found, place, tuple(made))


def _noise_seeds(name: Name, config: ConfigDict) -> tuple[int, ...]:
    """Rows in which nothing is drawn are made once."""
    seeds = tuple(config.noise_seeds)
    return seeds if protections.find(name).drawn else seeds[:1]


def _ground(
    config: ConfigDict,
    folder: Path,
    mesh: Mesh,
    plan: Plan,
    known: Known | None,
    progress: Callable[..., Progress],
) -> Ground:
    """Loads the images that every row has."""
    data = config.data
    splits = ground.load_splits(config, data.short_side, progress)
    lacking: set[str] = set()
    for name in plan.rows:
        if name.base == "folder":
            lacking |= {*foreign.available(Path(name.value), splits.train.names)[1]}
    if lacking:
        say(f"{len(lacking)} images lack a protected file and are left out of every row")
        splits = ground.load_splits(
            config, data.short_side, progress, keep=lambda name: name not in lacking
        )
    classes = len(splits.train.class_names)
    say(
        f"source: {len(splits.train)} images to protect, {len(splits.test)} clean test images, "
        + (f"{classes} classes" if classes else "no labels")
    )
    metrics = MetricsFile(folder / "metrics.jsonl")
    return Ground(config, folder, mesh, metrics, splits, known, progress)


def _seen_early(made: Sequence[Row], place: Ground) -> dict[Name, Availability]:
    """Measures how early each row's noise is seen, with its first noise seed, beside clean files.

    Few images are not measured.
    """
    clean = next((row for row in made if row.name.base == "clean"), None)
    found: dict[Name, Availability] = {}
    if clean is None or len(clean.items) < availability.FEWEST:
        return found
    for row in made:
        if row.name.base not in ("clean", "absent") and row.name not in found:
            clusters = row.noise.clusters if row.noise is not None else None
            if clusters is None:
                clusters = place.clusters(place.config, row.noise_seed).assignment
            found[row.name] = availability.measure(row, clean, clusters, place)
    return found


def _fill(
    plan: Plan,
    made: Sequence[Row],
    place: Ground,
    reuse: Sequence[Path],
    wanted: Callable[[Name, Victim], bool],
) -> tuple[tuple[Column, ...], dict[tuple[str, int, str, int], VictimResult]]:
    """Trains what is missing; returns the columns, and results by row and column with seeds."""
    described: list[Column] = []
    asked: list[_Wanted] = []
    if not plan.columns:
        return (), {}
    if not len(place.splits.test):
        say("victims: none, since no image is kept for testing")
        return (), {}
    clean = _clean_items(plan, made, place)
    for victim in plan.columns:
        if not _has_labels(victim, place):
            say(f"victims {victim.name}: none, since the images have no labels")
            continue
        labels = columns.labels_of(victim, place)
        test = columns.test_set(victim, labels, place)
        described.append(_column(victim, labels))
        asked += _cells_of(victim, labels, test, made, clean, place, wanted)
    bases = {cell.row.name.base for cell in asked}
    if asked and not bases & {"clean", "clean_original"}:
        say("no row is clean: by how much accuracy drops is not told (add clean to the rows)")
    # Seeds first, so that an early look at a long run compares all rows.
    asked.sort(key=lambda cell: cell.seed)
    results = {cell.key: cells.find(cell.key, place.folder, reuse) for cell in asked}
    missing = {
        cell.key: cell for cell in asked if not parallel.agree(results[cell.key] is not None)
    }
    _train_all(list(missing.values()), place)
    for key in missing:
        results[key] = cells.find(key, place.folder, ())
    filled = {}
    for cell in asked:
        found = results[cell.key]
        assert found is not None, "every missing cell was trained"
        filled[cell.row.label, cell.row.noise_seed, str(cell.victim.name), cell.seed] = found
    return tuple(described), filled


def _clean_items(plan: Plan, made: Sequence[Row], place: Ground) -> Sequence[Item]:
    """Returns the files without noise, written as those of the rows."""
    for row in made:
        if row.name.base == "clean":
            return row.items
    if any(columns.needs_clean(victim) for victim in plan.columns):
        return rows.make(Name("clean"), 0, place).items
    return place.splits.train_items


def _has_labels(victim: Victim, place: Ground) -> bool:
    return victim.labels != "given" or bool((place.splits.train.labels >= 0).all())


def _cells_of(
    victim: Victim,
    labels: Labels,
    test: ImageSet,
    made: Sequence[Row],
    clean: Sequence[Item],
    place: Ground,
    wanted: Callable[[Name, Victim], bool],
) -> list[_Wanted]:
    tested = ground.fingerprint(test).hexdigest()
    found = []
    for row in made:
        # Where everything is protected, nothing is left without it.
        if wanted(row.name, victim) and (row.name.base != "absent" or victim.share < 100):
            train = columns.training_set(row, clean, victim, labels, place)
            trained, seen = ground.fingerprint(train).hexdigest(), None
            if victim.probe == "clean":
                seen, train = train, columns.probe_set(clean, victim, labels, place)
                trained += ground.fingerprint(train).hexdigest()
            for seed in place.config.seeds:
                key = cells.key(trained, tested, victim.spec, seed)
                found.append(_Wanted(row, victim, seed, key, train, test, seen))
    return found


def _label(cell: _Wanted) -> str:
    return f"{cell.row.label} → {cell.victim.name}, seeds {cell.row.noise_seed}/{cell.seed}"


def _train_all(missing: Sequence[_Wanted], place: Ground) -> None:
    """Trains cells: those of equal shapes in one program where that fills the devices."""
    by_label = {_label(cell): cell for cell in missing}
    shapes = {
        label: (cell.victim.spec, len(cell.train), len(cell.train.class_names))
        for label, cell in by_label.items()
    }
    groups = together.stacks(shapes, place.mesh)
    together.run(
        {
            group[0]: partial(_train, [by_label[label] for label in group], place)
            for group in groups
        },
        place.mesh,
    )


def _train(group: Sequence[_Wanted], place: Ground, progress: Callable[..., Progress]) -> None:
    unfinished = [place.folder / cells.CELLS / f"{cell.key[:20]}.safetensors" for cell in group]
    results = training.train_stack(
        [
            training.Cell(cell.train, cell.test, cell.seed, path, _label(cell), cell.pretrain)
            for cell, path in zip(group, unfinished, strict=True)
        ],
        group[0].victim.spec,
        mesh=place.mesh,
        metrics=place.metrics,
        budget_bytes=place.budget_bytes,
        progress=progress,
    )
    if parallel.is_main():
        for cell, path, result in zip(group, unfinished, results, strict=True):
            about = {
                "row": str(cell.row.name),
                "noise_seed": cell.row.noise_seed,
                "column": str(cell.victim.name),
                "seed": cell.seed,
            }
            cells.save(place.folder, cell.key, result, cell.victim.spec, about)
            for written in (path, pretraining.checkpoint_of(path)):
                written.unlink(missing_ok=True)
    parallel.barrier("cell")


def _column(victim: Victim, labels: Labels) -> Column:
    counts = np.bincount(labels.test, minlength=len(labels.class_names))
    return Column(
        name=str(victim.name),
        classes=labels.class_names,
        test_count=len(labels.test),
        chance=float(counts.max() / counts.sum()),
    )


def _line(name: Name, made: Sequence[Row], seen: Mapping[Name, Availability]) -> Line:
    """Puts together what is known of a row over its noise seeds: the worst of what is seen."""
    facts = [row.facts for row in made if row.name == name]
    seconds = [fact.seconds for fact in facts if fact.seconds is not None]
    merged = replace(
        facts[0],
        max_delta_255=max(fact.max_delta_255 for fact in facts),
        mean_abs_delta_255=float(np.mean([fact.mean_abs_delta_255 for fact in facts])),
        psnr_median=min(fact.psnr_median for fact in facts),
        ssim_median=min(fact.ssim_median for fact in facts),
        seconds=float(np.mean(seconds)) if seconds else None,
    )
    return Line(
        label=rows.label_of(name), row=str(name), availability=seen.get(name), **asdict(merged)
    )


def _entries(
    plan: Plan, made: Sequence[Row], results: dict[tuple[str, int, str, int], VictimResult]
) -> tuple[Entry, ...]:
    entries = []
    for name in plan.rows:
        label = rows.label_of(name)
        for victim in plan.columns:
            found = {
                (noise_seed, seed): result
                for (row, noise_seed, column, seed), result in results.items()
                if row == label and column == str(victim.name)
            }
            if found:
                entries.append(Entry(label, str(victim.name), found))
    return tuple(entries)
