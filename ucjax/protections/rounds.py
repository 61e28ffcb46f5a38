"""Noise and network in turn: the loop of the rows `em`, `emax` and `aue`.

A round trains the network on some batches of noisy images, then freezes it and goes over all
images, of which each makes some steps from its present noise. The noise between rounds is that
of files, in whole levels: each round writes a map of its own, so that a killed one goes on.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh

from ucjax.errors import UserError
from ucjax.protections import crafting, int8, pgd
from ucjax.protections.augmentations import Augmentation, unchanged
from ucjax.protections.contract import Given
from ucjax.protections.crafting import Batches, Network, State
from ucjax.protections.noise import Noise, Pixels
from ucjax.runtime import checkpoint, parallel
from ucjax.runtime.parallel import AXIS, REPLICATED, SHARDED
from ucjax.runtime.progress import say

PER = ("image", "class")


@dataclass(frozen=True)
class Rounds:
    """What a round is, and when there are enough.

    Attributes:
      attack: on each image, from its present noise.
      batch: images at once, in training and attack.
      most: rounds at most.
      updates: batches a round that the network trains on; 0: it stays as it is.
      stop: the share of noisy images that the frozen network gets wrong at which it ends: at
        most that share, or at least where the loss is raised; None: after `most` rounds.
      sign: 1: the loss is lowered; -1: raised.
      augmentation: of the images in training and attack.
      share: of the images that a round goes over, where noise is per class.
    """

    attack: pgd.Attack
    batch: int
    most: int
    updates: int = 0
    stop: float | None = None
    sign: float = 1.0
    augmentation: Augmentation = unchanged
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.most < 1:
            raise UserError(f"the rounds of a row are {self.most}: give at least 1")


@dataclass(frozen=True, eq=False)
class Crafting:
    """The network of a row and what it is trained with."""

    network: Network
    optimizer: optax.GradientTransformation
    state: State


def per_image(given: Given, own: np.ndarray, rounds: Rounds, crafting_: Crafting) -> Noise:
    """Makes the noise of each image, or reads the one in `given.folder`.

    Args:
      given: images, devices, seed and folder.
      own: the images' labels, int32 `[n]`.
      rounds: see there.
      crafting_: the network to begin with; its state is not to be used again.
    """
    final, n, crop = given.folder / int8.NOISE, len(own), given.config.data.crop
    loop = _Loop(given, own, rounds, crafting_)
    if not parallel.agree(final.exists()):
        state, trained = crafting.restore(loop.checkpoint, crafting_.state, given.mesh)
        program = pgd.make_pgd(loop.loss, rounds.attack, given.mesh)
        while not loop.ended():
            number = len(loop.curve) + 1
            noise = crafting.clean(given)
            if number > 1:
                noise = int8.read(_map(given, number - 1), n, crop).__getitem__
            if trained < number and rounds.updates:
                state = loop.train(state, noise, number)
                crafting.save(loop.checkpoint, state, number)
            pgd.craft(
                given, _map(given, number), program, pgd.frozen(state), own, batch=rounds.batch,
                noise=noise, first=number, feed=loop.stream.feed, stage=f"noise, round {number}",
            )  # fmt: skip
            loop.note(state, int8.read(_map(given, number), n, crop).__getitem__)
            if parallel.is_main():
                _map(given, number - 1).unlink(missing_ok=True)
        if parallel.is_main():
            os.replace(_map(given, len(loop.curve)), final)
            loop.checkpoint.unlink(missing_ok=True)
        parallel.barrier("noise")
    return int8.noise(final, given, loop.passes(n))


def per_class(
    given: Given, own: np.ndarray, classes: int, rounds: Rounds, crafting_: Crafting
) -> Noise:
    """Makes a noise per class, the mean of what each batch's images of it would change it to.

    Arguments are those of `per_image`; `classes` is the number of labels.
    """
    final, data = given.folder / "noise.safetensors", given.config.data
    epsilon_255 = rounds.attack.epsilon_255
    loop = _Loop(given, own, rounds, crafting_)
    if not parallel.agree(final.exists()):
        zeros = np.zeros((classes, data.crop, data.crop, 3), np.float32)
        start = parallel.replicate(zeros, given.mesh)
        (state, shared), done = crafting.restore(
            loop.checkpoint, (crafting_.state, start), given.mesh
        )
        program = _make_shared(loop.loss, rounds.attack, given.mesh)
        while not loop.ended():
            number = len(loop.curve) + 1
            if done < number:
                if rounds.updates:
                    state = loop.train(state, _of_classes(shared, own), number)
                for batch in loop.subset(number):
                    shared = loop.share_out(program, state, shared, batch, number)
                crafting.save(loop.checkpoint, (state, shared), number)
            loop.note(state, _of_classes(shared, own))
        if parallel.is_main():
            checkpoint.save_tree(final, {"noise": parallel.to_host(shared)})
            loop.checkpoint.unlink(missing_ok=True)
        parallel.barrier("noise")
    noise = checkpoint.load_arrays(final)["noise"]
    patterns = Pixels(noise.__getitem__, data.crop, data.short_side, epsilon_255)
    clusters = own if given.options["labels"] == "cluster" else None
    passes = loop.passes(sum(map(len, loop.subset(1))))
    return Noise(patterns, own, epsilon_255, clusters=clusters, image_passes=passes)


def with_passes(noise: Noise, image_passes: int) -> Noise:
    """Returns the noise with so many image passes more."""
    return dataclasses.replace(noise, image_passes=noise.image_passes + image_passes)


class _Loop:
    """What both kinds of noise have in common; `curve` holds the errors of finished rounds."""

    def __init__(self, given: Given, own: np.ndarray, rounds: Rounds, crafting_: Crafting):
        network, mesh = crafting_.network, given.mesh
        step = crafting.make_step(network, crafting_.optimizer, rounds.augmentation, mesh)
        self.stream = Batches(given, own, rounds.batch, step)
        self.loss = pgd.loss_of(network, rounds.augmentation, rounds.sign)
        self.checkpoint = given.folder / "rounds.safetensors"
        self._given, self._own, self._rounds = given, own, rounds
        self._wrong = _make_wrong(network, mesh)
        self._notes = given.folder / "rounds.json"
        noted = parallel.agree(self._notes.exists())
        self.curve: list[float] = checkpoint.read_json(self._notes)["error"] if noted else []

    def ended(self) -> bool:
        rounds = self._rounds
        if not self.curve:
            return False
        reached = rounds.stop is not None and (
            rounds.sign * self.curve[-1] <= rounds.sign * rounds.stop
        )
        return reached or len(self.curve) >= rounds.most

    def train(self, state: State, noise: Callable[[np.ndarray], np.ndarray], number: int) -> State:
        updates = self._rounds.updates
        state, record = self.stream.train(state, noise, (number - 1) * updates, updates)
        name = self._given.folder.name
        self._given.metrics.write(name, number, loss=record[0], accuracy=record[1])
        return state

    def subset(self, number: int) -> list[np.ndarray]:
        """The batches of images that round `number` goes over, of equal size."""
        n, batch = len(self._own), self.stream.batch
        order = np.random.default_rng((self._given.seed, number, 1)).permutation(n)
        count = max(1, round(self._rounds.share * n))
        return list(np.resize(order[:count], (-(-count // batch), batch)))

    def share_out(
        self, program: Callable[..., jax.Array], state: State, shared: jax.Array,
        batch: np.ndarray, number: int,
    ) -> jax.Array:  # fmt: skip
        mesh = self._given.mesh
        numbers = np.array([self._given.seed, number, batch[0]], np.uint32)
        crops = self.stream.feed.center_crops(batch)
        labels = parallel.shard(self._own[batch], mesh)
        return program(pgd.frozen(state), shared, crops, labels, parallel.replicate(numbers, mesh))

    def note(self, state: State, noise: Callable[[np.ndarray], np.ndarray]) -> None:
        """Measures the error of the frozen network and writes it down: the round is finished."""
        n, wrong = len(self._own), []
        for start in range(0, n, self.stream.batch):
            indices = np.arange(start, min(start + self.stream.batch, n))
            chosen, mask = parallel.pad(indices, self.stream.batch)
            crops = self.stream.feed.center_crops(chosen)
            rows = parallel.shard((noise(chosen), self._own[chosen], mask), self._given.mesh)
            wrong.append(self._wrong(pgd.frozen(state), crops, *rows))
        self.curve.append(float(sum(parallel.to_host(wrong))) / n)
        self._given.metrics.write(self._given.folder.name, len(self.curve), error=self.curve[-1])
        if parallel.is_main():
            checkpoint.write_json(self._notes, {"error": self.curve})
        parallel.barrier("round")
        rounds = self._rounds
        if self.ended() and rounds.stop is not None:
            say(
                f"{self._given.folder.name}: error {self.curve[-1]:.3g} after "
                f"{len(self.curve)} rounds; sought was {rounds.stop:g}"
            )

    def passes(self, images: int) -> int:
        """Returns the image passes of the finished rounds, each attacking so many images."""
        rounds = self._rounds
        return len(self.curve) * (rounds.updates * self.stream.batch + rounds.attack.steps * images)


def _map(given: Given, number: int) -> Path:
    return given.folder / f"round-{number}.int8"


def _of_classes(shared: jax.Array, own: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    levels = np.rint(255 * parallel.to_host(shared)).astype(np.int8)
    return lambda chosen: levels[own[chosen]]


def _make_wrong(network: Network, mesh: Mesh) -> Callable[..., jax.Array]:
    """Returns `wrong(frozen, crops, noise, labels, mask) -> []`, how many are told wrongly."""

    def wrong(
        params: Any, crops: jax.Array, noise: jax.Array, labels: jax.Array, mask: jax.Array
    ) -> jax.Array:
        weights, stats = params
        logits = network.logits(weights, stats, crafting.noisy(crops, noise))
        return lax.psum(((logits.argmax(1) != labels) * mask).sum(), AXIS)

    return parallel.pmap(
        wrong, mesh=mesh, in_specs=(REPLICATED, SHARDED, SHARDED, SHARDED, SHARDED),
        out_specs=REPLICATED,
    )  # fmt: skip


def _make_shared(loss: pgd.Loss, attack: pgd.Attack, mesh: Mesh) -> Callable[..., jax.Array]:
    """Returns `(frozen, noise [c, s, s, 3], crops, labels, numbers) -> noise` of classes."""

    def change(
        params: Any, shared: jax.Array, crops: jax.Array, labels: jax.Array, numbers: jax.Array
    ) -> jax.Array:
        key, pixels = pgd.key_of(numbers), crops.astype(jnp.float32) / 255
        found, _ = pgd.descend(loss, attack, params, pixels, shared[labels], labels, key)
        classes = len(shared)
        total = lax.psum(jax.ops.segment_sum(found, labels, classes), AXIS)
        count = lax.psum(jnp.bincount(labels, length=classes), AXIS).reshape(-1, 1, 1, 1)
        # What lies within the budget has its mean there too.
        return jnp.where(count > 0, total / jnp.maximum(count, 1), shared)

    return parallel.pmap(
        change, mesh=mesh, in_specs=(REPLICATED, REPLICATED, SHARDED, SHARDED, REPLICATED),
        out_specs=REPLICATED,
    )  # fmt: skip
