"""The row `aap`: adversarial examples of the next class that survive contrastive augmentations.

Efficient Availability Attacks against Supervised and Contrastive Learning Simultaneously (Wang et
al., NeurIPS 2024), its adversarial half; `aue` is the other.
"""

from __future__ import annotations

import optax

from ucjax.protections import augmentations, crafting, int8, labels, pgd, tap
from ucjax.protections.contract import Given
from ucjax.protections.noise import Noise

OPTIONS = {
    **labels.OPTION,
    **crafting.OPTIONS,
    "epochs": 40,  # of the network, on clean images
    "steps": 250,  # of 2.5 budgets in all
    "strength": 0.0,  # of the augmentations; 0: 0.4 up to 10 classes, else 0.8, the paper's
    "batch": 128,
}
_WARM = 10  # epochs of rising rate, of 40


def fit(given: Given) -> Noise:
    """Trains the network on clean images, then each image's noise; or reads it.

    Raises:
      UserError: impossible settings, or no labels.
    """
    options = given.options
    own, classes = labels.labels_of(given)
    strength = augmentations.strength_of(options["strength"], classes, few=0.4, many=0.8)
    network = crafting.resnet18(classes, given.config.data.crop, options["width"])
    total = options["epochs"] * crafting.steps_of_epoch(len(own), options["batch"], given.mesh)
    warm = min(total * _WARM // 40, total - 1)
    # optax counts from 0, a rate that the first step should not have.
    rate = optax.warmup_cosine_decay_schedule(0.5 / max(warm, 1), 0.5, warm, max(total, 1))
    attack = pgd.Attack(int8.budget(given), options["steps"], 2.5 / max(options["steps"], 1))
    return tap.targeted(
        given, own, classes, network, crafting.sgd(rate, 1e-4),
        augmentations.strong(strength), attack,
    )  # fmt: skip
