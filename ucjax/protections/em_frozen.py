"""The row `em_frozen`: noise that lowers, or raises, the loss of the surrogate's own classifier.

What the authors' repository holds for their baselines: no network is trained, an image's label is
what the frozen classifier calls it.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ucjax import names
from ucjax.protections import crafting, int8, labels, pgd
from ucjax.protections.contract import Given
from ucjax.protections.noise import Noise
from ucjax.runtime import parallel

OPTIONS = {
    "labels": "surrogate",  # the classes of its head, the only ones that it can tell
    "direction": "down",  # "down": error-minimizing | "up": error-maximizing
    "steps": 20,  # of 1.25 budgets in all
    "batch": 64,
}
_SIGNS = {"down": 1.0, "up": -1.0}


def fit(given: Given) -> Noise:
    """Makes each image's noise against the surrogate's classifier, or reads it.

    Raises:
      UserError: the surrogate has no classifier, or impossible settings.
    """
    options, path, n = given.options, given.folder / int8.NOISE, len(given.images)
    names.known(options["labels"], ("surrogate",), "labels of row em_frozen")
    sign = _SIGNS[names.known(options["direction"], _SIGNS, "direction of row em_frozen")]
    attack = pgd.Attack(
        int8.budget(given), options["steps"], 1.25 / max(options["steps"], 1), "positive"
    )
    if not parallel.agree(path.exists()):
        own = labels.predictions(given)
        head = given.surrogate().logits
        assert head is not None, "it gave the labels"

        def loss(
            params: Any, crops: jax.Array, noise: jax.Array, own: jax.Array, key: jax.Array
        ) -> jax.Array:
            return sign * crafting.cross_entropy(head(params, crops + noise), own)

        pgd.craft(
            given, path, pgd.make_pgd(loss, attack, given.mesh),
            parallel.replicate(given.surrogate().params, given.mesh), np.asarray(own),
            batch=crafting.checked_batch(options["batch"]), noise=crafting.clean(given),
        )  # fmt: skip
    return int8.noise(path, given, options["steps"] * n)
