"""The row `deepconfuse`: a generator of noise, trained so that who learns from it learns nothing.

Learning to Confuse (Feng et al., NeurIPS 2019). In the original 1000 trials of 20 epochs, days of
a GPU; here as many as the options say. A protection has no test images: of the generators, the one
is kept whose classifier does worst on the clean images themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding

from ucjax.data import augment
from ucjax.data.feed import Feed
from ucjax.errors import UserError
from ucjax.networks import confusing
from ucjax.protections import crafting, int8, labels
from ucjax.protections.contract import Given
from ucjax.protections.crafting import cross_entropy
from ucjax.protections.noise import Noise
from ucjax.runtime import parallel
from ucjax.runtime.parallel import AXIS, REPLICATED, SHARDED
from ucjax.surrogates.features import step_size

OPTIONS = {
    **labels.OPTION,
    **crafting.OPTIONS,
    "trials": 30,  # classifiers, each trained from scratch; 1000 in the paper
    "epochs": 5,  # of a classifier; 20 in the paper, 5 at 224 pixels
    "batch": 0,  # 0: the paper's, 256 up to 64 pixels, else 32
}
_LARGE = 64  # pixels up to which images have the networks for small ones
_RATE = 0.01  # of the classifiers, without momentum


class Generator(NamedTuple):
    """Weights and running statistics."""

    params: Any
    stats: Any


class State(NamedTuple):
    """What the trials change; `worst` is the least accuracy, that of `kept`."""

    target: Generator
    optimizer: Any
    attack: Generator
    kept: Generator
    worst: jax.Array


class Networks(NamedTuple):
    """Both networks of a size of images, and what trains the generator."""

    generator: Any
    classifier: Any
    optimizer: optax.GradientTransformation
    epsilon: float


def fit(given: Given) -> Noise:
    """Trains the generator and lets it make each image's noise, or reads the noise.

    Raises:
      UserError: impossible settings, or no labels.
    """
    options, path, crop = given.options, given.folder / int8.NOISE, given.config.data.crop
    own, classes = labels.labels_of(given)
    for key in ("trials", "epochs", "width"):
        if options[key] < 1:
            raise UserError(f"{key} of row deepconfuse is {options[key]}: give at least 1")
    networks = networks_of(classes, crop, options["width"], int8.budget(given))
    batch = options["batch"] or (256 if crop <= _LARGE else 32)
    size = step_size(len(own), crafting.checked_batch(batch), given.mesh)
    feed = Feed(given.images, crop, mesh=given.mesh, budget_bytes=given.budget_bytes)
    if not parallel.agree(path.exists()):
        trained = train(given, networks, own, feed, size)
        program = _make_noise(networks, given.mesh)

        def make(indices: np.ndarray) -> np.ndarray:
            crops = feed.center_crops(parallel.pad(indices, size)[0])
            return parallel.to_host(program(trained.kept, crops))[: len(indices)]

        int8.fill(path, len(own), crop, size, make)
    # A batch passes the classifier to look ahead, with what is learnt there, and to train it.
    passes = 3 * options["trials"] * options["epochs"] * len(own) + len(own)
    return int8.noise(path, given, passes)


def networks_of(classes: int, crop: int, width: int, epsilon_255: int) -> Networks:
    """Returns the networks for images of a size.

    Raises:
      UserError: the generator cannot halve it as often as it has to.
    """
    small = crop <= _LARGE
    if crop % (8 if small else 16):
        raise UserError(
            f"the crop of {crop} px is no multiple of {8 if small else 16}, which row deepconfuse "
            "needs: choose another config.data.crop"
        )

    def scaled(features: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(f and max(f * width // 64, 1) for f in features)

    generator: Any = confusing.UNet(width, AXIS)
    classifier = confusing.Stacked(classes, scaled(confusing.VGG11), 1, AXIS)
    optimizer = optax.adam(1e-4)
    if not small:
        generator = confusing.Autoencoder(max(width // 4, 1), AXIS)
        classifier = confusing.Stacked(classes, scaled(confusing.FIVE), 7, AXIS)
        optimizer = optax.amsgrad(1e-3)
    return Networks(generator, classifier, optimizer, epsilon_255 / 255)


def train(given: Given, networks: Networks, own: np.ndarray, feed: Feed, size: int) -> State:
    """Runs the trials that `given.folder` does not hold already."""
    options, mesh, n = given.options, given.mesh, len(own)
    path = Path(given.folder / "trials.safetensors")
    begin, fresh = _make_init(networks, given.config.data.crop, mesh)
    step, count = make_step(networks, mesh), _make_count(networks, mesh)
    state, done = crafting.restore(
        path, begin(parallel.replicate(np.uint32(given.seed), mesh)), mesh
    )
    steps = -(-n // size)
    images = options["epochs"] * steps * size  # that a trial sees
    bar = given.progress("trials", options["trials"] * images, done=done * images)
    for trial in range(done, options["trials"]):
        numbers = parallel.replicate(np.array([given.seed, trial], np.uint32), mesh)
        classifier, learning = fresh(numbers), (state.target, state.optimizer)
        for epoch in range(options["epochs"]):
            order = np.random.default_rng((given.seed, trial, epoch)).permutation(n)
            for number, chosen in enumerate(np.resize(order, (steps, size)), start=1):
                crops, rows = feed.center_crops(chosen), parallel.shard(own[chosen], mesh)
                learning, classifier, loss = step(learning, state.attack, classifier, crops, rows)
                jax.block_until_ready(loss)
                bar.update(trial * images + (epoch * steps + number) * size)
        right = _accuracy(count, classifier, own, feed, size, mesh)
        better = right < float(parallel.to_host(state.worst))
        kept = state.attack if better else state.kept
        worst = parallel.replicate(np.float32(right), mesh) if better else state.worst
        state = State(*learning, attack=learning[0], kept=kept, worst=worst)
        crafting.save(path, state, trial + 1)
        value = float(parallel.to_host(loss))
        if not np.isfinite(value):
            raise UserError(f"the generator of row deepconfuse diverged in trial {trial + 1}")
        given.metrics.write("deepconfuse", trial + 1, loss=value, accuracy=right)
        bar.update((trial + 1) * images, accuracy=right)
    bar.close(options["trials"] * images)
    return state


def make_step(networks: Networks, mesh: Mesh) -> Callable[..., Any]:
    """Returns `step((target, optimizer), attack, classifier, crops u8, labels)`.

    It gives the first and the third anew, and the loss of clean images after the look ahead.
    """

    def step(
        learning: tuple[Generator, Any], attack: Generator, classifier: Generator,
        crops: jax.Array, own: jax.Array,
    ) -> Any:  # fmt: skip
        (target, opt_state), pixels = learning, augment.to_float(crops)

        def harm(params: Any) -> tuple[jax.Array, Any]:
            noise, stats = _apply(networks.generator, params, target.stats, pixels)
            shown = jnp.clip(pixels + networks.epsilon * noise, 0, 1)
            gradient, _ = _gradient(networks, classifier, shown, own)
            ahead = jax.tree.map(lambda w, g: w - _RATE * g, classifier.params, gradient)
            logits, _ = _apply(networks.classifier, ahead, classifier.stats, pixels)
            return -cross_entropy(logits, own).mean(), stats

        (loss, stats), gradient = jax.value_and_grad(harm, has_aux=True)(target.params)
        gradient, loss = lax.pmean((gradient, loss), AXIS)
        updates, opt_state = networks.optimizer.update(gradient, opt_state, target.params)
        target = Generator(optax.apply_updates(target.params, updates), stats)
        shown = jnp.clip(
            pixels + networks.epsilon * _frozen(networks.generator, attack, pixels), 0, 1
        )
        gradient, stats = _gradient(networks, classifier, shown, own)
        moved = jax.tree.map(lambda w, g: w - _RATE * g, classifier.params, gradient)
        return (target, opt_state), Generator(moved, stats), -loss

    return parallel.pmap(
        step, mesh=mesh, in_specs=(REPLICATED, REPLICATED, REPLICATED, SHARDED, SHARDED),
        out_specs=REPLICATED,
    )  # fmt: skip


def _gradient(
    networks: Networks, classifier: Generator, pixels: jax.Array, own: jax.Array
) -> tuple[Any, Any]:
    """Returns the gradient of the whole batch's loss in the classifier, and new statistics."""

    def loss(params: Any) -> tuple[jax.Array, Any]:
        logits, stats = _apply(networks.classifier, params, classifier.stats, pixels)
        return cross_entropy(logits, own).mean(), stats

    gradient, stats = jax.grad(loss, has_aux=True)(classifier.params)
    return lax.pmean(gradient, AXIS), stats


