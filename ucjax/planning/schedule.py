"""How often each step of a run is taken: the pipeline's own arithmetic, without running it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax.data.images import Listing
from ucjax.errors import UserError
from ucjax.planning.steps import Images
from ucjax.surrogates import features
from ucjax.victims.training import tested_at_once

# (to protect, clean test images, classes) as TensorFlow Datasets' catalogue states them.
CATALOGUE = {
    "oxford_iiit_pet": (3680, 3669, 37),
    "cars196": (8144, 8041, 196),
    "oxford_flowers102": (2040, 6149, 102),
    "food101": (75750, 25250, 101),
    "sun397": (76128, 21750, 397),
    "cifar10": (50000, 10000, 10),
}
# A data set may have no labels yet: how many classes there are changes the victims' last layer.
_ASSUMED_CLASSES = 100


@dataclass(frozen=True)
class Stage:
    """Work of one kind: `count` times what `cost` names (a step, or a key of `FileCost`)."""

    name: str
    measures: bool  # False: needed for the protected files; True: only to measure their effect
    count: int
    unit: str  # "images" | "steps" | "iterations"
    cost: str
    at_most: bool = False


def count(config: ConfigDict, listed: Listing | None) -> Images:
    """Returns the number of images, from their listing or else from the catalogue.

    Raises:
      UserError: neither knows them.
    """
    if listed is not None:
        labelled = all(item.label >= 0 for item in listed.train)
        classes = len(listed.class_names) if labelled else 0
        return Images(len(listed.train), len(listed.test), classes, "listed")
    if config.data.name not in CATALOGUE:
        raise UserError(
            f"{config.data.name!r} is not on this machine, and how many images it has is not known "
            "here: give their number as --images=N"
        )
    origin = f"TFDS's catalogue; {config.data.name} is not on this machine"
    return Images(*CATALOGUE[config.data.name], origin)


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
    _, _, classes = CATALOGUE.get(config.data.name, (0, 0, _ASSUMED_CLASSES))
    return Images(train, test, classes, "assumed, by --images")


def schedule(config: ConfigDict, images: Images, mesh: Mesh) -> tuple[Stage, ...]:
    """Returns the pipeline's stages in their order, with how often each step of them runs."""
    noise, victim, clusters = config.noise, config.victim, config.clusters
    n, m = images.train, images.test
    embeddings = math.ceil(n / features.step_size(n, config.surrogate.batch_size, mesh))
    written = dict.fromkeys((*victim.arms, "protected"))
    stages = [
        Stage("decode", False, n + m, "images", "decode"),
        Stage("features", False, embeddings, "steps", "features"),
        Stage(
            "k-means", False, clusters.n_init * clusters.max_iterations, "iterations", "k-means",
            at_most=True,
        ),
        Stage("noise", False, noise.epochs * math.ceil(n / noise.batch_size), "steps", "noise"),
        Stage("protected files", False, n, "images", "write"),
        Stage("check of the files", False, n, "images", "check"),
        Stage("control files", True, (len(written) - 1) * n, "images", "write"),
        Stage("decode files", True, len(written) * n, "images", "reread"),
        Stage("features of files", True, len(written) * embeddings, "steps", "features"),
    ]  # fmt: skip
    if images.classes and m:
        runs = len(victim.arms) * len(victim.seeds)
        at_once = tested_at_once(m, victim.batch_size, mesh)
        # After every epoch all images, in the end class by class.
        tests = victim.epochs * math.ceil(m / at_once)
        tests += images.classes * math.ceil(m / images.classes / at_once)
        shown = config.data.short_side if config.protect.geometry == "native" else config.data.crop
        if victim.short_side != shown:
            count = len(victim.arms) * n
            stages.append(Stage("decode files for victims", True, count, "images", "reread"))
        if victim.short_side != config.data.short_side:
            stages.append(Stage("decode for victims", True, n + m, "images", "decode"))
        trained = runs * victim.epochs * math.ceil(n / victim.batch_size)
        stages += [
            Stage(f"train {runs} victims", True, trained, "steps", "victim"),
            Stage("test them", True, runs * tests, "steps", "victim test"),
        ]
    return tuple(stage for stage in stages if stage.count)
