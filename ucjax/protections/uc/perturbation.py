"""Noise images as functions of trainable parameters, always within the budget.

The paper's parametrization is a generator network per cluster; "direct" trains the
pixels themselves. Parameters of all clusters are stacked `[P, ...]` and sharded over the devices,
P being p padded to a multiple of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh

from ucjax.errors import UserError
from ucjax.protections.uc.generator import NoiseGenerator
from ucjax.runtime import parallel
from ucjax.runtime.parallel import REPLICATED, SHARDED


@dataclass(frozen=True)
class NoiseSpec:
    """How the noise is trained; those of `config.paper` are the paper's."""

    scope: str  # "cluster": a noise sees its own cluster (the paper's sum); "all": every image
    distance: str  # "kl" | "cosine" | "l2"
    bound: str  # "tanh": eps * tanh; "clamp": clip(tanh, ±eps), as published
    target: str  # "offset" | "farthest" | "permuted"
    parametrization: str  # "generator" | "direct"
    grain: int  # "direct": pixels a side of the trained cells, which a cubic spline enlarges
    norm: str  # "linf" | "rms"
    epsilon_255: int
    epochs: int
    batch_size: int
    learning_rate: float
    final_learning_rate: float
    weight_decay: float  # L2, added to the gradient as torch's Adam does
    width: int  # of the generator
    blocks: int  # residual blocks of the generator
    flip: bool
    order: str  # "shuffled" | "sequential": in the order of the images, by class where sorted
    seed: int


class NoiseState(NamedTuple):
    """What training changes, and the generators' fixed inputs."""

    params: Any  # [P, ...] a leaf, P = p padded to the devices; for "direct" the noise itself
    inputs: jax.Array  # [P, s, s, 3], z in the paper, U[0,1], fixed
    optimizer: Any


def check(spec: NoiseSpec, *, p: int, devices: int) -> None:
    """Refuses settings that cannot train, before anything is compiled.

    Raises:
      UserError: naming the key, its value and the cure.
    """
    choices = {
        "scope": ("cluster", "all"),
        "distance": ("kl", "cosine", "l2"),
        "bound": ("tanh", "clamp"),
        "target": ("offset", "farthest", "permuted"),
        "parametrization": ("generator", "direct"),
        "norm": ("linf", "rms"),
        "order": ("shuffled", "sequential"),
    }
    for key, allowed in choices.items():
        if getattr(spec, key) not in allowed:
            raise UserError(
                f"config.noise.{key} is {getattr(spec, key)!r}: choose one of {', '.join(allowed)}"
            )
    if not 1 <= spec.epsilon_255 <= 128:
        raise UserError(
            f"config.noise.epsilon_255 is {spec.epsilon_255}: the budget is a whole number of "
            "pixel levels from 1 to 128 (16 is the paper's)"
        )
    if spec.grain < 1 or (spec.grain > 1 and spec.parametrization == "generator"):
        raise UserError(
            f"config.noise.grain is {spec.grain} with parametrization {spec.parametrization!r}: a "
            "whole number of pixels, and 1 for generators, which choose their grain themselves"
        )
    if spec.batch_size % devices or spec.batch_size < 1:
        nearest = max(devices, spec.batch_size - spec.batch_size % devices)
        raise UserError(
            f"config.noise.batch_size is {spec.batch_size}, not divisible by the {devices} "
            f"devices: try {nearest}"
        )
    if spec.epochs < 1:
        raise UserError(f"config.noise.epochs is {spec.epochs}: train for at least 1")
    if p < 2:
        raise UserError(
            f"config.clusters.k is {p}: noise moves a cluster to another one's centre, which "
            "takes at least 2 clusters"
        )


def make_optimizer(spec: NoiseSpec, steps: int) -> optax.GradientTransformation:
    """Adam with L2 decay and a cosine to `final_learning_rate`, per step, as published."""
    schedule = optax.cosine_decay_schedule(
        spec.learning_rate, steps, alpha=spec.final_learning_rate / spec.learning_rate
    )
    return optax.chain(optax.add_decayed_weights(spec.weight_decay), optax.adam(schedule))


def make_render(spec: NoiseSpec) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns `render(params [P, ...], z [P, s, s, 3]) -> noise [P, s, s, 3]` within the budget.

    With norm "rms" the root mean square of a noise image is at most eps: "tanh" scales onto that
    sphere, "clamp" projects onto the ball.
    """
    eps = spec.epsilon_255 / 255
    net = NoiseGenerator(spec.width, spec.blocks)

    def generate(params: Any, z: jax.Array) -> jax.Array:
        return net.apply(params, z[None])[0]

    def render(params: Any, z: jax.Array) -> jax.Array:
        if spec.parametrization == "generator":
            raw = jax.vmap(generate)(params, z)
        else:
            pixels = jax.image.resize(params, z.shape, "cubic") if spec.grain > 1 else params
            raw = jnp.tanh(pixels) if spec.bound == "tanh" else pixels
        if spec.norm == "linf":
            return eps * raw if spec.bound == "tanh" else jnp.clip(raw, -eps, eps)
        # The epsilon keeps the gradient of the root finite at an all-zero image.
        rms = jnp.sqrt(jnp.mean(raw**2, axis=(1, 2, 3), keepdims=True) + 1e-12)
        return raw * (eps / rms if spec.bound == "tanh" else jnp.minimum(1.0, eps / rms))

    return render


def init(
    spec: NoiseSpec, optimizer: optax.GradientTransformation, *, p: int, size: int, mesh: Mesh
) -> NoiseState:
    """Creates the stacked generators where they live; generator i depends on (seed, i) only."""
    net = NoiseGenerator(spec.width, spec.blocks)

    def inputs(index: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(spec.seed), index)
        return jax.random.uniform(key, (size, size, 3))

    def generator(index_and_input: tuple[jax.Array, jax.Array]) -> Any:
        # Threefry's thirty draws of different shapes would take 20 s to compile on a CPU.
        index, z = index_and_input
        key = jax.random.fold_in(jax.random.key(spec.seed, impl="rbg"), index)
        return net.init(key, z[None])

    def born(indices: jax.Array) -> NoiseState:
        z = jax.vmap(inputs)(indices)
        if spec.parametrization == "generator":
            # One after the other, since a batch of "rbg" keys does not draw as each key alone.
            params = lax.map(generator, (indices, z))
        else:
            scale = 1.0 if spec.bound == "tanh" else spec.epsilon_255 / 255
            cells = -(-size // spec.grain)
            params = scale * (2 * z[:, :cells, :cells] - 1)
        return NoiseState(params, z, optimizer.init(params))

    indices = np.arange(p + -p % mesh.size)
    specs = state_specs(jax.eval_shape(born, indices))
    create = parallel.pmap(born, mesh=mesh, in_specs=(SHARDED,), out_specs=specs)
    return create(parallel.shard(indices, mesh))


def state_specs(state: NoiseState) -> NoiseState:
    """Everything stacked over the clusters is sharded; the optimiser's counters are not."""
    return jax.tree.map(lambda x: SHARDED if x.ndim else REPLICATED, state)