def _apply(net: Any, params: Any, stats: Any, pixels: jax.Array) -> tuple[jax.Array, Any]:
    variables = {"params": params, "batch_stats": stats}
    found, updates = net.apply(variables, pixels, train=True, mutable=["batch_stats"])
    return found, updates["batch_stats"]


def _frozen(net: Any, of: Generator, pixels: jax.Array) -> jax.Array:
    return net.apply({"params": of.params, "batch_stats": of.stats}, pixels, train=False)


def _make_init(networks: Networks, crop: int, mesh: Mesh) -> tuple[Any, Any]:
    """Returns programs that draw the first state of a seed, and a classifier of two numbers."""
    image, place = jnp.zeros((1, crop, crop, 3)), NamedSharding(mesh, REPLICATED)

    def draw(net: Any, key: jax.Array) -> Generator:
        variables = net.init(key, image, train=False)
        return Generator(variables["params"], variables["batch_stats"])

    def begin(seed: jax.Array) -> State:
        drawn = draw(networks.generator, jax.random.key(seed, impl="rbg"))
        return State(
            drawn, networks.optimizer.init(drawn.params), drawn, drawn, jnp.float32(jnp.inf)
        )

    def fresh(numbers: jax.Array) -> Generator:
        key = jax.random.fold_in(jax.random.key(numbers[0], impl="rbg"), 1 + numbers[1])
        return draw(networks.classifier, key)

    return jax.jit(begin, out_shardings=place), jax.jit(fresh, out_shardings=place)


