"""The networks that baselines train themselves: steps, epochs and passes over all images.

All see the centre crops that noise is made on, in pixels of [0, 1], plus the noise so far; what
is random is drawn for the whole batch (`data.augment`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding

from ucjax.data.feed import Feed
from ucjax.errors import UserError
from ucjax.networks.resnet import ResNet18
from ucjax.protections.augmentations import Augmentation
from ucjax.protections.contract import Given
from ucjax.runtime import checkpoint, parallel
from ucjax.runtime.parallel import AXIS, REPLICATED, SHARDED
from ucjax.surrogates.features import step_size

OPTIONS = {"width": 64}  # of ResNet-18; 64 is the published network
_SECONDS_BETWEEN_CHECKPOINTS = 60
_SMALL = 32  # pixels up to which a network has no stride in its stem


class State(NamedTuple):
    """What training changes."""

    step: jax.Array  # int32 [], batches seen
    params: Any
    stats: Any  # running statistics of BatchNorm, {} without
    optimizer: Any


@dataclass(frozen=True)
class Network:
    """A classifier of pixels.

    Attributes:
      net: `apply(variables, images [b, s, s, 3], train=bool) -> logits [b, c]`.
      mean: taken from every pixel first.
      std: divides it then.
    """

    net: nn.Module
    mean: float = 0.5
    std: float = 0.5

    def logits(self, params: Any, stats: Any, pixels: jax.Array) -> jax.Array:
        """Returns logits `[b, c]` of pixels in [0, 1] by running statistics."""
        variables = {"params": params, "batch_stats": stats} if stats else {"params": params}
        found: Any = self.net.apply(variables, (pixels - self.mean) / self.std, train=False)
        return found

    def train(self, params: Any, stats: Any, pixels: jax.Array) -> tuple[jax.Array, Any]:
        """Returns logits by the batch's statistics, and the new running ones."""
        if not stats:
            return self.logits(params, stats, pixels), stats
        variables = {"params": params, "batch_stats": stats}
        found: Any = self.net.apply(
            variables, (pixels - self.mean) / self.std, train=True, mutable=["batch_stats"]
        )
        logits, updates = found
        return logits, updates["batch_stats"]


def resnet18(classes: int, crop: int, width: int) -> Network:
    """Returns ResNet-18 with the stem that fits the images' size.

    Raises:
      UserError: no width.
    """
    if width < 1:
        raise UserError(f"width of a row is {width}: give at least 1 (64 is ResNet-18's)")
    return Network(ResNet18(classes, width, AXIS, small=crop <= _SMALL))


def sgd(
    rate: optax.ScalarOrSchedule,
    weight_decay: float,
    *,
    momentum: float | None = 0.9,
    nesterov: bool = False,
    norm: float | None = None,
) -> optax.GradientTransformation:
    """Returns SGD as torch's: the gradient, clipped to `norm` if given, plus L2 decay."""
    clip = optax.identity() if norm is None else optax.clip_by_global_norm(norm)
    decay = optax.add_decayed_weights(weight_decay)
    return optax.chain(clip, decay, optax.sgd(rate, momentum, nesterov))


def begin(
    network: Network, optimizer: optax.GradientTransformation, crop: int, seed: int, mesh: Mesh
) -> State:
    """Returns the state before training, on all devices."""

    def draw(seed: jax.Array) -> State:
        # Threefry's draws of many shapes would take seconds to compile on a CPU.
        key = jax.random.key(seed, impl="rbg")
        variables: Any = network.net.init(key, jnp.zeros((1, crop, crop, 3)), train=False)
        params = variables["params"]
        stats = variables.get("batch_stats", {})
        return State(jnp.int32(0), params, stats, optimizer.init(params))

    place = NamedSharding(mesh, REPLICATED)
    return jax.jit(draw, out_shardings=place)(parallel.replicate(np.uint32(seed), mesh))


