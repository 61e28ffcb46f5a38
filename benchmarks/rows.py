"""Comparisons with PyTorch that a CPU and a GPU make alike: the same work on both sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from transformers import CLIPVisionConfig, ResNetConfig

from benchmarks import programs, timing
from benchmarks.programs import Program
from benchmarks.timing import Run
from ucjax import surrogates
from ucjax.surrogates import Surrogate
from ucjax.surrogates.clip import ImageTower
from ucjax.surrogates.resnet import ResNet

try:
    from benchmarks import peer_networks as nets
    from benchmarks import peers
except ImportError:
    peers = None


class Transformer(NamedTuple):
    """One of CLIP's image towers."""

    width: int
    layers: int
    heads: int
    patch: int
    dimensions: int


B32 = Transformer(768, 12, 12, 32, 512)
B16 = B32._replace(patch=16)
L14 = Transformer(1024, 24, 16, 14, 768)


@dataclass(frozen=True)
class Scale:
    """Upper bounds on the sizes of everything."""

    side: int = 224  # px
    most: int = 10_000_000  # images of a batch, clusters, rows
    width: int = 64  # of generators, victims and ResNet-50
    blocks: int = 6
    depths: tuple[int, ...] = (3, 4, 6, 3)
    tower: Transformer | None = None  # in place of any other


# Only shows that everything runs.
MINIATURE = Scale(64, 4, width=4, blocks=1, depths=(1,) * 4, tower=Transformer(16, 1, 2, 32, 8))


class Peer(NamedTuple):
    """The other side: `times` runs do the work of one of ours; the goal is a ratio."""

    run: Run
    goal: float
    times: int = 1


class Row(NamedTuple):
    """One comparison."""

    images: int  # of a run of ours
    ours: Program
    theirs: dict[str, Peer]


def usable_peers() -> bool:
    """Whether PyTorch is there and computes where JAX does."""
    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    return peers is not None and platform == peers.DEVICE


def generator(scale: Scale, mesh: Mesh, *, p: int) -> Row:
    """Forward and backward of `p` generators."""
    p = min(p, scale.most)
    spec = programs.noise_spec(width=scale.width, blocks=scale.blocks)
    ours = programs.generator_pass(spec, scale.side, p=p, mesh=mesh)
    if not usable_peers():
        return Row(p, ours, {})
    net = nets.noise_generator(scale.width, scale.blocks)
    _compare(ours.parameters, net)
    return Row(p, ours, {"PyTorch": Peer(peers.generator_pass(net, scale.side), 1.0, p)})


def resnet_noise(
    scale: Scale, mesh: Mesh, *, p: int, batch: int, goals: tuple[float, float]
) -> Row:
    """A noise step with ResNet-50."""
    stages = [4 * scale.width << stage for stage in range(4)]
    config = ResNetConfig(embedding_size=scale.width, hidden_sizes=stages, depths=scale.depths)
    surrogate = programs.random_surrogate(ResNet(config), "rn50", scale.side)
    make = partial(nets.resnet50, scale.width, scale.depths) if usable_peers() else None
    return _noise(scale, mesh, surrogate, make, p=p, batch=batch, goals=goals)


def clip_surrogate(scale: Scale, tower: Transformer) -> Surrogate:
    """One of CLIP's image towers with random weights."""
    tower = scale.tower or tower
    config = CLIPVisionConfig(
        hidden_size=tower.width, intermediate_size=4 * tower.width, image_size=scale.side,
        num_hidden_layers=tower.layers, num_attention_heads=tower.heads, patch_size=tower.patch,
    )  # fmt: skip
    return programs.random_surrogate(ImageTower(config, tower.dimensions), "clip", scale.side)


def clip_noise(
    scale: Scale, mesh: Mesh, *, tower: Transformer, p: int, batch: int, goals: tuple[float, float]
) -> Row:
    """A noise step with one of CLIP's image towers."""
    shape = (scale.tower or tower)._asdict() | {"size": scale.side}
    make = partial(nets.VisionTransformer, **shape) if usable_peers() else None
    surrogate = clip_surrogate(scale, tower)
    return _noise(scale, mesh, surrogate, make, p=p, batch=batch, goals=goals)


