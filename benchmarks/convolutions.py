"""Convolutions of the generator and of ResNet-18, per layer: ours, `lax.conv` and PyTorch.

    python -m benchmarks.convolutions                       # all, about 10 minutes on 2 cores
    python -m benchmarks.convolutions --networks resnet18 --sizes 64 --batch 64 --width 16

Times are taken in turns in one run, forward and forward + backward (no gradient for images fed to a
first layer). `lax` is the form accelerators get. Prints medians and ratios and writes JSON with
all times, wall clock and CPU seconds over all threads: only the latter mean anything on a machine
with other work. PyTorch is optional (`pip install torch`).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.timing import Run
from ucjax.ops import convolution
from ucjax.protections.uc.generator import NoiseGenerator
from ucjax.runtime import checkpoint

try:
    import torch
    from torch.nn import functional as F

    from benchmarks import peer_networks as nets
    from benchmarks import peers
except ImportError:
    torch = None


class Layer(NamedTuple):
    """`count` equal convolutions of a network; stride 0 stands for the transposed one, x2."""

    name: str
    count: int
    size: int
    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int


def generator_layers(s: int) -> list[Layer]:
    """The generator's at `s` px; sizes include reflected borders."""
    return [
        Layer("stem", 1, s + 6, 3, 64, 7, 1, 0),
        Layer("down1", 1, s, 64, 128, 3, 2, 1),
        Layer("down2", 1, s // 2, 128, 256, 3, 2, 1),
        Layer("blocks", 12, s // 4 + 2, 256, 256, 3, 1, 0),
        Layer("up1", 1, s // 4, 256, 128, 3, 0, 1),
        Layer("up2", 1, s // 2, 128, 64, 3, 0, 1),
        Layer("head", 1, s + 6, 64, 3, 7, 1, 0),
    ]


def resnet18_layers(s: int, width: int) -> list[Layer]:
    """ResNet-18's at `s` px with `width` channels in the first stage."""
    layers = [Layer("stem", 1, s, 3, width, 7, 2, 3)]
    size = s // 4
    for stage in range(4):
        c = width * 2**stage
        if stage:
            layers.append(Layer(f"down{stage}", 1, size, c // 2, c, 3, 2, 1))
            layers.append(Layer(f"skip{stage}", 1, size, c // 2, c, 1, 2, 0))
            size = -(-size // 2)
        layers.append(Layer(f"stage{stage}", 3 if stage else 4, size, c, c, 3, 1, 1))
    return layers


def draw(*shape: int) -> np.ndarray:
    """Standard normal float32."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def jax_runs(
    function: Callable[..., jax.Array], x: np.ndarray, weights: Any, wrt: tuple[int, ...]
) -> tuple[Run, Run]:
    """Forward, and forward + backward with respect to the arguments `wrt` of (x, weights)."""

    def loss(x: jax.Array, weights: Any) -> jax.Array:
        y = function(x, weights)
        return jnp.vdot(y, jnp.full(y.shape, 1e-3))

    # A function of its own, as `jit` would give `lax` the program it traced for ours.
    forward = jax.jit(lambda x, weights: function(x, weights))
    both = jax.jit(jax.value_and_grad(loss, wrt))
    arrays = jax.device_put((x, weights))
    runs = (lambda: forward(*arrays)), (lambda: both(*arrays))
    jax.block_until_ready([run() for run in runs])
    return runs


def torch_runs(function: Callable[[Any], Any], x: Any, leaves: list[Any]) -> tuple[Run, Run]:
    """The same in PyTorch, for tensors `leaves`."""

    def both() -> Any:
        y = function(x)
        return torch.autograd.grad(y, leaves, torch.full_like(y, 1e-3))

    def forward() -> Any:
        with torch.no_grad():
            return function(x)

    forward(), both()
    return forward, both


def layer_runs(layer: Layer, batch: int) -> dict[str, tuple[Run, Run]]:
    """All sides of one layer."""
    k, p, stride = layer.kernel, layer.padding, layer.stride
    x = draw(batch, layer.size, layer.size, layer.inputs)
    kernel = 0.05 * draw(k, k, layer.inputs, layer.outputs)
    wrt = (1,) if layer.name == "stem" else (0, 1)

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        if stride == 0:
            return convolution.conv2d_transposed_x2(x, kernel)
        return convolution.conv2d(x, kernel, stride=stride, padding=((p, p), (p, p)))

    runs = {"ours": jax_runs(convolve, x, kernel, wrt)}
    with mock.patch("jax.default_backend", return_value="accelerator"):
        runs["lax"] = jax_runs(convolve, x, kernel, wrt)
    if torch:
        image = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
        order = (2, 3, 0, 1) if stride == 0 else (3, 2, 0, 1)
        weight = torch.from_numpy(kernel).permute(*order).contiguous().requires_grad_()
        leaves = [weight] if layer.name == "stem" else [image.requires_grad_(), weight]

        def theirs(x: Any) -> Any:
            if stride == 0:
                return F.conv_transpose2d(x, weight, None, 2, 1, 1)
            return F.conv2d(x, weight, None, stride, p)

        runs["torch"] = torch_runs(theirs, image, leaves)
    return runs


def generator_runs(s: int, stack: int) -> dict[str, tuple[Run, Run]]:
    """All sides of the whole generator; a `stack` of generators is one `vmap` of ours."""
    net = NoiseGenerator()
    x = draw(stack, 1, s, s, 3) if stack else draw(1, s, s, 3)
    weights = jax.jit(net.init)(jax.random.key(0), x.reshape(-1, s, s, 3)[:1])
    if stack:
        weights = jax.tree.map(lambda w: jnp.stack([w] * stack), weights)

    def render(x: jax.Array, weights: Any) -> jax.Array:
        return (jax.vmap(net.apply) if stack else net.apply)(weights, x)

    runs = {"ours": jax_runs(render, x, weights, (1,))}
    if not stack:  # `lax` on a stack is a grouped convolution, and takes minutes
        with mock.patch("jax.default_backend", return_value="accelerator"):
            runs["lax"] = jax_runs(render, x, weights, (1,))
    if torch:
        theirs = nets.noise_generator()
        image = torch.from_numpy(x.reshape(-1, s, s, 3)[:1]).permute(0, 3, 1, 2).contiguous()
        once = torch_runs(theirs, image, list(theirs.parameters()))
        forward, both = (repeat(run, max(stack, 1)) for run in once)
        runs["torch"] = (forward, both)
    return runs


def repeat(run: Run, count: int) -> Run:
    """Runs `count` times."""
    return lambda: [run() for _ in range(count)]


def measure(runs: dict[str, tuple[Run, Run]], repeats: int) -> dict[str, list[timing.Taken]]:
    """Times of every repeat of `side forward` and `side both`."""
    each = {
        f"{side} {part}": run
        for side, parts in runs.items()
        for part, run in zip(("forward", "both"), parts, strict=True)
    }
    return timing.in_turns(each, repeats, warm=True)


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measures what the flags ask for."""
    for network in args.networks:
        for s in args.sizes:
            batch = 1 if network == "generator" else args.batch
            layers = (
                generator_layers(s) if network == "generator" else resnet18_layers(s, args.width)
            )
            for layer in layers:
                times = measure(layer_runs(layer, batch), args.repeats)
                name = f"{network} {s} px x{batch} {layer.name}"
                yield {"name": name, "count": layer.count, "times": times}
            if network == "generator":
                for stack in (0, *([args.stack] if args.stack and s == min(args.sizes) else [])):
                    times = measure(generator_runs(s, stack), args.repeats)
                    name = f"whole {network} {s} px" + (f", {stack} stacked" if stack else "")
                    yield {"name": name, "count": 1, "times": times}


def show(row: dict[str, Any], clock: int) -> None:
    """Prints one line: milliseconds (half the range) of each side, then PyTorch over ours."""
    cells, medians = [], {}
    for part in ("forward", "both"):
        for side in ("ours", "lax", "torch"):
            taken = [1e3 * pair[clock] for pair in row["times"].get(f"{side} {part}", ())]
            if taken:
                medians[side, part] = statistics.median(taken)
                spread = (max(taken) - min(taken)) / 2
                cells.append(f"{medians[side, part]:8.1f} ({spread:.1f})")
            else:
                cells.append("-")
        ratio = medians.get(("torch", part), float("nan")) / medians["ours", part]
        cells.append(f"{ratio:.2f}")
    print(f"{row['name'] + ' ·' + str(row['count']):34}", *(f"{c:>16}" for c in cells), flush=True)


def main() -> None:
    """Parses the flags, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["generator", "resnet18"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128, 224])
    parser.add_argument("--batch", type=int, default=32, help="images of a ResNet-18 layer")
    parser.add_argument("--width", type=int, default=64, help="ResNet-18's first stage")
    parser.add_argument("--stack", type=int, default=10, help="generators at the smallest size")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="to print")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "convolutions.json"
    )
    args = parser.parse_args()
    if torch:
        peers.use_all_cores()
    else:
        print("PyTorch is not installed: its columns stay empty (pip install torch)")
    titles = [f"{side} {part}" for part in ("f", "f+b") for side in ("ours", "lax", "torch", "x")]
    print(
        f"{args.clock} ms (half range), x: torch over ours".ljust(34), *(f"{t:>16}" for t in titles)
    )
    found = []
    for row in rows(args):
        found.append(row)
        show(row, ("wall", "cpu").index(args.clock))
    settings = {k: v if isinstance(v, int | str | list) else str(v) for k, v in vars(args).items()}
    result = {"settings": settings, **timing.machine("torch"), "rows": found}
    checkpoint.write_json(args.out, result)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
