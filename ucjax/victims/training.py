"""Trains a classifier, as an exploiter of the published images would.

BatchNorm and gradients are averaged over the devices, so a victim does not depend on how many
there are.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
from jax.sharding import Mesh

from ucjax import names
from ucjax.data.feed import Feed
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.runtime import checkpoint as files
from ucjax.runtime import parallel
from ucjax.runtime.progress import MetricsFile, Progress
from ucjax.victims.contract import VictimSpec
from ucjax.victims.step import Programs, State, compile_victim
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
    """Trains one victim and tests it on clean images after every epoch.

    An epoch is `ceil(n / batch_size)` steps over a permutation of the images; the last batch is
    filled up from the permutation's start, so that every step sees `batch_size` images.
    A checkpoint is written every half minute. A run that finds one continues from it and ends
    with the same bytes as an undisturbed one.

    Args:
      train: The labelled images the victim trains on.
      test: The clean images it is tested on.
      spec: Model and recipe.
      seed: Determines weights, order, crops and flips.
      mesh: All devices.
      checkpoint: The file to continue from and to write; whoever keeps the result deletes it.
      metrics: Gets one line an epoch, under the stage `label`.
      label: The victim's name on the progress line.
      budget_bytes: What the images may take of each device's memory (see `Feed`).
      progress: Receives the label and the number of images, returns what is updated.

    Raises:
      UserError: the sets or the spec do not allow training, or the loss is no longer finite.
    """
    check(spec, devices=mesh.size)
    _check_sets(train, test, spec)
    steps = math.ceil(len(train) / spec.batch_size)
    programs = compile_victim(spec, len(train.class_names), spec.epochs * steps, mesh)
    device_seed = parallel.replicate(np.uint32(seed), mesh)
    state, curve = _restore(checkpoint, programs.init(device_seed), spec.epochs, mesh)
    train_feed, test_feed = (
        Feed(images, spec.crop, mesh=mesh, budget_bytes=budget_bytes) for images in (train, test)
    )
    everything, first = np.arange(len(test)), int(state.step)
    bar = progress(label, spec.epochs * steps * spec.batch_size, done=first * spec.batch_size)
    saved, shown = time.monotonic(), dict[str, float]()
    for epoch in range(first // steps, spec.epochs):
        batches = epoch_batches(len(train), spec.batch_size, seed, epoch)
        results = []
        requests = [(b, seed, epoch * steps + i) for i, b in enumerate(batches)]
        for batch, images in zip(batches, train_feed.prefetch(requests), strict=True):
            labels = parallel.shard(train.labels[batch], mesh)
            state, values = programs.step(state, images, labels, device_seed)
            results.append(values)
            _pace(results)
            bar.update((epoch * steps + len(results)) * spec.batch_size, **shown)
        loss, accuracy = _epoch_means(results, label, epoch, spec)
        tested = _test_accuracy(programs, state, test_feed, everything, test.labels, spec, mesh)
        curve[epoch] = loss, accuracy, tested
        shown = {"loss": loss, "test_accuracy": tested}
        metrics.write(label, epoch + 1, **EpochRecord(*curve[epoch].tolist())._asdict())
        if parallel.agree(time.monotonic() - saved >= _CHECKPOINT_SECONDS):
            _save(checkpoint, state, curve)
            saved = time.monotonic()
    bar.close(spec.epochs * steps * spec.batch_size, **shown)
    records = tuple(EpochRecord(*row) for row in curve.tolist())
    groups = [np.flatnonzero(test.labels == label) for label in range(len(test.class_names))]
    classes = tuple(
        _test_accuracy(programs, state, test_feed, rows, test.labels, spec, mesh)
        if len(rows)
        else None
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


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Returns a permutation of `count` images, wrapped around to full batches: `[steps, b]`."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    steps = math.ceil(count / batch_size)
    return np.resize(order, (steps, batch_size))


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
    programs: Programs,
    state: State,
    feed: Feed,
    rows: np.ndarray,
    labels: np.ndarray,
    spec: VictimSpec,
    mesh: Mesh,
) -> float:
    """Returns the share of the images `rows` that are classified as `labels` says."""
    batch_size = tested_at_once(len(labels), spec.batch_size, mesh)
    padded, mask = parallel.pad(rows, batch_size)
    correct: list[jax.Array] = []
    for start in range(0, len(padded), batch_size):
        batch = padded[start : start + batch_size]
        real = parallel.shard((labels[batch], mask[start : start + batch_size]), mesh)
        correct.append(programs.test(state, feed.center_crops(batch), *real))
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
