"""The rows `em` (EMinN) and `emax` (EMaxN): noise that lowers or raises a network's own loss.

Unlearnable Examples (Huang et al., arXiv:2101.04898). For `em` a network is trained on noisy
images while each image's noise makes its label ever easier to tell; for `emax` on clean ones,
before the noise makes it harder.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from ucjax import names
from ucjax.errors import UserError
from ucjax.protections import augmentations, crafting, int8, labels, pgd, rounds
from ucjax.protections.contract import Given
from ucjax.protections.crafting import Network
from ucjax.protections.noise import Noise
from ucjax.protections.rounds import Crafting, Rounds

_COMMON = {
    **labels.OPTION,
    **crafting.OPTIONS,
    "per": "image",  # "image" | "class": one noise per class
    "steps": 0,  # of an image and round, each a tenth of the budget; 0: 20, per class 1
    "stop": 0.0,  # error that ends it; 0: the paper's, em 0.01 (class 0.1), emax 0.9 (class 0.8)
    "batch": 128,
}
OPTIONS = {
    **_COMMON,
    "updates": 10,  # batches a round that the network trains on
    "rounds": 100,  # at most
}
OPTIONS_MAX = {
    **_COMMON,
    "epochs": 60,  # of the network, on clean images
    "rounds": 20,  # at most
}
_SHARE = 0.2  # of the images that noise per class is made on in a round


def fit(given: Given) -> Noise:
    """Trains noise and network in turn until the network errs no more; or reads the noise.

    Raises:
      UserError: impossible settings, or no labels.
    """
    options = given.options
    if options["updates"] < 1:
        raise UserError(f"updates of row em is {options['updates']}: give at least 1")
    own, classes = labels.labels_of(given)
    network = _network(given, classes)
    optimizer = crafting.sgd(0.1, 5e-4, norm=5.0)
    plan = _plan(given, stops=(0.01, 0.1), updates=options["updates"], share=_SHARE)
    state = crafting.begin(network, optimizer, given.config.data.crop, given.seed, given.mesh)
    start = Crafting(network, optimizer, state)
    if options["per"] == "class":
        return rounds.per_class(given, own, classes, plan, start)
    return rounds.per_image(given, own, plan, start)


def fit_max(given: Given) -> Noise:
    """Trains a network on clean images, then noise until it errs on nearly all; or reads it.

    Raises:
      UserError: impossible settings, or no labels.
    """
    options = given.options
    own, classes = labels.labels_of(given)
    network, n = _network(given, classes), len(own)
    steps = crafting.steps_of_epoch(n, options["batch"], given.mesh)

    def rate(step: Any) -> Any:
        return 0.05 * (1 + jnp.cos(math.pi * (step // steps) / options["epochs"]))

    optimizer = crafting.sgd(rate, 5e-4, norm=5.0)
    plan = _plan(given, stops=(0.9, 0.8), sign=-1.0)
    state = crafting.train_clean(
        given, own, network, optimizer, augmentations.unchanged,
        batch=options["batch"], epochs=options["epochs"],
    )  # fmt: skip
    start = Crafting(network, optimizer, state)
    if options["per"] == "class":
        noise = rounds.per_class(given, own, classes, plan, start)
    else:
        noise = rounds.per_image(given, own, plan, start)
    return rounds.with_passes(noise, options["epochs"] * n)


def _network(given: Given, classes: int) -> Network:
    names.known(given.options["per"], rounds.PER, f"per of row {given.folder.name}")
    return crafting.resnet18(classes, given.config.data.crop, given.options["width"])


def _plan(given: Given, stops: tuple[float, float], **others: Any) -> Rounds:
    options, shared = given.options, given.options["per"] == "class"
    attack = pgd.Attack(int8.budget(given), options["steps"] or (1 if shared else 20), 0.1)
    stop = options["stop"] or stops[shared]
    return Rounds(attack, options["batch"], options["rounds"], stop=stop, **others)
