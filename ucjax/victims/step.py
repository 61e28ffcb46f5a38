"""What a victim computes on the devices: its state, training step and test."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding

from ucjax.data import augment
from ucjax.runtime import parallel
from ucjax.victims.contract import Forward, Model, Recipe, VictimSpec
from ucjax.victims.table import MODELS, RECIPES

# Tells the keys drawn from `fold_in(key(seed), step)`, which itself decides the flips.
_DROPOUT, _LOSS, _RECIPES = 1, 2, 3


class State(NamedTuple):
    """All that a step changes; equal on every device."""

    step: jax.Array  # shape=(), dtype=jnp.int32.
    params: Any
    batch_stats: Any  # {} for models without
    opt_state: Any


class Programs(NamedTuple):
    """The compiled functions of a victim; arrays of images and labels lie over the devices."""

    init: Callable[..., State]  # seed u32 []
    # state, images u8 [b, crop, crop, 3], labels i32 [b], seed u32 [] -> state, (loss, accuracy)
    step: Callable[..., tuple[State, tuple[jax.Array, jax.Array]]]
    # state, images u8 [b, crop, crop, 3], labels i32 [b], mask f32 [b] -> number correct
    test: Callable[..., jax.Array]


class Network(NamedTuple):
    """What a victim's functions are built from."""

    net: nn.Module
    spec: VictimSpec
    num_classes: int
    optimizer: optax.GradientTransformation
    trainable: Callable[[tuple[str, ...]], bool] | None


def make_programs(spec: VictimSpec, num_classes: int, total_steps: int, mesh: Mesh) -> Programs:
    """Builds a victim's functions; the cosine schedule ends after `total_steps`."""
    model = MODELS[spec.model]
    network = make_network(model, spec, num_classes, total_steps)
    step = functools.partial(train_step, network=network, recipes=_recipes(spec))
    test = functools.partial(count_correct, network=network)
    whole, split = parallel.REPLICATED, parallel.SHARDED
    return Programs(
        _make_init(model, network, mesh),
        parallel.pmap(
            step, mesh=mesh, in_specs=(whole, split, split, whole), out_specs=whole,
            donate_argnums=(0,),
        ),
        parallel.pmap(test, mesh=mesh, in_specs=(whole, split, split, split), out_specs=whole),
    )  # fmt: skip


# The victims of a run differ only in images and seed: they share one compilation.
compile_victim = functools.lru_cache(maxsize=16)(make_programs)


@functools.lru_cache(maxsize=4)
def compile_stack(
    spec: VictimSpec, num_classes: int, total_steps: int, mesh: Mesh, cells: int
) -> Callable[..., tuple[tuple[State, ...], tuple[tuple[jax.Array, jax.Array], ...]]]:
    """Returns the step of several victims at once, one for each entry of its tuples.

    Its arguments and results are those of `Programs.step`, in tuples. One victim takes exactly
    that step. Several take theirs as one program of larger operations, which fill a device that a
    small victim leaves idle; on a CPU they are slower (benchmarks/together.py).
    """
    if cells == 1:
        alone = compile_victim(spec, num_classes, total_steps, mesh).step

        def step_of_one(*arguments: tuple[Any, ...]) -> Any:
            state, values = alone(*(value for (value,) in arguments))
            return (state,), (values,)

        return step_of_one
    network = make_network(MODELS[spec.model], spec, num_classes, total_steps)
    one = functools.partial(train_step, network=network, recipes=_recipes(spec))

    def step(*arguments: tuple[Any, ...]) -> Any:
        # States stay apart outside of the step: tests and checkpoints are each victim's own.
        stacked = (jax.tree.map(lambda *x: jnp.stack(x), *values) for values in arguments)
        results = jax.vmap(one)(*stacked)
        apart = [jax.tree.map(lambda x, i=i: x[i], results) for i in range(cells)]
        return tuple(zip(*apart, strict=True))

    whole, split = parallel.REPLICATED, parallel.SHARDED
    return parallel.pmap(
        step, mesh=mesh, in_specs=(whole, split, split, whole), out_specs=whole,
        donate_argnums=(0,),
    )  # fmt: skip


def make_network(model: Model, spec: VictimSpec, num_classes: int, total_steps: int) -> Network:
    """Puts together what does not depend on the devices."""
    optimizer = make_optimizer(spec, total_steps)
    if (trainable := model.trainable) is not None:
        kinds = functools.partial(
            jax.tree_util.tree_map_with_path,
            lambda path, _: "trained" if trainable(_names(path)) else "frozen",
        )
        optimizers = {"trained": optimizer, "frozen": optax.set_to_zero()}
        optimizer = optax.partition(optimizers, kinds)
    net = model.make(num_classes, spec.width)
    return Network(net, spec, num_classes, optimizer, model.trainable)


def make_optimizer(spec: VictimSpec, total_steps: int) -> optax.GradientTransformation:
    """Returns SGD as torch's, with L2 decay, or AdamW, whose rate ends after `total_steps`."""
    rate = learning_rate(spec, total_steps)
    if spec.optimizer == "adamw":
        optimizer = optax.adamw(rate, weight_decay=spec.weight_decay)
    else:
        decay = optax.add_decayed_weights(spec.weight_decay)
        optimizer = optax.chain(decay, optax.sgd(rate, spec.momentum))
    if not spec.clip_norm:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(spec.clip_norm), optimizer)


