"""Trains a classifier, as an exploiter of the published images would.

BatchNorm and gradients are averaged over the devices, so a victim does not depend on how many
there are.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
from jax.sharding import Mesh

from ucjax import names
from ucjax.data.feed import Feed, epoch_batches
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.runtime import checkpoint as files
from ucjax.runtime import parallel
from ucjax.runtime.progress import MetricsFile, Progress
from ucjax.victims import pretraining
from ucjax.victims.contract import VictimSpec
from ucjax.victims.step import Programs, State, compile_stack, compile_victim
from ucjax.victims.table import MODELS, RECIPES

_CHECKPOINT_SECONDS = 30.0
# How far the host may be ahead of the devices: every queued step holds its batch in their memory.
_STEPS_AHEAD = 4


class EpochRecord(NamedTuple):
    """One epoch: means over its steps, in training mode, and the clean test after it."""

    train_loss: float
    train_accuracy: float
    test_accuracy: float


@dataclasses.dataclass(frozen=True)
class VictimResult:
    """Accuracies on the clean test set, in [0, 1], and the curve that led to them."""

    last: float
    peak: float
    curve: tuple[EpochRecord, ...]
    classes: tuple[float | None, ...] = ()  # after the last epoch; None: no test images


@dataclasses.dataclass(frozen=True)
class Cell:
    """One victim's images, seed and place.

    Attributes:
      train: the labelled images the victim trains on.
      test: the clean images it is tested on.
      seed: determines weights, order, crops and flips.
      checkpoint: the file to continue from and to write; whoever keeps the result deletes it.
      label: the victim's name on the progress line and in the metrics.
      pretrain: the images that its encoder learns from without labels; None: those of `train`.
    """

    train: ImageSet
    test: ImageSet
    seed: int
    checkpoint: Path
    label: str = "victim"
    pretrain: ImageSet | None = None


def train(
    train: ImageSet,
    test: ImageSet,
    spec: VictimSpec,
    *,
    seed: int,
    mesh: Mesh,
    checkpoint: Path,
    metrics: MetricsFile,
    label: str = "victim",
    budget_bytes: int | None = None,
    progress: Callable[..., Progress] = Progress,
) -> VictimResult:
    """Trains one victim; see `train_stack`, of which this is the case of one cell, and `Cell`."""
    cell = Cell(train, test, seed, checkpoint, label)
    (result,) = train_stack(
        [cell], spec, mesh=mesh, metrics=metrics, budget_bytes=budget_bytes, progress=progress
    )
    return result


def train_stack(
    cells: Sequence[Cell],
    spec: VictimSpec,
    *,
    mesh: Mesh,
    metrics: MetricsFile,
    budget_bytes: int | None = None,
    progress: Callable[..., Progress] = Progress,
) -> list[VictimResult]:
    """Trains victims in one program and tests them on clean images after every epoch.

    An epoch is `ceil(n / batch_size)` steps over a permutation of the images; the last batch is
    filled up from the permutation's start, so that every step sees `batch_size` images.
    A checkpoint of each victim is written every half minute. A run that finds one continues from
    it and ends with the same bytes as an undisturbed one. A victim in a stack has the result it
    would have alone, but for rounding, and goes on from a checkpoint of either.

    Args:
      cells: c victims with equally many training images and classes.
      spec: Model and recipe.
      mesh: All devices.
      metrics: Gets one line an epoch and cell, under the cell's label.
      budget_bytes: What the images may take of each device's memory, over all cells (see `Feed`).
      progress: Receives a label and the number of images, returns what is updated.

    Returns:
      The c results, in the order of the cells.

    Raises:
      UserError: the sets or the spec do not allow training, or a loss is no longer finite.
      ValueError: the cells have unequal numbers of images or classes.
    """
    check(spec, devices=mesh.size)
    steps, classes = _steps_and_classes(cells, spec)
    programs = compile_victim(spec, classes, spec.epochs * steps, mesh)
    step = compile_stack(spec, classes, spec.epochs * steps, mesh, len(cells))
    budget = None if budget_bytes is None else budget_bytes // len(cells)
    options: dict[str, Any] = {"mesh": mesh, "metrics": metrics, "progress": progress}
    running = [_begin(c, spec, programs, budget_bytes=budget, **options) for c in cells]
    first = int(running[0].state.step)
    if any(int(r.state.step) != first for r in running):
        options["budget_bytes"] = budget_bytes
        return [train_stack([c], spec, **options)[0] for c in cells]
    label = cells[0].label + (f" and {len(cells) - 1} more" if len(cells) > 1 else "")
    images_a_step = spec.batch_size * len(cells)
    bar = progress(label, spec.epochs * steps * images_a_step, done=first * images_a_step)
    saved, shown = time.monotonic(), dict[str, float]()
    for epoch in range(first // steps, spec.epochs):
        results: list[Any] = []
        for batches in zip(*(_batches(r, spec, steps, epoch) for r in running), strict=True):
            images, labels = zip(*batches, strict=True)
            states, values = step(
                tuple(r.state for r in running),
                images,
                parallel.shard(labels, mesh),
                tuple(r.device_seed for r in running),
            )
            for r, state in zip(running, states, strict=True):
                r.state = state
            results.append(values)
            _pace(results)
            bar.update((epoch * steps + len(results)) * images_a_step, **shown)
        for i, r in enumerate(running):
            loss, accuracy = _epoch_means([v[i] for v in results], r.cell.label, epoch, spec)
            tested = _test_accuracy(programs, r, None, spec, mesh)
            r.curve[epoch] = loss, accuracy, tested
            record = EpochRecord(*r.curve[epoch].tolist())
            metrics.write(r.cell.label, epoch + 1, **record._asdict())
        shown = {"loss": running[0].curve[epoch, 0], "test_accuracy": running[0].curve[epoch, 2]}
        if parallel.agree(time.monotonic() - saved >= _CHECKPOINT_SECONDS):
            for r in running:
                _save(r.cell.checkpoint, r.state, r.curve)
            saved = time.monotonic()
    bar.close(spec.epochs * steps * images_a_step, **shown)
    return [_result(programs, r, spec, mesh) for r in running]


@dataclasses.dataclass
class _Running:
    """A cell in training; its state is donated to each step, which gives the next."""

    cell: Cell
    state: State
    curve: np.ndarray  # float64 [epochs, 3], NaN where it is still to come
    train_feed: Feed
    test_feed: Feed
    device_seed: jax.Array


def _steps_and_classes(cells: Sequence[Cell], spec: VictimSpec) -> tuple[int, int]:
    """Returns the steps of an epoch and the number of classes, which all cells share."""
    for cell in cells:
        _check_sets(cell.train, cell.test, spec)
    shapes = {(len(cell.train), len(cell.train.class_names)) for cell in cells}
    if len(shapes) != 1:
        raise ValueError(f"cells of one stack differ in their images and classes: {shapes}")
    ((count, classes),) = shapes
    return math.ceil(count / spec.batch_size), classes


def _begin(
    cell: Cell,
    spec: VictimSpec,
    programs: Programs,
    *,
    mesh: Mesh,
    budget_bytes: int | None,
    metrics: MetricsFile,
    progress: Callable[..., Progress],
) -> _Running:
    seed = parallel.replicate(np.uint32(cell.seed), mesh)
    state, curve = _restore(cell.checkpoint, programs.init(seed), spec.epochs, mesh)
    if spec.pretrain_epochs and not int(state.step):
        kept = pretraining.checkpoint_of(cell.checkpoint)
        place = pretraining.Place(mesh, kept, metrics, progress, budget_bytes, cell.label)
        images = cell.train if cell.pretrain is None else cell.pretrain
        state = pretraining.pretrain(state, images, spec, seed=cell.seed, place=place)
    train_feed, test_feed = (
        Feed(images, spec.crop, mesh=mesh, budget_bytes=budget_bytes)
        for images in (cell.train, cell.test)
    )
    return _Running(cell, state, curve, train_feed, test_feed, seed)


def _batches(
    running: _Running, spec: VictimSpec, steps: int, epoch: int
) -> Iterator[tuple[jax.Array, np.ndarray]]:
    """Yields the images and labels of an epoch's steps."""
    cell = running.cell
    batches = epoch_batches(len(cell.train), spec.batch_size, cell.seed, epoch)
    requests = [(batch, cell.seed, epoch * steps + i) for i, batch in enumerate(batches)]
    for batch, images in zip(batches, running.train_feed.prefetch(requests), strict=True):
        yield images, cell.train.labels[batch]


