"""The row `pil`: noise that a linear model of pixels can be read off from.

Perturbation-induced linearization (ICLR 2026, arXiv:2601.19967): of the cheapest, since its only
network is linear.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ucjax.protections import augmentations, crafting, int8, labels, pgd
from ucjax.protections.contract import Given
from ucjax.protections.crafting import Network
from ucjax.protections.noise import Noise

OPTIONS = {
    **labels.OPTION,
    "epochs": 30,  # of the linear model
    "steps": 30,  # of the noise
    "rate": 0.003,  # at 3072 inputs; divided by how many times more there are
    "batch": 512,
}
_INPUTS, _OWN = 3072, 0.9


class Linear(nn.Module):
    """A softmax layer without bias on flattened pixels, begun as torch does.

    Attributes:
      classes: number of logits.
    """

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits `[b, classes]` of `[b, s, s, 3]`."""
        flat = x.reshape(len(x), -1)
        begun = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        return nn.Dense(self.classes, use_bias=False, kernel_init=begun)(flat)


def fit(given: Given) -> Noise:
    """Trains the linear model on clean images, then the noise; or reads it.

    Raises:
      UserError: impossible settings, or no labels.
    """
    options, path = given.options, given.folder / int8.NOISE
    epsilon_255 = int8.budget(given)
    own, classes = labels.labels_of(given)
    network = linear(classes)
    attack = pgd.Attack(epsilon_255, options["steps"], 1 / 10, "uniform", valid=False)
    state = crafting.train_clean(
        given, own, network, optimizer(given, len(own)), augmentations.unchanged,
        batch=options["batch"], epochs=options["epochs"],
    )  # fmt: skip
    pgd.craft(
        given, path, pgd.make_pgd(loss_of(network), attack, given.mesh), state.params, own,
        batch=options["batch"], noise=crafting.clean(given), negated=True,
    )  # fmt: skip
    passes = (options["epochs"] + options["steps"]) * len(own)
    return int8.noise(path, given, passes)


def linear(classes: int) -> Network:
    """Returns the model, linear in pixels of [0, 1]."""
    return Network(Linear(classes), mean=0.0, std=1.0)


def optimizer(given: Given, n: int) -> optax.GradientTransformation:
    """Returns SGD whose rate falls by half a cosine, epoch by epoch, to 0."""
    options, inputs = given.options, 3 * given.config.data.crop**2
    steps = crafting.steps_of_epoch(n, options["batch"], given.mesh)
    rate = options["rate"] * _INPUTS / inputs

    def schedule(step: Any) -> Any:
        epoch = step // steps
        return rate * 0.5 * (1 + jnp.cos(jnp.pi * epoch / options["epochs"]))

    return crafting.sgd(schedule, 0.0)


def loss_of(network: Network) -> pgd.Loss:
    """Returns the loss: the noise shows the class, and the image without it shows none."""

    def loss(
        params: Any, crops: jax.Array, noise: jax.Array, own: jax.Array, key: jax.Array
    ) -> jax.Array:
        shown = crafting.cross_entropy(network.logits(params, {}, noise), own)
        rest = jax.nn.log_softmax(network.logits(params, {}, crops - noise))
        from_uniform = -rest.mean(1) - jnp.log(rest.shape[1])
        return _OWN * shown + (1 - _OWN) * from_uniform

    return loss