def victim(scale: Scale, mesh: Mesh, *, side: int, batch: int) -> Row:
    """A training step of ResNet-18."""
    side, classes, batch = min(side, scale.side), 37, min(batch, scale.most)
    spec = programs.victim_spec(crop=side, width=scale.width, batch_size=batch)
    ours = programs.victim_step(spec, classes, mesh)
    if not usable_peers():
        return Row(batch, ours, {})
    net = nets.resnet18(classes, scale.width)
    _compare(ours.parameters, net)
    run = peers.victim_step(net, batch, side, classes)
    return Row(batch, ours, {"PyTorch": Peer(run, 1.0)})


def lite0(scale: Scale, mesh: Mesh, *, side: int, batch: int) -> Row:
    """The gradient of EfficientNet-Lite0 to its images, with the weights that install."""
    side, batch = min(side, scale.side), min(batch, scale.most)
    surrogate = surrogates.load("efficientnet_lite0", image_size=side)
    ours = programs.input_gradient(surrogate, batch, mesh)
    if not usable_peers():
        return Row(batch, ours, {})
    run = peers.input_gradient(nets.efficientnet_lite0(), batch, side)
    return Row(batch, ours, {"PyTorch": Peer(run, 1.0)})


def _noise(
    scale: Scale, mesh: Mesh, surrogate: Surrogate, make: Callable[[], Any] | None,
    *, p: int, batch: int, goals: tuple[float, float],
) -> Row:  # fmt: skip
    """Our joint step against the published one, p times, and against a joint frozen one."""
    batch, p = min(batch, scale.most), min(p, scale.most)
    spec = programs.noise_spec(width=scale.width, blocks=scale.blocks, batch_size=batch)
    ours = programs.noise_step(surrogate, spec, p=p, mesh=mesh)
    if make is None:
        return Row(batch, ours, {})
    _compare(ours.parameters, make())
    net = partial(nets.noise_generator, scale.width, scale.blocks)
    shape = {"batch": batch, "size": scale.side}
    published = peers.noise_step(make(), net, p=1, frozen=False, **shape)
    frozen = peers.noise_step(make(), net, p=p, frozen=True, **shape)
    sides = {"published": Peer(published, goals[0], p), "frozen": Peer(frozen, goals[1])}
    return Row(batch, ours, sides)


def _compare(parameters: int, net: Any) -> None:
    if parameters != (theirs := nets.count_parameters(net)):
        raise ValueError(f"ours has {parameters} parameters, PyTorch's {theirs}: not the same net")


def measure(name: str, row: Row, *, repeats: int, calls: int = 1) -> dict[str, Any]:
    """Times the sides of a row in turns; `calls` in one go, so that devices need not wait."""
    runs = {"ucjax": timing.repeated(row.ours.run, calls)}
    for side, peer in row.theirs.items():
        runs[side] = peers.ended(timing.repeated(peer.run, calls))
    first = {side: timing.timed(run)[0].wall for side, run in runs.items()}
    times = timing.in_turns(runs, repeats)
    each = {
        side: [timing.Taken(wall / calls, cpu / calls) for wall, cpu in taken]
        for side, taken in times.items()
    }
    return {
        "name": name,
        "images": row.images,
        "flops": row.ours.flops,
        "traffic": row.ours.traffic,
        "first_seconds": first,
        "times": each,
        "goals": {side: peer.goal for side, peer in row.theirs.items()},
        "runs_for_one": {side: peer.times for side, peer in row.theirs.items()},
        "peak_mb": timing.peak_mb(),
    }


def against(row: dict[str, Any], side: str) -> tuple[list[float], list[float]]:
    """Returns the seconds that a side of a measured row takes for a run of ours, and its ratios."""
    count, theirs = row["runs_for_one"][side], row["times"][side]
    ratios = timing.ratios(theirs, row["times"]["ucjax"])
    return [count * taken.wall for taken in theirs], [count * ratio for ratio in ratios]
