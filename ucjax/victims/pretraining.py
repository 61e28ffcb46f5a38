"""Trains an encoder on images without their labels, by SimCLR, before a victim's own training.

Whoever scrapes pictures without labels does this with them. Source: arXiv:2002.05709.
"""

from __future__ import annotations

import functools
import math
import time
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
from ucjax.data.feed import Feed, epoch_batches
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.protections.augmentations import strong
from ucjax.runtime import checkpoint as files
from ucjax.runtime import parallel
from ucjax.runtime.progress import MetricsFile, Progress, say
from ucjax.victims.contract import VictimSpec
from ucjax.victims.models import simclr
from ucjax.victims.step import State
from ucjax.victims.table import MODELS

# Of 512 images a step; of b it is b / 512 times that.
_RATE, _MOMENTUM, _DECAY = 0.5, 0.9, 1e-4
_LEAST_AREA = 0.2
_BLUR_RADIUS, _BLUR = 11, (0.1, 2.0)
_SECONDS = 30.0
# Tells the keys of views from those of the victim's own steps.
_VIEWS = 0x56494557


class Programs(NamedTuple):
    """The compiled functions of a pretraining."""

    init: Callable[..., State]  # seed u32 [], params and batch_stats of the encoder
    # state, images u8 [b, crop, crop, 3], seed u32 [] -> state, loss []
    step: Callable[..., tuple[State, jax.Array]]


class Place(NamedTuple):
    """Where a pretraining happens and what it says.

    Attributes:
      mesh: the devices.
      checkpoint: the file to continue from and to write.
      metrics: takes a line an epoch.
      progress: makes progress lines.
      budget_bytes: what the images may take of each device's memory.
      label: whose pretraining it is.
    """

    mesh: Mesh
    checkpoint: Path
    metrics: MetricsFile
    progress: Callable[..., Progress]
    budget_bytes: int | None
    label: str


