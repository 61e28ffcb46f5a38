"""The row `aue`: error-minimizing noise that survives the augmentations of contrastive learning.

Efficient Availability Attacks against Supervised and Contrastive Learning Simultaneously (Wang et
al., NeurIPS 2024), its error-minimizing half; `aap` is the other.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ucjax import names
from ucjax.protections import augmentations, crafting, int8, labels, pgd, rounds
from ucjax.protections.contract import Given
from ucjax.protections.noise import Noise
from ucjax.protections.rounds import Crafting, Rounds

OPTIONS = {
    **labels.OPTION,
    **crafting.OPTIONS,
    "per": "image",  # "image" | "class": one noise per class
    "epochs": 60,  # each trains the network on all images, then goes over all noise
    "steps": 0,  # of an image and epoch, each a tenth of the budget; 0: 5, per class 1
    "strength": 0.0,  # of the augmentations; 0: 0.6 up to 10 classes, else 1, the paper's
    "batch": 128,
}
_RATES = 0.1, 1e-6


def fit(given: Given) -> Noise:
    """Trains noise and network in turn, both through augmentations; or reads the noise.

    Raises:
      UserError: impossible settings, or no labels.
    """
    options, crop, mesh = given.options, given.config.data.crop, given.mesh
    names.known(options["per"], rounds.PER, "per of row aue")
    own, classes = labels.labels_of(given)
    strength = augmentations.strength_of(options["strength"], classes, few=0.6, many=1.0)
    network = crafting.resnet18(classes, crop, options["width"])
    steps = crafting.steps_of_epoch(len(own), options["batch"], mesh)
    most, least = _RATES

    def rate(step: Any) -> Any:
        share = (step // steps) / options["epochs"]
        return least + (most - least) * 0.5 * (1 + jnp.cos(jnp.pi * share))

    optimizer, shared = crafting.sgd(rate, 1e-4), options["per"] == "class"
    attack = pgd.Attack(int8.budget(given), options["steps"] or (1 if shared else 5), 0.1)
    plan = Rounds(
        attack, options["batch"], options["epochs"], updates=steps,
        augmentation=augmentations.strong(strength),
    )  # fmt: skip
    start = Crafting(network, optimizer, crafting.begin(network, optimizer, crop, given.seed, mesh))
    if shared:
        return rounds.per_class(given, own, classes, plan, start)
    return rounds.per_image(given, own, plan, start)