def learning_rate(spec: VictimSpec, total_steps: int) -> optax.Schedule:
    """Returns the rate of each step: linear up over the warm-up, then half a cosine down."""
    warmup = spec.warmup_epochs * total_steps // spec.epochs
    cosine = optax.cosine_decay_schedule(
        spec.learning_rate, total_steps - warmup, spec.final_learning_rate / spec.learning_rate
    )
    if not warmup:
        return cosine
    # The first step has a rate, unlike with optax's own warm-up.
    rising = optax.linear_schedule(
        spec.learning_rate / warmup, spec.learning_rate, max(warmup - 1, 1)
    )
    return optax.join_schedules([rising, cosine], [warmup])


def _make_init(model: Model, network: Network, mesh: Mesh) -> Callable[..., State]:
    place = NamedSharding(mesh, parallel.REPLICATED)
    draw = jax.jit(functools.partial(_draw, network=network), out_shardings=place)
    begin = jax.jit(functools.partial(_begin, network=network), out_shardings=place)
    if (start := model.start) is None:
        init = functools.partial(_init, network=network)
        return jax.jit(init, out_shardings=place)

    def init_from_weights(seed: jax.Array) -> State:
        # Compiled into a program, megabytes of weights would be constants of it.
        return begin(parallel.replicate(start(parallel.to_host(draw(seed))), mesh))

    return init_from_weights


def _init(seed: jax.Array, *, network: Network) -> State:
    return _begin(_draw(seed, network=network), network=network)


def _draw(seed: jax.Array, *, network: Network) -> Any:
    # Threefry's twenty draws of different shapes would take 10 s to compile on a CPU.
    key = jax.random.key(seed, impl="rbg")
    crop = network.spec.crop
    return network.net.init(key, jnp.zeros((1, crop, crop, 3)), train=False)


def _begin(variables: Any, *, network: Network) -> State:
    params = variables["params"]
    stats = variables.get("batch_stats", {})
    return State(jnp.int32(0), params, stats, network.optimizer.init(params))


def train_step(
    state: State, images: jax.Array, labels: jax.Array, seed: jax.Array,
    *, network: Network, recipes: tuple[Recipe, ...],
) -> tuple[State, tuple[jax.Array, jax.Array]]:  # fmt: skip
    """Takes one step on this device's share of the batch, in `parallel.pmap`."""
    spec = network.spec
    chex.assert_shape(images, (len(labels), spec.crop, spec.crop, 3))
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    if spec.flip:
        images = augment.random_flip(key, images)
    pixels, targets = augment.to_float(images), jax.nn.one_hot(labels, network.num_classes)
    for i, recipe in enumerate(recipes):
        if recipe.batch is not None:
            changed = recipe.batch(jax.random.fold_in(key, _RECIPES + i), pixels, targets)
            chex.assert_equal_shape([pixels, changed[0]])
            chex.assert_equal_shape([targets, changed[1]])
            pixels, targets = changed
    loss_function = next((r.loss for r in recipes if r.loss), cross_entropy)
    # An image's label after mixing is the one with most weight.
    label = jnp.argmax(targets, -1)

    def loss_of(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        forward = _forward(network, _without_frozen(params, network), state.batch_stats, key)
        loss, logits, stats = loss_function(
            forward, pixels, targets, jax.random.fold_in(key, _LOSS)
        )
        chex.assert_shape(loss, ())
        return loss, (jnp.mean(jnp.argmax(logits, -1) == label), stats)

    (loss, (accuracy, stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    grads, loss, accuracy = lax.pmean((grads, loss, accuracy), parallel.AXIS)
    updates, opt_state = network.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return State(state.step + 1, params, stats, opt_state), (loss, accuracy)


def cross_entropy(
    forward: Forward, images: jax.Array, targets: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, Any]:
    """The loss of victims whose recipes have none: of soft targets `[b, c]`, mean over images."""
    del key
    logits, stats = forward(images, train=True)
    return jnp.mean(optax.softmax_cross_entropy(logits, targets)), logits, stats


def count_correct(
    state: State, images: jax.Array, labels: jax.Array, mask: jax.Array, *, network: Network
) -> jax.Array:
    """Returns how many images of all devices' are classified as labelled, where `mask` is 1."""
    forward = _forward(network, state.params, state.batch_stats, key=None)
    logits, _ = forward(augment.to_float(images), train=False)
    correct = jnp.argmax(logits, -1) == labels
    return lax.psum(jnp.sum(correct * mask), parallel.AXIS)


def _forward(network: Network, params: Any, batch_stats: Any, key: jax.Array | None) -> Forward:
    spec = network.spec
    variables = {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})
    mean, std = (jnp.array(value).reshape(1, 1, 1, 3) for value in (spec.mean, spec.std))

    def forward(images: jax.Array, train: bool) -> tuple[jax.Array, Any]:
        pixels: Any = (images - mean) / std
        if not train:
            # What a recipe asks of the network as it is must not be differentiated a second time.
            fixed = lax.stop_gradient(variables)
            tested: Any = network.net.apply(fixed, pixels, train=False)
            return tested, batch_stats
        assert key is not None
        found: Any = network.net.apply(
            variables, pixels, train=True, mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(key, _DROPOUT)},
        )  # fmt: skip
        logits, updates = found
        return logits, updates.get("batch_stats", batch_stats)

    return forward


def _without_frozen(params: Any, network: Network) -> Any:
    """Cuts the gradient of frozen weights, so that nothing is computed for it."""
    if (trainable := network.trainable) is None:
        return params
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x if trainable(_names(path)) else lax.stop_gradient(x), params
    )


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(key.key for key in path)


def _recipes(spec: VictimSpec) -> tuple[Recipe, ...]:
    return tuple(RECIPES[name] for name in spec.recipes)
