"""The product's own steps on made-up inputs and weights, ready to be timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from benchmarks import flops
from benchmarks.timing import Run
from ucjax.config import paper
from ucjax.planning.steps import dimensions
from ucjax.protections.uc import perturbation
from ucjax.protections.uc import training as noise
from ucjax.protections.uc.objective import Batch, make_objective, targets
from ucjax.protections.uc.perturbation import NoiseSpec
from ucjax.runtime import parallel, platforms
from ucjax.surrogates import Preprocessing, Surrogate
from ucjax.surrogates.pretrained import normalize
from ucjax.victims.contract import VictimSpec
from ucjax.victims.step import make_programs

_PREPROCESSING = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)


class Program(NamedTuple):
    """A compiled step that can be called again and again."""

    run: Run
    flops: float  # on each device, by XLA's count for what is written, before it optimises
    traffic: int  # bytes of the arguments and results: read or written at least once
    parameters: int  # numbers in the trained network, or in the one whose inputs get a gradient


def noise_spec(**changes: Any) -> NoiseSpec:
    """Returns the paper's settings, changed."""
    settings = paper()
    return NoiseSpec(**{**settings.noise, "seed": settings.seed, **changes})


def victim_spec(**changes: Any) -> VictimSpec:
    """Returns the paper's victim, changed."""
    return VictimSpec(**{"model": "resnet18", "recipes": (), **paper().victim, **changes})


def random_surrogate(net: nn.Module, name: str, size: int) -> Surrogate:
    """Gives a network of `size` px weights that keep its activations of order one."""
    rng = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(leaf.shape) > 1:
            scale = np.float32(np.prod(leaf.shape[:-1])) ** -0.5
            return scale * rng.standard_normal(leaf.shape, np.float32)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    pixels = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), pixels)

    def embed(variables: Any, images: jax.Array) -> jax.Array:
        network = net.clone(dtype=platforms.compute_dtype())
        features: Any = network.apply(variables, normalize(images, _PREPROCESSING))
        features = getattr(features, "pooler_output", features)
        return features.reshape(len(images), -1).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    return Surrogate(embed, params, size, _PREPROCESSING, f"{name}, random weights", "")


def generator_pass(spec: NoiseSpec, size: int, *, p: int, mesh: Mesh) -> Program:
    """Forward and backward of `p` generators, for their parameters."""
    optimizer = perturbation.make_optimizer(spec, 1)
    state = perturbation.init(spec, optimizer, p=p, size=size, mesh=mesh)
    gradient = jax.device_put(jnp.full(state.inputs.shape, 1e-3), state.inputs.sharding)

    def build() -> Any:
        render = perturbation.make_render(spec)

        def both(params: Any, z: jax.Array, gradient: jax.Array) -> Any:
            value, pull_back = jax.vjp(lambda params: render(params, z), params)
            return value, pull_back(gradient)[0]

        split = parallel.SHARDED
        return parallel.pmap(both, mesh=mesh, in_specs=(split,) * 3, out_specs=split)

    arguments = (state.params, state.inputs, gradient)
    return _program(
        build, arguments, carries=False, parameters=_count(state.params) // len(state.inputs)
    )


def noise_step(surrogate: Surrogate, spec: NoiseSpec, *, p: int, mesh: Mesh) -> Program:
    """A noise step on `spec.batch_size` images, with `p` clusters of equal size."""
    size, b, rng = surrogate.image_size, spec.batch_size, np.random.default_rng(0)
    optimizer = perturbation.make_optimizer(spec, 10_000)
    state = perturbation.init(spec, optimizer, p=p, size=size, mesh=mesh)
    centers = rng.standard_normal((p, dimensions(surrogate)), np.float32)
    target = targets(centers, spec.target, spec.seed)
    objective = make_objective(surrogate.embed, distance=spec.distance, scope=spec.scope)
    share = np.full(b, 1 / b, np.float32)
    crops = rng.integers(0, 256, (b, size, size, 3), np.uint8)
    batch = Batch(crops, np.arange(b, dtype=np.int32) % p, share, share)  # type: ignore[arg-type]
    arguments = (
        state,
        parallel.replicate((surrogate.params, centers, target), mesh),
        Batch(*parallel.shard(tuple(batch), mesh)),
        parallel.replicate(np.int32(0), mesh),
    )
    return _program(
        lambda: noise.make_step(spec, objective, optimizer, mesh=mesh, state=state),
        arguments, carries=True, parameters=_count(surrogate.params.get("params", {})),
    )  # fmt: skip


def victim_step(spec: VictimSpec, classes: int, mesh: Mesh) -> Program:
    """A training step of a victim."""

    def programs() -> Any:
        return make_programs(spec, classes, 10_000, mesh)

    b, seed = spec.batch_size, parallel.replicate(np.uint32(0), mesh)
    state = programs().init(seed)
    crops = np.random.default_rng(0).integers(0, 256, (b, spec.crop, spec.crop, 3), np.uint8)
    labels = np.arange(b, dtype=np.int32) % classes
    arguments = (state, *parallel.shard((crops, labels), mesh), seed)
    parameters = _count(state.params)
    return _program(lambda: programs().step, arguments, carries=True, parameters=parameters)


def features(surrogate: Surrogate, batch: int, mesh: Mesh) -> Program:
    """The features of images."""
    return _of_images(surrogate, surrogate.embed, batch, mesh)


def input_gradient(surrogate: Surrogate, batch: int, mesh: Mesh) -> Program:
    """The gradient of half the squared features to the images."""

    def gradient(params: Any, images: jax.Array) -> jax.Array:
        return jax.grad(lambda x: jnp.sum(surrogate.embed(params, x) ** 2) / 2)(images)

    return _of_images(surrogate, gradient, batch, mesh)


def _of_images(
    surrogate: Surrogate, function: Callable[..., jax.Array], batch: int, mesh: Mesh
) -> Program:
    def build() -> Any:
        split = parallel.SHARDED
        return parallel.pmap(
            function, mesh=mesh, in_specs=(parallel.REPLICATED, split), out_specs=split
        )

    size = surrogate.image_size
    images = np.random.default_rng(0).random((batch, size, size, 3), np.float32)
    arguments = parallel.replicate(surrogate.params, mesh), parallel.shard(images, mesh)
    return _program(build, arguments, carries=False, parameters=_count(surrogate.params))


def _program(
    build: Callable[[], Any], arguments: tuple[Any, ...], *, carries: bool, parameters: int
) -> Program:
    program = build()
    operations = flops.written(build, arguments)
    results = jax.tree.leaves(jax.eval_shape(program, *arguments))
    traffic = sum(x.nbytes for x in jax.tree.leaves(arguments))
    traffic += sum(x.size * x.dtype.itemsize for x in results)
    first, *rest = arguments

    def run() -> Any:
        nonlocal first
        result = program(first, *rest)
        first = result[0] if carries else first
        return result

    return Program(run, operations, traffic, parameters)


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
