"""The pipeline's own steps with the shapes of their arguments, so that they can be compiled alone.

Nothing here touches a device: the mesh may be one of machines that are not there.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ucjax.job import Job
from ucjax.protections.uc import perturbation
from ucjax.protections.uc import training as noise
from ucjax.protections.uc.objective import Batch, make_objective
from ucjax.runtime import parallel
from ucjax.runtime.parallel import REPLICATED, SHARDED
from ucjax.surrogates import Surrogate, features
from ucjax.victims import together
from ucjax.victims.step import make_programs
from ucjax.victims.training import tested_at_once


class Images(NamedTuple):
    """How many images a run has, and how that is known."""

    train: int  # to protect
    test: int  # clean test images
    classes: int  # 0: no labels, so no victims
    origin: str


class Step(NamedTuple):
    """A step that can be compiled."""

    program: Any  # a function under `jax.jit`
    arguments: tuple[Any, ...]  # pytrees of `jax.ShapeDtypeStruct`, with shardings
    carries: bool  # its first result becomes its first argument, which is donated
    at_once: int = 1  # how many of it run at the same time, on the same devices


def build(job: Job, surrogate: Surrogate, images: Images) -> dict[str, Step]:
    """Returns the steps of a run by name, on `job.mesh`."""
    steps = {
        "features": _features(job, surrogate, images),
        "noise": _noise(job, surrogate, images),
    }
    if images.classes and images.test:
        steps |= _victim(job, images)
    return steps


def dimensions(surrogate: Surrogate) -> int:
    """Returns the length of the surrogate's features."""
    pixels = jax.ShapeDtypeStruct((1, *(surrogate.image_size,) * 2, 3), np.float32)
    return jax.eval_shape(surrogate.embed, surrogate.params, pixels).shape[1]


def _features(job: Job, surrogate: Surrogate, images: Images) -> Step:
    batch = features.step_size(images.train, job.config.surrogate.batch_size, job.mesh)
    return Step(
        features.make_step(surrogate, job.mesh),
        (_like(surrogate.params, job.mesh), _pixels(batch, job.config.data.crop, job.mesh)),
        carries=False,
    )


def _noise(job: Job, surrogate: Surrogate, images: Images) -> Step:
    spec, mesh, p = job.noise, job.mesh, job.config.clusters.k
    steps = math.ceil(images.train / spec.batch_size) * spec.epochs
    optimizer = perturbation.make_optimizer(spec, steps)
    # Born in thought on a device that is here, with the padding of `mesh`: the shapes are equal.
    here = parallel.make_mesh(jax.local_devices()[:1])
    size, padded = job.config.data.crop, p + -p % mesh.size
    state = jax.eval_shape(
        functools.partial(perturbation.init, spec, optimizer, p=padded, size=size, mesh=here)
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


def _victim(job: Job, images: Images) -> dict[str, Step]:
    spec, mesh, b = job.victim, job.mesh, job.victim.batch_size
    total = math.ceil(images.train / b) * spec.epochs
    # Not the cached ones: they may hold traces for another platform.
    programs = make_programs(spec, images.classes, total, mesh)
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
    return {
        "victim": Step(programs.step, train, carries=True, at_once=together.at_once(mesh)),
        "victim test": Step(programs.test, test, carries=False, at_once=together.at_once(mesh)),
    }


def _pixels(count: int, size: int, mesh: Mesh) -> jax.ShapeDtypeStruct:
    return _array((count, size, size, 3), np.uint8, mesh, SHARDED)


def _like(tree: Any, mesh: Mesh) -> Any:
    return jax.tree.map(lambda x: _array(x.shape, x.dtype, mesh, REPLICATED), tree)


def _array(
    shape: tuple[int, ...], dtype: Any, mesh: Mesh, part: PartitionSpec
) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, part))
