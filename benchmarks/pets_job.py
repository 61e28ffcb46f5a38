"""The devices' part of a job of Pets' size, resident and streamed, beside its step alone."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from benchmarks import programs, rows, timing
from benchmarks.rows import Scale
from ucjax.clusters import kmeans
from ucjax.data.images import ImageSet
from ucjax.protections.uc import training as noise
from ucjax.protections.uc.perturbation import NoiseSpec
from ucjax.runtime.progress import MetricsFile
from ucjax.surrogates import Surrogate
from ucjax.surrogates.features import features

_IMAGES, _BATCH, _CLUSTERS = 3680, 256, 10
_STREAMED_EPOCHS = 6


class EpochClock(MetricsFile):
    """Notes when epochs end, and writes nothing."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def write(self, stage: str, step: int, **values: float | str) -> None:
        """Notes the time."""
        self.times.append(time.perf_counter())


class Stages(NamedTuple):
    """Seconds of a job, with what compiling takes; of an epoch when all is compiled."""

    features: float
    clusters: float
    noise: float
    epoch: float


def measure(scale: Scale, mesh: Mesh, *, epochs: int) -> dict[str, Any]:
    """Runs the job twice with images on the devices and once, shortened, with streamed ones."""
    count, batch = min(_IMAGES, 4 * scale.most), min(_BATCH, scale.most)
    images = make_images(count, scale.side + scale.side // 7)
    surrogate = rows.clip_surrogate(scale, rows.B32)
    spec = programs.noise_spec(
        width=scale.width, blocks=scale.blocks, batch_size=batch, epochs=epochs
    )
    p = min(_CLUSTERS, scale.most)
    stages = {
        "first": run(images, surrogate, spec, p, mesh),
        "second": run(images, surrogate, spec, p, mesh),
    }
    short = dataclasses.replace(spec, epochs=min(epochs, _STREAMED_EPOCHS))
    stages["streamed"] = run(images, surrogate, short, p, mesh, budget_bytes=0)
    steps = -(-count // batch)
    alone = timing.repeated(programs.noise_step(surrogate, spec, p=p, mesh=mesh).run, steps)
    timing.timed(alone)
    epoch = statistics.median(timing.timed(alone)[0].wall for _ in range(3))
    return {
        "images": count,
        "epochs": epochs,
        "stages": {name: found._asdict() for name, found in stages.items()},
        "streamed_epochs": short.epochs,
        "steps_alone_seconds": epoch,
        "waiting": {name: 1 - epoch / found.epoch for name, found in stages.items()},
    }


def run(
    images: ImageSet, surrogate: Surrogate, spec: NoiseSpec, p: int, mesh: Mesh,
    *, budget_bytes: int | None = None,
) -> Stages:  # fmt: skip
    """Runs features, clusters and noise."""
    clock, size, begin = EpochClock(), surrogate.image_size, time.perf_counter()
    found = features(surrogate, images, size=size, mesh=mesh, batch_size=spec.batch_size)
    embedded = time.perf_counter()
    clusters = kmeans.fit(found, p, seed=0, mesh=mesh)
    clustered = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        noise.train(
            images, clusters, surrogate, spec, size=size, mesh=mesh, metrics=clock,
            checkpoint_file=Path(folder) / "checkpoint", budget_bytes=budget_bytes,
        )  # fmt: skip
    epochs = np.diff(clock.times)  # without the first, which compiles
    return Stages(
        embedded - begin,
        clustered - embedded,
        time.perf_counter() - clustered,
        float(np.median(epochs)),
    )


def make_images(count: int, side: int) -> ImageSet:
    """Squares of random bytes."""
    pixels = np.random.default_rng(0).integers(0, 256, (count * side, side, 3), np.uint8)
    return ImageSet(
        rows=pixels,
        starts=np.arange(count + 1) * side,
        wide=np.zeros(count, bool),
        labels=np.full(count, -1, np.int32),
        names=tuple(f"{number}.png" for number in range(count)),
        class_names=(),
    )


def show(row: dict[str, Any]) -> None:
    """Prints a line for each run."""
    for name, stages in row["stages"].items():
        epochs = row["streamed_epochs"] if name == "streamed" else row["epochs"]
        total = stages["features"] + stages["clusters"] + stages["noise"]
        print(
            f"{row['name']:12}{name}: {total:.1f} s (features {stages['features']:.1f}, clusters "
            f"{stages['clusters']:.1f}, noise {stages['noise']:.1f} for {epochs} epochs of "
            f"{row['images']} images); an epoch {stages['epoch']:.3f} s, its steps alone "
            f"{row['steps_alone_seconds']:.3f} s: {100 * row['waiting'][name]:.1f} % waiting",
            flush=True,
        )