def _result(programs: Programs, running: _Running, spec: VictimSpec, mesh: Mesh) -> VictimResult:
    records = tuple(EpochRecord(*row) for row in running.curve.tolist())
    test = running.cell.test
    groups = [np.flatnonzero(test.labels == label) for label in range(len(test.class_names))]
    classes = tuple(
        _test_accuracy(programs, running, rows, spec, mesh) if len(rows) else None
        for rows in groups
    )
    peak = max(record.test_accuracy for record in records)
    return VictimResult(records[-1].test_accuracy, peak, records, classes)


def read_result(path: Path) -> VictimResult:
    """Reads the JSON of a finished victim, as `dataclasses.asdict` gave it.

    Raises:
      UserError: it is damaged.
    """
    saved = files.read_json(path)
    curve = tuple(EpochRecord(*row) for row in saved["curve"])
    return VictimResult(saved["last"], saved["peak"], curve, tuple(saved["classes"]))


def tested_at_once(count: int, batch_size: int, mesh: Mesh) -> int:
    """Returns how many of `count` test images a step takes: no more than there are, padded."""
    return min(batch_size, count + -count % mesh.size)


def _pace(results: list[Any]) -> None:
    if len(results) > _STEPS_AHEAD:
        jax.block_until_ready(results[-1 - _STEPS_AHEAD])


def _epoch_means(
    results: list[tuple[jax.Array, jax.Array]], label: str, epoch: int, spec: VictimSpec
) -> tuple[float, float]:
    values = np.array(parallel.to_host(results), np.float64)
    if not np.isfinite(values).all():
        step = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise UserError(
            f"{label}: the loss is {values[step, 0]} at step {step + 1} of {len(values)} of epoch "
            f"{epoch + 1}: lower config.victim.learning_rate (now {spec.learning_rate:g})"
        )
    loss, accuracy = values.mean(0)
    return float(loss), float(accuracy)


