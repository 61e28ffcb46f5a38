"""The row `tap` (AdvPoison): adversarial examples of the next class, against a network of its own.

Adversarial Examples Make Strong Poisons (Fowl et al., arXiv:2106.10807).
"""

from __future__ import annotations

import numpy as np
import optax

from ucjax.protections import augmentations, crafting, int8, labels, pgd
from ucjax.protections.augmentations import Augmentation
from ucjax.protections.contract import Given
from ucjax.protections.crafting import Network
from ucjax.protections.noise import Noise
from ucjax.runtime import parallel

OPTIONS = {
    **labels.OPTION,
    **crafting.OPTIONS,
    "epochs": 40,  # of the network, on clean images
    "steps": 250,
    "restarts": 1,  # 8 in the paper; each image keeps the noise of the least loss
    "batch": 128,
}
_DECAYS = (2.667, 1.6, 1.142)  # the rate falls tenfold after these parts of the epochs
# Images an attack takes at once, of which the noise does not depend.
_AT_ONCE = 512


def fit(given: Given) -> Noise:
    """Trains the network on clean images, then each image's noise; or reads it.

    Raises:
      UserError: impossible settings, or no labels.
    """
    options = given.options
    own, classes = labels.labels_of(given)
    network = crafting.resnet18(classes, given.config.data.crop, options["width"])
    steps = crafting.steps_of_epoch(len(own), options["batch"], given.mesh)
    decays = {int(options["epochs"] / part) * steps: 0.1 for part in _DECAYS}
    rate = optax.piecewise_constant_schedule(0.1, decays)
    attack = pgd.Attack(int8.budget(given), options["steps"], 0.05, "gauss")
    return targeted(
        given, own, classes, network, crafting.sgd(rate, 5e-4, nesterov=True),
        augmentations.shifted, attack, restarts=options["restarts"],
    )  # fmt: skip


def targeted(
    given: Given,
    own: np.ndarray,
    classes: int,
    network: Network,
    optimizer: optax.GradientTransformation,
    augmentation: Augmentation,
    attack: pgd.Attack,
    *,
    restarts: int = 1,
) -> Noise:
    """Makes a network take each image for the class after its own.

    Args:
      given: its options have "epochs" and "batch" of the network.
      own: the images' labels, int32 `[n]`.
      classes: how many.
      network: trained first, on clean images.
      optimizer: of the network.
      augmentation: of both the network's images and the attack's.
      attack: steps and budget.
      restarts: see `pgd.craft`.
    """
    path, options = given.folder / int8.NOISE, given.options
    if not parallel.agree(path.exists()):
        state = crafting.train_clean(
            given, own, network, optimizer, augmentation,
            batch=options["batch"], epochs=options["epochs"],
        )  # fmt: skip
        program = pgd.make_pgd(pgd.loss_of(network, augmentation), attack, given.mesh)
        pgd.craft(
            given, path, program, pgd.frozen(state), ((own + 1) % classes).astype(np.int32),
            batch=_AT_ONCE, noise=crafting.clean(given), restarts=restarts,
        )  # fmt: skip
    return int8.noise(path, given, (options["epochs"] + restarts * attack.steps) * len(own))
