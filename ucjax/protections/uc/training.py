"""Learns one noise image per cluster that drags its images' features to a wrong centre.

The DDU loss of arXiv:2301.01217. All p generators train in one program: their parameters
are stacked `[p, ...]` and sharded over the devices, and so are the images. A step renders each
device's own noises, gathers them, runs the frozen surrogate on each device's images, and
scatters the gradient with respect to the noises back to the devices that own them. No parameter
gradient crosses devices, and with scope "cluster" an image passes the surrogate once a step,
whatever p is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh

from ucjax.clusters.kmeans import Clusters
from ucjax.data import augment
from ucjax.data.feed import Feed
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.protections.uc.objective import Batch, Objective, make_objective, targets
from ucjax.protections.uc.perturbation import (
    NoiseSpec,
    NoiseState,
    check,
    init,
    make_optimizer,
    make_render,
    state_specs,
)
from ucjax.runtime import checkpoint, parallel
from ucjax.runtime.parallel import AXIS, REPLICATED, SHARDED
from ucjax.runtime.progress import MetricsFile, Progress
from ucjax.surrogates import Surrogate

SECONDS_BETWEEN_CHECKPOINTS = 60


@dataclass(frozen=True)
class NoiseResult:
    """Trained noise: `noise` `[p, s, s, 3]` float32, pixels of [0,1]; `target` `[p]`.

    `loss` and `moved` hold an epoch's mean distance and the share of its images whose nearest
    centre was the target.
    """

    noise: np.ndarray
    target: np.ndarray
    loss: tuple[float, ...]
    moved: tuple[float, ...]


class Planned(NamedTuple):
    """One batch of the plan, on the host: step number, image indices `[b]`, rows of `Batch`."""

    step: int
    indices: np.ndarray
    cluster: np.ndarray
    weight: np.ndarray
    share: np.ndarray


def train(
    images: ImageSet,
    clusters: Clusters,
    surrogate: Surrogate,
    spec: NoiseSpec,
    *,
    size: int,
    mesh: Mesh,
    checkpoint_file: Path,
    metrics: MetricsFile,
    budget_bytes: int | None = None,
    progress: Callable[..., Progress] = Progress,
) -> NoiseResult:
    """Trains the noise of every cluster on random crops of `size`, resuming a killed run.

    Raises:
      UserError: impossible settings (`check`), or a loss that is not finite.
    """
    p = len(clusters.centers)
    check(spec, p=p, devices=mesh.size)
    target = targets(clusters.centers, spec.target, spec.seed)
    steps = -(-len(images) // spec.batch_size)
    optimizer = make_optimizer(spec, steps * spec.epochs)
    state = init(spec, optimizer, p=p, size=size, mesh=mesh)
    objective = make_objective(surrogate.embed, distance=spec.distance, scope=spec.scope)
    step = make_step(spec, objective, optimizer, mesh=mesh, state=state)
    fixed = parallel.replicate((surrogate.params, clusters.centers, target), mesh)
    feed = Feed(images, size, mesh=mesh, budget_bytes=budget_bytes)
    state, curve = _restore(checkpoint_file, state, p, spec.epochs, mesh)
    total, done = len(images) * spec.epochs, len(images) * len(curve)
    bar = progress("noise", total, done=done)
    saved = time.monotonic()
    for epoch in range(len(curve), spec.epochs):
        plan = list(_plan(clusters.assignment, spec, epoch))
        state, record = _run_epoch(step, state, fixed, feed, plan, mesh, spec, bar)
        curve.append(record)
        metrics.write("noise", epoch + 1, loss=record[0], moved=record[1])
        if parallel.agree(time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS):
            _save(checkpoint_file, state, p, spec.epochs, curve)
            saved = time.monotonic()
    bar.close(total, loss=curve[-1][0], moved=curve[-1][1])
    noise = _rendered(spec, state, p, mesh)
    return NoiseResult(noise, target, *(tuple(column) for column in zip(*curve, strict=True)))


def initial_noise(spec: NoiseSpec, *, p: int, size: int, mesh: Mesh) -> np.ndarray:
    """Returns the noise that training begins with, float32 `[p, size, size, 3]`."""
    return _rendered(spec, init(spec, make_optimizer(spec, 1), p=p, size=size, mesh=mesh), p, mesh)


def _rendered(spec: NoiseSpec, state: NoiseState, p: int, mesh: Mesh) -> np.ndarray:
    render = parallel.pmap(
        lambda state: make_render(spec)(state.params, state.inputs),
        mesh=mesh, in_specs=(state_specs(state),), out_specs=SHARDED,
    )  # fmt: skip
    return parallel.to_host(render(state))[:p]


def _run_epoch(
    step: Callable[..., tuple[NoiseState, jax.Array]],
    state: NoiseState,
    fixed: Any,
    feed: Feed,
    plan: list[Planned],
    mesh: Mesh,
    spec: NoiseSpec,
    progress: Progress,
) -> tuple[NoiseState, list[float]]:
    """Runs one epoch; returns the state and the epoch's mean [distance, share moved]."""
    crops = feed.prefetch((planned.indices, spec.seed, planned.step) for planned in plan)
    totals, running = np.zeros(2), None
    for count, (planned, pixels) in enumerate(zip(plan, crops, strict=True)):
        rows = parallel.shard((planned.cluster, planned.weight, planned.share), mesh)
        number = parallel.replicate(np.int32(planned.step), mesh)
        state, record = step(state, fixed, Batch(pixels, *rows), number)
        if running is not None:
            # Read one step late, so that the devices never wait for the host.
            totals += _checked(*running)
            mean = totals / count
            done = progress.total * planned.step // (spec.epochs * len(plan))
            progress.update(done, loss=mean[0], moved=mean[1])
        running = record, planned.step
    assert running is not None
    totals += _checked(*running)
    return state, (totals / len(plan)).tolist()