def _make_count(networks: Networks, mesh: Mesh) -> Callable[..., jax.Array]:
    def count(
        classifier: Generator, crops: jax.Array, own: jax.Array, mask: jax.Array
    ) -> jax.Array:
        logits = _frozen(networks.classifier, classifier, augment.to_float(crops))
        return lax.psum(((logits.argmax(1) == own) * mask).sum(), AXIS)

    return parallel.pmap(
        count, mesh=mesh, in_specs=(REPLICATED, SHARDED, SHARDED, SHARDED), out_specs=REPLICATED
    )


def _accuracy(
    count: Callable[..., jax.Array], classifier: Generator, own: np.ndarray, feed: Feed,
    size: int, mesh: Mesh,
) -> float:  # fmt: skip
    """Returns the share of the clean images that a classifier tells rightly."""
    right = []
    padded, mask = parallel.pad(np.arange(len(own)), size)
    for start in range(0, len(padded), size):
        chosen = padded[start : start + size]
        rows = parallel.shard((own[chosen], mask[start : start + size]), mesh)
        right.append(count(classifier, feed.center_crops(chosen), *rows))
    return float(sum(parallel.to_host(right))) / len(own)


def _make_noise(networks: Networks, mesh: Mesh) -> Callable[..., jax.Array]:
    def make(generator: Generator, crops: jax.Array) -> jax.Array:
        pixels = augment.to_float(crops)
        noise = networks.epsilon * _frozen(networks.generator, generator, pixels)
        return jnp.rint(255 * jnp.clip(noise, -pixels, 1 - pixels)).astype(jnp.int8)

    return parallel.pmap(make, mesh=mesh, in_specs=(REPLICATED, SHARDED), out_specs=SHARDED)
