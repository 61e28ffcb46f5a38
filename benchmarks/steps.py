"""Steps of noise and victims against PyTorch: the published step, a frozen one, plain training.

    python -m benchmarks.steps                             # all, about 20 minutes on 2 cores
    python -m benchmarks.steps --only rn50 --repeats 5
    python -m benchmarks.steps --miniature                 # only that everything runs

Both sides take turns in one run, after a call that compiles. A ratio is PyTorch's time over ours
for the same work; "published" counts the passes that its scheme needs for the same epoch, p for
each of ours. The floors are operations at the rate of a dense product, and the bytes of arguments
and results at the rate of a copy. PyTorch is optional (`pip install torch`).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from transformers import CLIPVisionConfig, ResNetConfig
from transformers.models.resnet.modeling_flax_resnet import FlaxResNetModule

from benchmarks import programs, timing
from benchmarks.programs import Program
from benchmarks.timing import Run
from ucjax import checkpoint, parallel, surrogates
from ucjax.surrogates import Surrogate
from ucjax.surrogates.clip import ImageTower

try:
    from benchmarks import peer_networks as nets
    from benchmarks import peers
except ImportError:
    peers = None


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    large: int = 224  # px
    small: int = 64
    most: int = 1000  # images of a batch, and clusters
    width: int = 64  # of generators, victims and ResNet-50
    blocks: int = 6
    depths: tuple[int, ...] = (3, 4, 6, 3)
    vit: tuple[int, int, int] = (768, 12, 12)  # width, layers, heads


MINIATURE = Scale(64, 32, most=4, width=4, blocks=1, depths=(1, 1, 1, 1), vit=(16, 1, 2))


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


def generator(scale: Scale, mesh: Mesh) -> Row:
    """Forward and backward of generators at `large` px, one for each device."""
    spec = programs.noise_spec(width=scale.width, blocks=scale.blocks)
    ours = programs.generator_pass(spec, scale.large, p=mesh.size, mesh=mesh)
    if not peers:
        return Row(mesh.size, ours, {})
    net = nets.noise_generator(scale.width, scale.blocks)
    _compare(ours.parameters, net)
    run = peers.generator_pass(net, scale.large)
    return Row(mesh.size, ours, {"PyTorch": Peer(run, 1.0, mesh.size)})


def noise_rn50(scale: Scale, mesh: Mesh, *, batch: int) -> Row:
    """A noise step of one cluster, with ResNet-50."""
    stages = [4 * scale.width << stage for stage in range(4)]
    config = ResNetConfig(embedding_size=scale.width, hidden_sizes=stages, depths=scale.depths)
    surrogate = programs.random_surrogate(FlaxResNetModule(config), "rn50", scale.large)
    make = partial(nets.resnet50, scale.width, scale.depths) if peers else None
    return _noise(scale, mesh, surrogate, make, p=1, batch=batch, goals=(1.5, 1.2))


def noise_clip(scale: Scale, mesh: Mesh, *, batch: int, goals: tuple[float, float]) -> Row:
    """A noise step of ten clusters together, with CLIP's ViT-B/32."""
    width, layers, heads = scale.vit
    shape = {"size": scale.large, "patch": 32, "width": width, "hidden": 4 * width}
    config = CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, image_size=scale.large, patch_size=32,
    )  # fmt: skip
    tower = ImageTower(config, 512)
    surrogate = programs.random_surrogate(tower, "clip", scale.large)
    make = None
    if peers:
        shape |= {"layers": layers, "heads": heads, "dimensions": 512}
        make = partial(nets.VisionTransformer, **shape)
    return _noise(scale, mesh, surrogate, make, p=10, batch=batch, goals=goals)


def victim(scale: Scale, mesh: Mesh, *, size: str, batch: int) -> Row:
    """A training step of ResNet-18."""
    side, classes, batch = getattr(scale, size), 37, min(batch, scale.most)
    spec = programs.victim_spec(crop=side, width=scale.width, batch_size=batch)
    ours = programs.victim_step(spec, classes, mesh)
    if not peers:
        return Row(batch, ours, {})
    net = nets.resnet18(classes, scale.width)
    _compare(ours.parameters, net)
    run = peers.victim_step(net, batch, side, classes)
    return Row(batch, ours, {"PyTorch": Peer(run, 1.0)})