def make_step(
    spec: NoiseSpec,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh,
    state: NoiseState,
) -> Callable[..., tuple[NoiseState, jax.Array]]:
    """Returns `step(state, (surrogate params, centers, target), batch, n) -> (state, record)`.

    `record` `[2]` holds the distance, averaged over the clusters, and the share of images moved.
    """
    render = make_render(spec)

    def step(
        state: NoiseState, fixed: Any, batch: Batch, n: jax.Array
    ) -> tuple[NoiseState, jax.Array]:
        surrogate_params, centers, target = fixed
        own, pull_back = jax.vjp(lambda params: render(params, state.inputs), state.params)
        noise = lax.all_gather(own, AXIS, tiled=True)
        batch = batch._replace(images=_augment(batch.images, spec, n))
        value = objective(noise, surrogate_params, centers, target, batch)
        gradient = lax.psum_scatter(value.gradient, AXIS, tiled=True)
        updates, opt_state = optimizer.update(pull_back(gradient)[0], state.optimizer, state.params)
        record = lax.psum(jnp.stack([value.loss / len(centers), value.moved]), AXIS)
        return NoiseState(
            optax.apply_updates(state.params, updates), state.inputs, opt_state
        ), record

    specs = state_specs(state)
    return parallel.pmap(
        step,
        mesh=mesh,
        in_specs=(specs, REPLICATED, SHARDED, REPLICATED),
        out_specs=(specs, REPLICATED),
        donate_argnums=(0,),
    )


def _augment(pixels: jax.Array, spec: NoiseSpec, n: jax.Array) -> jax.Array:
    images = augment.to_float(pixels)
    if not spec.flip:
        return images
    return augment.random_flip(jax.random.fold_in(jax.random.key(spec.seed), n), images)


def _plan(assignment: np.ndarray, spec: NoiseSpec, epoch: int) -> Iterator[Planned]:
    """Yields the batches of an epoch, in an order drawn from (seed, epoch) if shuffled.

    The last batch is padded with rows of weight 0. Weights make a batch's loss an unbiased
    estimate of the sum over clusters of their mean distance, so that a small cluster's noise
    is trained as hard, against the weight decay, as a large one's.
    """
    n = len(assignment)
    order = np.arange(n)
    if spec.order == "shuffled":
        order = np.random.default_rng((spec.seed, epoch)).permutation(n)
    sizes = np.bincount(assignment)
    steps = -(-n // spec.batch_size)
    for step in range(steps):
        real = order[step * spec.batch_size : (step + 1) * spec.batch_size]
        indices, mask = parallel.pad(real, spec.batch_size)
        cluster = assignment[indices].astype(np.int32)
        share = (mask / len(real)).astype(np.float32)
        weight = share * (n / sizes[cluster]) if spec.scope == "cluster" else share
        yield Planned(epoch * steps + step, indices, cluster, weight.astype(np.float32), share)


def _checked(record: jax.Array, n: int) -> np.ndarray:
    values = parallel.to_host(record)
    if not np.isfinite(values).all():
        raise UserError(
            f"noise training: the loss is {values[0]} at step {n}; lower "
            "config.noise.learning_rate or check the surrogate's weights"
        )
    return values


def _save(path: Path, state: NoiseState, p: int, epochs: int, curve: list[list[float]]) -> None:
    """Saves the p real generators, so that another number of devices can go on."""
    host = jax.tree.map(lambda x: x[:p] if x.ndim else x, parallel.to_host(state))
    if parallel.is_main():
        padded = np.pad(np.asarray(curve), ((0, epochs - len(curve)), (0, 0)))
        saved = {"state": host, "epoch": np.asarray(len(curve)), "curve": padded}
        checkpoint.save_tree(path, saved)


def _restore(
    path: Path, state: NoiseState, p: int, epochs: int, mesh: Mesh
) -> tuple[NoiseState, list[list[float]]]:
    if not parallel.agree(path.exists()):
        return state, []
    like = jax.tree.map(lambda x: np.zeros((p, *x.shape[1:]) if x.ndim else (), x.dtype), state)
    like = {"state": like, "epoch": np.asarray(0), "curve": np.zeros((epochs, 2))}
    saved = checkpoint.load_tree(path, like)
    state = jax.tree.map(
        lambda x: (
            parallel.shard(parallel.pad(x, mesh.size)[0], mesh)
            if x.ndim
            else parallel.replicate(x, mesh)
        ),
        saved["state"],
    )
    return state, saved["curve"][: int(saved["epoch"])].tolist()
