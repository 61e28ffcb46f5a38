"""Projected gradient descent on pixels by signs of the gradient (Madry et al., arXiv:1706.06083).

The one attack of all baselines, which differ in the loss that it lowers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from ucjax.data import augment
from ucjax.data.feed import Feed
from ucjax.errors import UserError
from ucjax.protections import int8
from ucjax.protections.augmentations import Augmentation
from ucjax.protections.contract import Given
from ucjax.protections.crafting import Network, State, cross_entropy
from ucjax.runtime import parallel
from ucjax.runtime.parallel import REPLICATED, SHARDED
from ucjax.surrogates.features import step_size

# (parameters, crops [b, s, s, 3] of [0, 1], noise alike, labels [b], key) -> loss of each [b].
Loss = Callable[[Any, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True)
class Attack:
    """How far and how often.

    Attributes:
      epsilon_255: the budget in pixel levels.
      steps: steps downhill.
      step: length of one, as a share of the budget.
      start: "given" noise | "uniform" in the budget | "positive": U(0, eps) | "gauss": clipped.
      valid: whether crops plus noise are kept within [0, 1].
    """

    epsilon_255: int
    steps: int
    step: float
    start: str = "given"
    valid: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps of a row is {self.steps}: give at least 1")


def descend(
    loss: Loss, attack: Attack, params: Any, crops: jax.Array, noise: jax.Array,
    labels: jax.Array, key: jax.Array,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Lowers the loss of each image by its noise alone, in `parallel.pmap`.

    Args:
      loss: of each image; an image's may not depend on the others.
      attack: steps and budget.
      params: first argument of `loss`.
      crops: pixels of [0, 1], `[b, s, s, 3]`.
      noise: to begin with, alike; ignored unless `attack.start` is "given".
      labels: int32 `[b]`.
      key: the same on all devices.

    Returns:
      Noise in pixels `[b, s, s, 3]`, and the losses before the last step `[b]`.
    """
    eps = attack.epsilon_255 / 255
    start_key, step_key = jax.random.split(key)
    if attack.start != "given":
        noise = augment.own_share(
            _start(attack.start, start_key, (augment.whole_batch(len(crops)), *crops.shape[1:]))
        )
        noise = jnp.clip(eps * noise, -eps, eps)

    def total(noise: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        key = jax.random.fold_in(step_key, number)
        losses = loss(params, crops, noise, labels, key)
        return losses.sum(), losses

    def one(number: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        noise, _ = carry
        gradient, losses = jax.grad(total, has_aux=True)(noise, number)
        noise = jnp.clip(noise - attack.step * eps * jnp.sign(gradient), -eps, eps)
        return _valid(crops, noise) if attack.valid else noise, losses

    noise = _valid(crops, noise) if attack.valid else noise
    return lax.fori_loop(0, attack.steps, one, (noise, jnp.zeros(len(crops))))


def _valid(crops: jax.Array, noise: jax.Array) -> jax.Array:
    return jnp.clip(noise, -crops, 1 - crops)


def _start(kind: str, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if kind == "gauss":
        return jax.random.normal(key, shape)
    return jax.random.uniform(key, shape, minval=0.0 if kind == "positive" else -1.0)


def make_pgd(loss: Loss, attack: Attack, mesh: Mesh) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Returns `pgd(params, crops u8, noise i8, labels, numbers u32) -> (noise i8, losses [b])`.

    Randomness is keyed by `numbers`, of any length.
    """

    def pgd(
        params: Any, crops: jax.Array, noise: jax.Array, labels: jax.Array, numbers: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        pixels, begun = augment.to_float(crops), noise.astype(jnp.float32) / 255
        found, losses = descend(loss, attack, params, pixels, begun, labels, key_of(numbers))
        return jnp.rint(255 * found).astype(jnp.int8), losses

    return parallel.pmap(
        pgd, mesh=mesh, in_specs=(REPLICATED, SHARDED, SHARDED, SHARDED, REPLICATED),
        out_specs=SHARDED,
    )  # fmt: skip


def key_of(numbers: jax.Array) -> jax.Array:
    """Returns the key of a few numbers, uint32 `[k]`, the first being a seed."""
    key = jax.random.key(numbers[0])
    for number in numbers[1:]:
        key = jax.random.fold_in(key, number)
    return key


def craft(
    given: Given, path: Path, pgd: Callable[..., tuple[jax.Array, jax.Array]], params: Any,
    labels: np.ndarray, *, batch: int, noise: Callable[[np.ndarray], np.ndarray],
    first: int = 0, restarts: int = 1, feed: Feed | None = None, stage: str = "noise",
    negated: bool = False,
) -> None:  # fmt: skip
    """Writes the map of all images' noise, block by block, unless it is there.

    Args:
      given: images, devices and seed.
      path: of the map.
      pgd: of `make_pgd`.
      params: its first argument, on all devices.
      labels: int32 `[n]`.
      batch: images at once.
      noise: numbers of images `[b]` -> int8 noise to begin with.
      first: tells the numbers drawn from those of other maps.
      restarts: attacks, of which each image keeps the noise of the least loss.
      feed: the images, if they are on the devices already.
      stage: for the progress line.
      negated: whether the map holds what is to be subtracted.

    Raises:
      UserError: no restarts.
    """
    if restarts < 1:
        raise UserError(f"restarts of a row is {restarts}: give at least 1")
    crop, mesh, n = given.config.data.crop, given.mesh, len(labels)
    size = step_size(n, batch, mesh)
    feed = feed or Feed(given.images, crop, mesh=mesh, budget_bytes=given.budget_bytes)
    bar = given.progress(stage, n)

    def make(indices: np.ndarray) -> np.ndarray:
        chosen, _ = parallel.pad(indices, size)
        crops = feed.center_crops(chosen)
        rows = parallel.shard((noise(chosen), labels[chosen]), mesh)
        best, least = np.zeros((size, crop, crop, 3), np.int8), np.full(size, np.inf)
        for restart in range(restarts):
            numbers = np.array([given.seed, first, indices[0], restart], np.uint32)
            result = pgd(params, crops, *rows, parallel.replicate(numbers, mesh))
            found, losses = parallel.to_host(result)
            better = losses < least
            best[better], least[better] = found[better], losses[better]
        bar.update(int(indices[-1]) + 1)
        _check(least, given)
        return (-best if negated else best)[: len(indices)]

    int8.fill(path, n, crop, size, make)
    bar.close(n)


def _check(losses: np.ndarray, given: Given) -> None:
    if not np.isfinite(losses).all():
        raise UserError(
            f"the loss of {int((~np.isfinite(losses)).sum())} of {len(losses)} images of "
            f"{given.folder.name} is not finite: its network diverged, so give another width"
        )


def frozen(state: State) -> tuple[Any, Any]:
    """Returns what `loss_of` takes of a network: its weights and running statistics."""
    return state.params, state.stats


def loss_of(network: Network, augmentation: Augmentation, sign: float = 1.0) -> Loss:
    """Returns the cross-entropy of augmented noisy images, by running statistics, times `sign`."""

    def loss(
        params: Any, crops: jax.Array, noise: jax.Array, own: jax.Array, key: jax.Array
    ) -> jax.Array:
        weights, stats = params
        pixels = augmentation(key, crops + noise)
        return jnp.float32(sign) * cross_entropy(network.logits(weights, stats, pixels), own)

    return loss
