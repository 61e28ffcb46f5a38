"""Seen early: how soon a small network can tell a row's clusters apart, before any victim trains.

A cue protects when a network sees it early, not when it fools the surrogate. A small network learns
to name the cluster of each file from crops at the victims' own scale, for a few hundred steps. By
how much more it then tells the clusters of unseen files than those of clean ones is how available
the cue is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np

from ucjax.comparison import ground
from ucjax.comparison.ground import Ground
from ucjax.comparison.rows import Row, slug
from ucjax.data import folder as folders
from ucjax.data.feed import Feed, epoch_batches
from ucjax.data.images import ImageSet
from ucjax.runtime import checkpoint, parallel
from ucjax.victims.contract import VictimSpec
from ucjax.victims.step import compile_victim
from ucjax.victims.training import tested_at_once

STEPS = (50, 100, 200)
# Of fewer images nothing could be told.
FEWEST = 50
_CROP, _WIDTH, _BATCH = 64, 8, 16
_HELD_OUT = 0.2


@dataclass(frozen=True)
class Availability:
    """How well the clusters of unseen files are told, as shares of 1, after each of `STEPS`.

    Attributes:
      row: of the row's files.
      clean: of the clean files, with the same clusters.
      chance: share of the largest cluster.
    """

    row: tuple[float, ...]
    clean: tuple[float, ...]
    chance: float

    @property
    def gain(self) -> float:
        """By how much more is told than of the clean files, mean over `STEPS`."""
        return float(np.mean(self.row) - np.mean(self.clean))


def measure(row: Row, clean: Row, clusters: np.ndarray, place: Ground) -> Availability:
    """Measures a row against the clean files; what is known already costs nothing.

    Args:
      row: the files.
      clean: the clean files, in the same order.
      clusters: whose telling apart is learnt, int `[n]`.
      place: of the run.
    """
    return Availability(
        row=_told(row, clusters, place),
        clean=_told(clean, clusters, place),
        chance=float(np.bincount(clusters).max() / len(clusters)),
    )


def _told(row: Row, clusters: np.ndarray, place: Ground) -> tuple[float, ...]:
    spec = _spec(place)
    decoded = place.decode(slug(row.label), row.items, spec.short_side)
    names = tuple(f"cluster {i}" for i in range(int(clusters.max()) + 1))
    images = replace(decoded, labels=clusters.astype(np.int32), class_names=names)
    question = [ground.fingerprint(images).hexdigest(), asdict(spec), STEPS]
    key = hashlib.sha256(json.dumps(question).encode()).hexdigest()
    path = place.folder / "availability" / f"{key[:20]}.json"
    if not parallel.agree(path.exists()):
        told = _train(images, spec, place)
        if parallel.is_main():
            checkpoint.write_json(path, {"row": row.label, "told": told})
        parallel.barrier("availability")
    return tuple(float(share) for share in checkpoint.read_json(path)["told"])


def _spec(place: Ground) -> VictimSpec:
    shared: dict[str, Any] = place.config.victim.to_dict()
    batch = _BATCH + -_BATCH % place.mesh.size
    own = {
        "width": _WIDTH,
        "batch_size": batch,
        "crop": min(_CROP, shared["crop"]),
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "final_learning_rate": 0.0,
        "warmup_epochs": 0,
        "epochs": 1,
    }
    return VictimSpec(model="vgg6", recipes=(), **{**shared, **own})


def _train(images: ImageSet, spec: VictimSpec, place: Ground) -> list[float]:
    """Returns the share of held-out files whose cluster is told, after each of `STEPS`."""
    mesh = place.mesh
    held_out = folders.stratified(images.labels.tolist(), _HELD_OUT, 0)
    learnt, tested = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    programs = compile_victim(spec, len(images.class_names), STEPS[-1], mesh)
    seed = parallel.replicate(np.uint32(0), mesh)
    state = programs.init(seed)
    feed = Feed(images, spec.crop, mesh=mesh, budget_bytes=place.budget_bytes)
    batches = [
        learnt[batch]
        for epoch in range(STEPS[-1])
        for batch in epoch_batches(len(learnt), spec.batch_size, 0, epoch)
    ][: STEPS[-1]]
    bar, told = place.progress("availability", STEPS[-1], unit="steps"), []
    requests = [(batch, 0, step) for step, batch in enumerate(batches)]
    for step, crops in enumerate(feed.prefetch(requests), start=1):
        labels = parallel.shard(images.labels[batches[step - 1]], mesh)
        state, values = programs.step(state, crops, labels, seed)
        jax.block_until_ready(values)
        bar.update(step)
        if step in STEPS:
            size = tested_at_once(len(tested), spec.batch_size, mesh)
            padded, mask = parallel.pad(tested, size)
            correct = 0.0
            for start in range(0, len(padded), size):
                rows = padded[start : start + size]
                real = parallel.shard((images.labels[rows], mask[start : start + size]), mesh)
                correct += float(
                    parallel.to_host(programs.test(state, feed.center_crops(rows), *real))
                )
            told.append(correct / len(tested))
    bar.close(STEPS[-1])
    return told