def lite0(scale: Scale, mesh: Mesh, *, size: str, batch: int) -> Row:
    """The gradient of EfficientNet-Lite0 to its images, with the weights that install."""
    side, batch = getattr(scale, size), min(batch, scale.most)
    surrogate = surrogates.load("efficientnet_lite0", image_size=side)
    ours = programs.input_gradient(surrogate, batch, mesh)
    if not peers:
        return Row(batch, ours, {})
    run = peers.input_gradient(nets.efficientnet_lite0(), batch, side)
    return Row(batch, ours, {"PyTorch": Peer(run, 1.0)})


ROWS: dict[str, Callable[[Scale, Mesh], Row]] = {
    "generator": generator,
    "rn50": partial(noise_rn50, batch=16),
    "clip": partial(noise_clip, batch=32, goals=(8.0, 1.0)),
    "clip-256": partial(noise_clip, batch=256, goals=(8.0, 1.0)),
    "rn18-64": partial(victim, size="small", batch=64),
    "rn18-224": partial(victim, size="large", batch=32),
    "lite0-64": partial(lite0, size="small", batch=64),
    "lite0-224": partial(lite0, size="large", batch=32),
}


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
    shape = {"batch": batch, "size": scale.large}
    published = peers.noise_step(make(), net, p=1, frozen=False, **shape)
    frozen = peers.noise_step(make(), net, p=p, frozen=True, **shape)
    sides = {"published": Peer(published, goals[0], p), "frozen": Peer(frozen, goals[1])}
    return Row(batch, ours, sides)


def _compare(parameters: int, net: Any) -> None:
    if parameters != (theirs := nets.count_parameters(net)):
        raise ValueError(f"ours has {parameters} parameters, PyTorch's {theirs}: not the same net")


def measure(name: str, row: Row, repeats: int) -> dict[str, Any]:
    """Times both sides of a row."""
    runs = {"ucjax": row.ours.run} | {name: peer.run for name, peer in row.theirs.items()}
    first = {side: timing.timed(run)[0].wall for side, run in runs.items()}
    times = timing.in_turns(runs, repeats)
    return {
        "name": name,
        "images": row.images,
        "flops": row.ours.flops,
        "traffic": row.ours.traffic,
        "first_seconds": first,
        "times": times,
        "goals": {side: peer.goal for side, peer in row.theirs.items()},
        "runs_for_one": {side: peer.times for side, peer in row.theirs.items()},
        "peak_mb": timing.peak_mb(),
    }


def show(row: dict[str, Any], ceilings: timing.Ceilings) -> None:
    """Prints a row: our time, its floors, and a line for each other side."""
    ours = row["times"]["ucjax"]
    wall = [taken.wall for taken in ours]
    rate = row["images"] / statistics.median(wall)
    floors = row["flops"] / ceilings.product, row["traffic"] / ceilings.copy
    print(
        f"{row['name']:12}ucjax {timing.spelled(wall)} s, {rate:.1f} images/s; "
        f"first call {row['first_seconds']['ucjax']:.0f} s; floors: operations "
        f"{floors[0]:.2f} s, bytes {floors[1]:.2f} s; peak so far {row['peak_mb']:.0f} MB"
    )
    for side, goal in row["goals"].items():
        count, theirs = row["runs_for_one"][side], row["times"][side]
        found = [count * ratio for ratio in timing.ratios(theirs, ours)]
        print(
            f"{'':12}{side} {timing.spelled([count * taken.wall for taken in theirs])} s: ratio "
            f"{timing.spelled(found)}, goal {goal}", flush=True,
        )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Parses the flags, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--miniature", action="store_true", help="tiny: only that it runs")
    default = Path(__file__).parent / "results" / "steps.json"
    parser.add_argument("--out", type=Path, default=default)
    args = parser.parse_args(arguments)
    scale = MINIATURE if args.miniature else Scale()
    mesh = parallel.make_mesh()
    if peers:
        peers.use_all_cores()
    else:
        print("PyTorch is not installed: only our side is timed (pip install torch)")
    ceilings = timing.ceilings(max(args.repeats, 5), side=300 if args.miniature else 3000)
    print(f"product {ceilings.product / 1e9:.0f} GFLOP/s, copy {ceilings.copy / 1e9:.1f} GB/s")
    rows = []
    for name in args.only:
        rows.append(measure(name, ROWS[name](scale, mesh), args.repeats))
        show(rows[-1], ceilings)
        jax.clear_caches()
    result = {"scale": asdict(scale), **timing.machine("torch", "transformers")}
    checkpoint.write_json(args.out, result | {"ceilings": ceilings._asdict(), "rows": rows})
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
