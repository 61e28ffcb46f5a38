"""How often each step of a run is taken: the arithmetic of the rooms, without running them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax.comparison import run
from ucjax.data.images import Listing
from ucjax.errors import UserError
from ucjax.names import Name
from ucjax.protections import table
from ucjax.protections.uc import fit as uc
from ucjax.surrogates import features
from ucjax.victims.contract import Victim
from ucjax.victims.training import tested_at_once

# A data set may have no labels yet: how many classes there are changes the victims' last layer.
_ASSUMED_CLASSES = 100


class Images(NamedTuple):
    """How many images a run has, and how that is known."""

    train: int  # to protect
    test: int  # clean test images
    classes: int  # 0: no labels, so no victims
    origin: str


@dataclass(frozen=True)
class Stage:
    """Work of one kind: `count` times what `cost` names (a step, or a key of `FileCost`).

    `measures` is False where it is needed for the protected files, True where only their effect
    is measured by it.
    """

    name: str
    measures: bool
    count: int
    unit: str  # "images" | "steps" | "iterations" | "noises"
    cost: str
    at_most: bool = False


def count(config: ConfigDict, listed: Listing | None) -> Images:
    """Returns the number of images of a listing.

    Raises:
      UserError: there is none.
    """
    if listed is None:
        raise UserError(
            f"{config.data.name!r} is not on this machine, and how many images it has is not known "
            "here: give their number as --images=N"
        )
    labelled = all(item.label >= 0 for item in listed.train)
    classes = len(listed.class_names) if labelled else 0
    return Images(len(listed.train), len(listed.test), classes, "listed")


def assume(config: ConfigDict, train: int) -> Images:
    """Returns `train` images to protect, and as many to test as the config keeps.

    Raises:
      UserError: fewer images than clusters.
    """
    if train < config.clusters.k:
        raise UserError(
            f"--images={train} is fewer than config.clusters.k = {config.clusters.k}: raise it"
        )
    fraction = config.data.test_fraction
    test = round(train * fraction / (1 - fraction))
    return Images(train, test, _ASSUMED_CLASSES, "assumed, by --images")


def surrogate_of(config: ConfigDict) -> str:
    """Returns how a plan calls the surrogate that settings name."""
    name, path = config.surrogate.name, config.surrogate.path
    return f"{name} {path}".strip()


def noisy(plan: run.Plan, config: ConfigDict) -> Iterator[tuple[Name, ConfigDict, bool]]:
    """Gives the rows whose noise is made, with their settings and whether it is trained by UC."""
    for row in plan.rows:
        fit = table.find(row).fit
        if fit is not None and row.base != "clean":
            yield row, table.resolve(row, config)[0], fit is uc.fit


def schedule(config: ConfigDict, plan: run.Plan, images: Images, mesh: Mesh) -> tuple[Stage, ...]:
    """Returns the stages of a run in their order, with how often each step of them runs."""
    written = sum(_times(row, config) for row in plan.rows if table.find(row).fit is not None)
    own = sum(_times(row, config) for row, _, trained in noisy(plan, config) if trained)
    n = images.train
    stages = [
        Stage("decode", False, n + images.test, "images", "decode"),
        *_clusters(config, plan, images, mesh),
        *_noise(config, plan, images),
        Stage("protected files", False, own * n, "images", "write"),
        Stage("check of the files", False, own * n, "images", "check"),
        Stage("files of other rows", True, (written - own) * n, "images", "write"),
    ]
    if images.test:
        for victim in plan.columns:
            if images.classes or victim.labels != "given":
                stages += _victims(config, plan, victim, images, mesh)
    return tuple(stage for stage in stages if stage.count)


def _times(row: Name, config: ConfigDict) -> int:
    return len(config.noise_seeds) if table.find(row).drawn else 1


def _clusters(config: ConfigDict, plan: run.Plan, images: Images, mesh: Mesh) -> Iterator[Stage]:
    """Features once a surrogate, k-means once a surrogate, number of clusters and seed."""
    embedded, clustered = set(), set()
    for row, own, _ in noisy(plan, config):
        if "surrogate" not in table.find(row).shared:
            continue
        name, k = surrogate_of(own), own.clusters
        if name not in embedded:
            embedded.add(name)
            steps = math.ceil(
                images.train / features.step_size(images.train, own.surrogate.batch_size, mesh)
            )
            yield Stage(f"features {name}", False, steps, "steps", f"features {name}")
        if (name, k.k) not in clustered:
            clustered.add((name, k.k))
            most = len(config.noise_seeds) * k.n_init * k.max_iterations
            yield Stage(
                f"k-means {name}, k = {k.k}", False, most, "iterations", f"k-means {name} {k.k}",
                at_most=True,
            )  # fmt: skip


def _noise(config: ConfigDict, plan: run.Plan, images: Images) -> Iterator[Stage]:
    for row, own, trained in noisy(plan, config):
        times, noise = _times(row, config), own.noise
        if trained:
            steps = times * noise.epochs * math.ceil(images.train / noise.batch_size)
            yield Stage(f"noise {row}", False, steps, "steps", f"noise {row}")
        else:
            yield Stage(f"noise {row}", True, times, "noises", "other noise")


def _victims(
    config: ConfigDict, plan: run.Plan, victim: Victim, images: Images, mesh: Mesh
) -> Iterator[Stage]:
    spec, n, m = victim.spec, images.train, images.test
    rows = sum(_times(row, config) for row in plan.rows)
    yield Stage(f"decode for {victim.name}", True, rows * n, "images", "reread")
    trained = rows * len(config.seeds)
    at_once = tested_at_once(m, spec.batch_size, mesh)
    # After every epoch all images, in the end class by class.
    tests = spec.epochs * math.ceil(m / at_once)
    tests += images.classes * math.ceil(m / max(images.classes, 1) / at_once)
    steps = spec.epochs * math.ceil(n / spec.batch_size)
    name = f"{trained} × {victim.name}"
    if spec.pretrain_epochs:
        before = trained * spec.pretrain_epochs * math.ceil(n / spec.batch_size)
        yield Stage(f"pretrain {name}", True, before, "steps", f"pretrain {victim.name}")
    yield Stage(f"train {name}", True, trained * steps, "steps", f"train {victim.name}")
    yield Stage(f"test {name}", True, trained * tests, "steps", f"test {victim.name}")
