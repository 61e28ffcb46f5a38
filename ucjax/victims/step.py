"""What a victim computes on the devices: its recipe, state, training step and test."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding

from ucjax.data import augment
from ucjax.runtime import parallel
from ucjax.victims.models.resnet import ResNet18

MODELS: dict[str, Callable[..., nn.Module]] = {"resnet18": ResNet18}


@dataclasses.dataclass(frozen=True)
class VictimSpec:
    """What is trained and how.

    Attributes:
      model: A key of `MODELS`.
      width: Channels of the model's first stage.
      epochs: Passes over the training images.
      batch_size: Images a step, over all devices and processes.
      learning_rate: Of the first step; falls to 0 along a half cosine, step by step.
      momentum: Of SGD, without dampening.
      weight_decay: L2, added to the gradient of every parameter (BatchNorm and biases too).
      short_side: Pixels to which the images' short side has been resized.
      crop: Pixels of the square crop, random in training and central in testing.
      mean: Subtracted from the pixels, which lie in [0, 1].
      std: Divides the difference.
      flip: Whether training images are mirrored with probability 1/2.
    """

    model: str
    width: int
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    short_side: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool


class State(NamedTuple):
    """All that a step changes; equal on every device."""

    step: jax.Array  # shape=(), dtype=jnp.int32.
    params: Any
    batch_stats: Any
    momentum: Any  # like params


class Programs(NamedTuple):
    """The compiled functions of a victim; arrays of images and labels lie over the devices."""

    init: Callable[..., State]  # seed u32 []
    # state, images u8 [b, crop, crop, 3], labels i32 [b], seed u32 [] -> state, (loss, accuracy)
    step: Callable[..., tuple[State, tuple[jax.Array, jax.Array]]]
    # state, images u8 [b, crop, crop, 3], labels i32 [b], mask f32 [b] -> number correct
    test: Callable[..., jax.Array]


def make_programs(spec: VictimSpec, num_classes: int, total_steps: int, mesh: Mesh) -> Programs:
    """Builds a victim's functions; the cosine schedule ends after `total_steps`."""
    net = MODELS[spec.model](num_classes, spec.width, axis_name=parallel.AXIS)
    schedule = optax.cosine_decay_schedule(spec.learning_rate, total_steps)
    init = functools.partial(_init, net=net, crop=spec.crop)
    step = functools.partial(_step, net=net, spec=spec, schedule=schedule)
    test = functools.partial(_count_correct, net=net, spec=spec)
    whole, split = parallel.REPLICATED, parallel.SHARDED
    return Programs(
        jax.jit(init, out_shardings=NamedSharding(mesh, whole)),
        parallel.pmap(
            step, mesh=mesh, in_specs=(whole, split, split, whole), out_specs=whole,
            donate_argnums=(0,),
        ),
        parallel.pmap(test, mesh=mesh, in_specs=(whole, split, split, split), out_specs=whole),
    )  # fmt: skip


# The victims of a run differ only in images and seed: they share one compilation.
compile_victim = functools.lru_cache(maxsize=4)(make_programs)


def _init(seed: jax.Array, *, net: nn.Module, crop: int) -> State:
    # Threefry's twenty draws of different shapes would take 10 s to compile on a CPU.
    key = jax.random.key(seed, impl="rbg")
    variables = net.init(key, jnp.zeros((1, crop, crop, 3)), train=False)
    momentum = jax.tree.map(jnp.zeros_like, variables["params"])
    return State(jnp.int32(0), variables["params"], variables["batch_stats"], momentum)


def _step(
    state: State, images: jax.Array, labels: jax.Array, seed: jax.Array,
    *, net: nn.Module, spec: VictimSpec, schedule: optax.Schedule,
) -> tuple[State, tuple[jax.Array, jax.Array]]:  # fmt: skip
    if spec.flip:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        images = augment.random_flip(key, images)

    def loss_of(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        pixels = _normalize(images, spec)
        logits, updates = net.apply(variables, pixels, train=True, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == labels)
        return jnp.mean(losses), (accuracy, updates["batch_stats"])

    (loss, (accuracy, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    grads, loss, accuracy = lax.pmean((grads, loss, accuracy), parallel.AXIS)
    rate = schedule(state.step)
    momentum = jax.tree.map(
        lambda m, g, p: spec.momentum * m + (g + spec.weight_decay * p),
        state.momentum, grads, state.params,
    )  # fmt: skip
    params = jax.tree.map(lambda p, m: p - rate * m, state.params, momentum)
    return State(state.step + 1, params, batch_stats, momentum), (loss, accuracy)


def _count_correct(
    state: State, images: jax.Array, labels: jax.Array, mask: jax.Array,
    *, net: nn.Module, spec: VictimSpec,
) -> jax.Array:  # fmt: skip
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits: Any = net.apply(variables, _normalize(images, spec), train=False)
    correct = jnp.argmax(logits, -1) == labels
    return lax.psum(jnp.sum(correct * mask), parallel.AXIS)


def _normalize(images: jax.Array, spec: VictimSpec) -> jax.Array:
    mean, std = (jnp.array(value).reshape(1, 1, 1, 3) for value in (spec.mean, spec.std))
    return (augment.to_float(images) - mean) / std