def pretrain(state: State, images: ImageSet, spec: VictimSpec, *, seed: int, place: Place) -> State:
    """Returns a victim's first state with the encoder that SimCLR makes of its images.

    Two views of each image are compared with all others of the batch: parts of 20 % of the area
    and more, mirrored, in other colours, grey or blurred. SGD, as with AUE (see `_RATE`), along a
    half cosine. Killed, it goes on from the last half minute.

    Args:
      state: the victim's.
      images: their labels are not looked at.
      spec: the victim.
      seed: of order, crops and views.
      place: see there.

    Raises:
      UserError: the loss is no longer finite.
    """
    mesh, steps = place.mesh, math.ceil(len(images) / spec.batch_size)
    programs = compile_pretraining(spec, spec.pretrain_epochs * steps, mesh)
    device_seed = parallel.replicate(np.uint32(seed), mesh)
    encoder = programs.init(device_seed, state.params["encoder"], state.batch_stats["encoder"])
    if parallel.agree(place.checkpoint.exists()):
        saved = files.load_tree(place.checkpoint, parallel.to_host(encoder))
        encoder = parallel.replicate(saved, mesh)
    feed = Feed(images, spec.crop, mesh=mesh, budget_bytes=place.budget_bytes)
    first, total = int(encoder.step), spec.pretrain_epochs * steps * spec.batch_size
    label = f"{place.label}, without labels"
    bar = place.progress(label, total, done=first * spec.batch_size)
    begun = saved_at = time.monotonic()
    for epoch in range(first // steps, spec.pretrain_epochs):
        batches = epoch_batches(len(images), spec.batch_size, seed, epoch)
        requests = [(batch, seed, epoch * steps + i) for i, batch in enumerate(batches)]
        losses: list[Any] = []
        for crops in feed.prefetch(requests):
            encoder, loss = programs.step(encoder, crops, device_seed)
            losses.append(loss)
            jax.block_until_ready(losses[max(len(losses) - 5, 0)])
            bar.update((epoch * steps + len(losses)) * spec.batch_size)
        mean = float(np.mean(parallel.to_host(losses)))
        if not math.isfinite(mean):
            raise UserError(f"{label}: the loss is {mean} in epoch {epoch + 1}")
        place.metrics.write(label, epoch + 1, train_loss=mean)
        if parallel.agree(time.monotonic() - saved_at >= _SECONDS):
            _save(place.checkpoint, encoder)
            saved_at = time.monotonic()
    bar.close(total)
    if parallel.agree(time.monotonic() - begun >= _SECONDS):
        _save(place.checkpoint, encoder)
    passes = 2 * (total - first * spec.batch_size)
    say(f"{label}: {passes} image passes in {time.monotonic() - begun:.1f} s")
    params = {**state.params, "encoder": encoder.params["encoder"]}
    return state._replace(params=params, batch_stats=encoder.batch_stats)


def _save(path: Path, state: State) -> None:
    tree = parallel.to_host(state)
    if parallel.is_main():
        files.save_tree(path, tree)


def checkpoint_of(victim: Path) -> Path:
    """Returns where the pretraining of the victim with this checkpoint keeps its own."""
    return victim.with_name(f"{victim.stem}-pretrained{victim.suffix}")


@functools.lru_cache(maxsize=4)
def compile_pretraining(spec: VictimSpec, total_steps: int, mesh: Mesh) -> Programs:
    """Builds the functions; the cosine schedule ends after `total_steps`."""
    probed = MODELS[spec.model].make(2, spec.width)
    assert isinstance(probed, simclr.Probed)
    net = simclr.Contrasted(probed.encoder.clone())
    rate = optax.cosine_decay_schedule(_RATE * spec.batch_size / 512, max(total_steps, 1), 1e-3)
    optimizer = optax.chain(optax.add_decayed_weights(_DECAY), optax.sgd(rate, _MOMENTUM))

    def init(seed: jax.Array, params: Any, stats: Any) -> State:
        images = jnp.zeros((1, spec.crop, spec.crop, 3))
        drawn = net.init(jax.random.key(seed, impl="rbg"), images, train=False)
        params = {**drawn["params"], "encoder": params}
        return State(jnp.int32(0), params, {"encoder": stats}, optimizer.init(params))

    step = functools.partial(train_step, net=net, spec=spec, optimizer=optimizer)
    whole, split = parallel.REPLICATED, parallel.SHARDED
    return Programs(
        jax.jit(init, out_shardings=NamedSharding(mesh, whole)),
        parallel.pmap(
            step, mesh=mesh, in_specs=(whole, split, whole), out_specs=whole, donate_argnums=(0,)
        ),
    )


def train_step(
    state: State,
    images: jax.Array,
    seed: jax.Array,
    *,
    net: simclr.Contrasted,
    spec: VictimSpec,
    optimizer: optax.GradientTransformation,
) -> tuple[State, jax.Array]:
    """Takes one step on this device's share of the batch, in `parallel.pmap`."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _VIEWS), state.step)
    pixels = augment.to_float(images)
    views = jnp.concatenate([view(k, pixels) for k in jax.random.split(key)])
    mean, std = (jnp.array(value).reshape(1, 1, 1, 3) for value in (spec.mean, spec.std))

    def loss_of(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        found: Any = net.apply(variables, (views - mean) / std, train=True, mutable=["batch_stats"])
        rows, updates = found
        first, second = jnp.split(rows, 2)
        loss = simclr.contrast(first, second, parallel.AXIS)
        return loss, updates["batch_stats"]

    (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    # What other devices compare with this one's views comes back through the gather.
    grads, loss = lax.pmean((grads, loss), parallel.AXIS)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return State(state.step + 1, params, stats, opt_state), loss


def view(key: jax.Array, images: jax.Array) -> jax.Array:
    """Returns a view of each image `[b, s, s, 3]` in [0, 1]; in `parallel.pmap`."""
    view_key, blur_key = jax.random.split(key)
    images = strong(1.0, least_area=_LEAST_AREA)(view_key, images)
    whole = augment.whole_batch(len(images))
    toss, width = (jax.random.uniform(k, (whole,)) for k in jax.random.split(blur_key))
    sigma = augment.own_share(_BLUR[0] + (_BLUR[1] - _BLUR[0]) * width)
    blurred = augment.own_share(toss < 0.5).reshape(-1, 1, 1, 1)
    return jnp.where(blurred, blur(images, sigma), images)


def blur(images: jax.Array, sigma: jax.Array) -> jax.Array:
    """Smoothes each image `[b, s, s, 3]` by a Gaussian of its own width in pixels, `[b]`.

    Up to 11 pixels away; at the border what is outside counts for nothing.
    """
    pixel = jnp.arange(images.shape[1])
    apart = (pixel[:, None] - pixel[None]).astype(images.dtype)
    weights = jnp.exp(-0.5 * jnp.square(apart[None] / sigma[:, None, None]))
    weights = jnp.where(jnp.abs(apart)[None] <= _BLUR_RADIUS, weights, 0)
    weights = weights / weights.sum(2, keepdims=True)
    return jnp.einsum("bij,bjkc,blk->bilc", weights, images, weights)