def make_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    augmentation: Augmentation,
    mesh: Mesh,
) -> Callable[..., tuple[State, jax.Array]]:
    """Returns `step(state, crops u8, noise i8 [b, s, s, 3], labels [b], seed) -> (state, record)`.

    `record` `[2]` holds the mean loss and accuracy of the batch.
    """

    def step(
        state: State, crops: jax.Array, noise: jax.Array, labels: jax.Array, seed: jax.Array
    ) -> tuple[State, jax.Array]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        pixels = augmentation(key, noisy(crops, noise))

        def loss_of(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            logits, stats = network.train(params, state.stats, pixels)
            loss = cross_entropy(logits, labels).mean()
            return loss, ((logits.argmax(1) == labels).mean(), stats)

        (loss, (accuracy, stats)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            state.params
        )
        gradient, record = lax.pmean((gradient, jnp.stack([loss, accuracy])), AXIS)
        updates, opt_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(state.step + 1, params, stats, opt_state), record

    return parallel.pmap(
        step, mesh=mesh, in_specs=(REPLICATED, SHARDED, SHARDED, SHARDED, REPLICATED),
        out_specs=REPLICATED, donate_argnums=(0,),
    )  # fmt: skip


def noisy(crops: jax.Array, noise: jax.Array) -> jax.Array:
    """Returns 8-bit crops plus int8 noise as pixels, clipped to [0, 1] as files are."""
    levels = crops.astype(jnp.float32) + noise.astype(jnp.float32)
    return jnp.clip(levels, 0, 255) / 255


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the loss of each image, `[b]`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


class Batches:
    """The stream of batches that a network is trained on, and its compiled step.

    Attributes:
      batch: images a step, at most as many as there are.
      steps: steps an epoch.
    """

    def __init__(
        self, given: Given, labels: np.ndarray, batch: int, step: Callable[..., Any]
    ) -> None:
        """Places the images on the devices."""
        self.batch = step_size(len(labels), checked_batch(batch), given.mesh)
        self.steps = steps_of_epoch(len(labels), batch, given.mesh)
        self.feed = Feed(
            given.images, given.config.data.crop, mesh=given.mesh, budget_bytes=given.budget_bytes
        )
        self._given, self._labels, self._step = given, labels, step
        self._seed = parallel.replicate(np.uint32(given.seed), given.mesh)

    def train(
        self, state: State, noise: Callable[[np.ndarray], np.ndarray], first: int, count: int
    ) -> tuple[State, np.ndarray]:
        """Takes the batches `first` to `first + count` of an endless stream of epochs.

        Args:
          state: is donated.
          noise: numbers of images `[b]` -> int8 `[b, s, s, 3]`.
          first: number of the first batch.
          count: how many.

        Returns:
          The state, and the mean loss and accuracy `[2]`.

        Raises:
          UserError: a loss that is not finite.
        """
        records = []
        for number in range(first, first + count):
            chosen = self._batch(number)
            crops = self.feed.center_crops(chosen)
            rows = parallel.shard((noise(chosen), self._labels[chosen]), self._given.mesh)
            state, record = self._step(state, crops, *rows, self._seed)
            records.append(record)
            # Every queued step holds its batch in the devices' memory.
            jax.block_until_ready(records[-4:][0])
        found = np.asarray(parallel.to_host(records), np.float64)
        if not np.isfinite(found).all():
            raise UserError(
                f"the network of {self._given.folder.name} diverged near batch {first + count}: "
                "give the row another batch or width, or seed"
            )
        return state, found.mean(0)

    def _batch(self, number: int) -> np.ndarray:
        epoch, position = divmod(number, self.steps)
        order = np.random.default_rng((self._given.seed, epoch)).permutation(len(self._labels))
        return np.resize(order, (self.steps, self.batch))[position]


def clean(given: Given) -> Callable[[np.ndarray], np.ndarray]:
    """Returns `noise(numbers [b]) -> int8 [b, s, s, 3]` of 0, before there is any."""
    side = given.config.data.crop
    return lambda chosen: np.zeros((len(chosen), side, side, 3), np.int8)


def train_clean(
    given: Given,
    labels: np.ndarray,
    network: Network,
    optimizer: optax.GradientTransformation,
    augmentation: Augmentation,
    *,
    batch: int,
    epochs: int,
) -> State:
    """Returns a network trained on clean images, or the one in `given.folder`; resumes.

    Raises:
      UserError: no epochs, or a loss that is not finite.
    """
    if epochs < 1:
        raise UserError(f"epochs of a row is {epochs}: train for at least 1")
    crop, path = given.config.data.crop, given.folder / "network.safetensors"
    state = begin(network, optimizer, crop, given.seed, given.mesh)
    state, done = restore(path, state, given.mesh)
    if done == epochs:
        return state
    stream = Batches(given, labels, batch, make_step(network, optimizer, augmentation, given.mesh))
    n, saved, record = len(labels), time.monotonic(), np.zeros(2)
    bar = given.progress("crafting network", epochs * n, done=done * n)
    for epoch in range(done, epochs):
        state, record = stream.train(state, clean(given), epoch * stream.steps, stream.steps)
        given.metrics.write("crafting", epoch + 1, loss=record[0], accuracy=record[1])
        bar.update((epoch + 1) * n, loss=record[0], accuracy=record[1])
        late = time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS
        if epoch + 1 == epochs or parallel.agree(late):
            save(path, state, epoch + 1)
            saved = time.monotonic()
    bar.close(epochs * n, loss=record[0], accuracy=record[1])
    return state


def save(path: Path, state: Any, done: int) -> None:
    """Writes a state on all devices, and how much of the work it has seen."""
    host = parallel.to_host(state)
    if parallel.is_main():
        checkpoint.save_tree(path, {"state": host, "done": np.asarray(done)})
    parallel.barrier("saved")


def restore(path: Path, state: Any, mesh: Mesh) -> tuple[Any, int]:
    """Returns what `save` wrote; `state` and 0 where it did not."""
    if not parallel.agree(path.exists()):
        return state, 0
    like = {"state": parallel.to_host(state), "done": np.asarray(0)}
    saved = checkpoint.load_tree(path, like)
    return parallel.replicate(saved["state"], mesh), int(saved["done"])


def steps_of_epoch(count: int, batch: int, mesh: Mesh) -> int:
    """Returns how many batches hold `count` images, the last one being filled up."""
    return -(-count // step_size(count, checked_batch(batch), mesh))


def checked_batch(batch: int) -> int:
    """Returns the batch of a row.

    Raises:
      UserError: it is none.
    """
    if batch < 1:
        raise UserError(f"batch of a row is {batch}: give at least 1")
    return batch