def _test_accuracy(
    programs: Programs, running: _Running, rows: np.ndarray | None, spec: VictimSpec, mesh: Mesh
) -> float:
    """Returns the share of the test images `rows` (None: all) that are classified rightly."""
    labels = running.cell.test.labels
    rows = np.arange(len(labels)) if rows is None else rows
    batch_size = tested_at_once(len(labels), spec.batch_size, mesh)
    padded, mask = parallel.pad(rows, batch_size)
    correct: list[jax.Array] = []
    for start in range(0, len(padded), batch_size):
        batch = padded[start : start + batch_size]
        real = parallel.shard((labels[batch], mask[start : start + batch_size]), mesh)
        crops = running.test_feed.center_crops(batch)
        correct.append(programs.test(running.state, crops, *real))
        _pace(correct)
    return float(sum(parallel.to_host(correct))) / len(rows)


def _restore(path: Path, state: State, epochs: int, mesh: Mesh) -> tuple[State, np.ndarray]:
    curve = np.full((epochs, len(EpochRecord._fields)), np.nan)
    if not parallel.agree(path.exists()):
        return state, curve
    saved = files.load_tree(path, {"state": parallel.to_host(state), "curve": curve})
    return parallel.replicate(saved["state"], mesh), np.array(saved["curve"])


def _save(path: Path, state: State, curve: np.ndarray) -> None:
    tree = {"state": parallel.to_host(state), "curve": curve}
    if parallel.is_main():
        files.save_tree(path, tree)


def check(spec: VictimSpec, *, devices: int) -> None:
    """Refuses settings that cannot train, before anything is compiled.

    Raises:
      UserError: naming the key, its value and the cure.
    """
    names.known(spec.model, MODELS, "model")
    for recipe in spec.recipes:
        names.known(recipe, RECIPES, "recipe")
    names.known(spec.optimizer, ("sgd", "adamw"), "config.victim.optimizer")
    if not 0 <= spec.warmup_epochs < spec.epochs:
        raise UserError(
            f"config.victim.warmup_epochs is {spec.warmup_epochs} and config.victim.epochs "
            f"{spec.epochs}: the warm-up must be shorter"
        )
    if not 0 <= spec.final_learning_rate <= spec.learning_rate or not spec.learning_rate:
        raise UserError(
            f"config.victim.learning_rate is {spec.learning_rate:g} and final_learning_rate "
            f"{spec.final_learning_rate:g}: the first must be positive, the second from 0 to it"
        )
    if spec.pretrain_epochs < 0 or (spec.pretrain_epochs and not MODELS[spec.model].contrast):
        able = ", ".join(name for name, model in MODELS.items() if model.contrast)
        raise UserError(
            f"config.victim.pretrain_epochs is {spec.pretrain_epochs} and the model {spec.model}: "
            f"only {able} are trained without labels first"
        )
    if not 0 <= spec.clip_norm < math.inf:
        raise UserError(
            f"config.victim.clip_norm is {spec.clip_norm:g}: give a norm, or 0 not to clip"
        )
    if not 1 <= spec.crop <= spec.short_side:
        raise UserError(
            f"config.victim.crop is {spec.crop} and config.victim.short_side {spec.short_side}: "
            "a crop must fit into the short side"
        )
    _check_model(spec)
    if spec.batch_size < 1 or spec.batch_size % devices:
        nearest = devices * max(round(spec.batch_size / devices), 1)
        raise UserError(
            f"config.victim.batch_size is {spec.batch_size}, not divisible by the {devices} "
            f"devices: try {nearest}"
        )


@functools.lru_cache(maxsize=64)
def _check_model(spec: VictimSpec) -> None:
    """Lets a model refuse a size of image, as one that cuts patches does."""
    net = MODELS[spec.model].make(2, spec.width)
    images = jax.ShapeDtypeStruct((1, spec.crop, spec.crop, 3), np.float32)
    jax.eval_shape(functools.partial(net.init, train=False), jax.random.key(0), images)


def _check_sets(train: ImageSet, test: ImageSet, spec: VictimSpec) -> None:
    for name, images in (("training", train), ("test", test)):
        chex.assert_shape(images.labels, (len(images),))
        chex.assert_shape(images.rows, (None, None, 3))
        if not len(images):
            raise UserError(f"there are no {name} images: a victim needs both sets")
        if unlabelled := int(np.sum(images.labels < 0)):
            raise UserError(
                f"{unlabelled} of {len(images)} {name} images have no label: a victim needs "
                "classes, so put the images into one folder a class"
            )
        if images.short_side != spec.short_side:
            raise UserError(
                f"the short side of the {name} images is {images.short_side} pixels, the victim's "
                f"{spec.short_side}: they must be equal"
            )
    if train.class_names != test.class_names:
        raise UserError(
            f"the training images have {len(train.class_names)} classes and the test images "
            f"{len(test.class_names)}, with other names: give both the same class folders"
        )
