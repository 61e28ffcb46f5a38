"""The run's own steps with the shapes of their arguments, so that they can be compiled alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from ucjax.comparison import run
from ucjax.planning.schedule import Images, noisy, surrogate_of
from ucjax.protections.uc import perturbation
from ucjax.protections.uc import training as noise
from ucjax.protections.uc.objective import Batch, make_objective
from ucjax.protections.uc.perturbation import NoiseSpec
from ucjax.runtime.parallel import REPLICATED, SHARDED
from ucjax.surrogates import Surrogate, features
from ucjax.victims import pretraining, together
from ucjax.victims.contract import Victim
from ucjax.victims.step import make_programs
from ucjax.victims.training import tested_at_once


class Step(NamedTuple):
    """A step that can be compiled."""

    program: Any  # a function under `jax.jit`
    arguments: tuple[Any, ...]  # pytrees of `jax.ShapeDtypeStruct`, with shardings
    carries: bool  # its first result becomes its first argument, which is donated
    at_once: int = 1  # how many of it run at the same time, on the same devices


def build(
    config: ConfigDict,
    plan: run.Plan,
    surrogates: Mapping[str, Surrogate],
    images: Images,
    mesh: Mesh,
) -> dict[str, Step]:
    """Returns the steps of a run by the `cost` of their stages, those of `surrogates` and victims.

    Args:
      config: the experiment.
      plan: its rows and columns.
      surrogates: by `surrogate_of`; steps of others are left out.
      images: how many there are.
      mesh: the devices.
    """
    steps: dict[str, Step] = {}
    for row, own, trained in noisy(plan, config):
        if (surrogate := surrogates.get(surrogate_of(own))) is None:
            continue
        steps[f"features {surrogate_of(own)}"] = _features(own, surrogate, images, mesh)
        if trained:
            steps[f"noise {row}"] = _noise(own, surrogate, images, mesh)
    for victim in plan.columns:
        if images.test:
            steps |= _victim(victim, images, mesh)
    return steps


def dimensions(surrogate: Surrogate) -> int:
    """Returns the length of the surrogate's features."""
    pixels = jax.ShapeDtypeStruct((1, *(surrogate.image_size,) * 2, 3), np.float32)
    return jax.eval_shape(surrogate.embed, surrogate.params, pixels).shape[1]


def _features(config: ConfigDict, surrogate: Surrogate, images: Images, mesh: Mesh) -> Step:
    batch = features.step_size(images.train, config.surrogate.batch_size, mesh)
    return Step(
        features.make_step(surrogate, mesh),
        (_like(surrogate.params, mesh), _pixels(batch, config.data.crop, mesh)),
        carries=False,
    )


def _noise(config: ConfigDict, surrogate: Surrogate, images: Images, mesh: Mesh) -> Step:
    spec, p = NoiseSpec(**config.noise, seed=0), config.clusters.k
    steps = math.ceil(images.train / spec.batch_size) * spec.epochs
    optimizer = perturbation.make_optimizer(spec, steps)
    size, padded = config.data.crop, p + -p % mesh.size
    state = jax.eval_shape(
        functools.partial(perturbation.init, spec, optimizer, p=padded, size=size, mesh=mesh)
    )
    state = jax.tree.map(
        lambda x, part: _array(x.shape, x.dtype, mesh, part), state, perturbation.state_specs(state)
    )
    objective = make_objective(surrogate.embed, distance=spec.distance, scope=spec.scope)
    b = spec.batch_size
    rows = (_array((b,), dtype, mesh, SHARDED) for dtype in (np.int32, np.float32, np.float32))
    batch = Batch._make((_pixels(b, size, mesh), *rows))
    centers = _array((p, dimensions(surrogate)), np.float32, mesh, REPLICATED)
    target, number = (_array(shape, np.int32, mesh, REPLICATED) for shape in ((p,), ()))
    return Step(
        noise.make_step(spec, objective, optimizer, mesh=mesh, state=state),
        (state, (_like(surrogate.params, mesh), centers, target), batch, number),
        carries=True,
    )


def _victim(victim: Victim, images: Images, mesh: Mesh) -> dict[str, Step]:
    spec, b = victim.spec, victim.spec.batch_size
    total = math.ceil(images.train / b) * spec.epochs
    programs = make_programs(spec, max(images.classes, 2), total, mesh)
    seed = _array((), np.uint32, mesh, REPLICATED)
    state = _like(jax.eval_shape(programs.init, seed), mesh)
    labels = _array((b,), np.int32, mesh, SHARDED)
    tested = tested_at_once(images.test, b, mesh)
    test = (
        state,
        _pixels(tested, spec.crop, mesh),
        _array((tested,), np.int32, mesh, SHARDED),
        _array((tested,), np.float32, mesh, SHARDED),
    )
    train = (state, _pixels(b, spec.crop, mesh), labels, seed)
    at_once = together.at_once(mesh)
    found = {
        f"train {victim.name}": Step(programs.step, train, carries=True, at_once=at_once),
        f"test {victim.name}": Step(programs.test, test, carries=False, at_once=at_once),
    }
    if spec.pretrain_epochs:
        first = pretraining.compile_pretraining(spec, 1, mesh)
        parts = (state.params["encoder"], state.batch_stats["encoder"])
        encoder = _like(jax.eval_shape(first.init, seed, *parts), mesh)
        given = (encoder, _pixels(b, spec.crop, mesh), seed)
        found[f"pretrain {victim.name}"] = Step(first.step, given, carries=True, at_once=at_once)
    return found


def _pixels(count: int, size: int, mesh: Mesh) -> jax.ShapeDtypeStruct:
    return _array((count, size, size, 3), np.uint8, mesh, SHARDED)


def _like(tree: Any, mesh: Mesh) -> Any:
    return jax.tree.map(lambda x: _array(x.shape, x.dtype, mesh, REPLICATED), tree)


def _array(
    shape: tuple[int, ...], dtype: Any, mesh: Mesh, part: PartitionSpec
) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, part))
