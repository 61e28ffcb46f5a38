"""What ucjax is compared with, in plain PyTorch: the published procedure and a victim's training.

Written for the benchmarks from what arXiv:2301.01217 and its code's settings say. On a GPU networks
run in channels_last, in bfloat16 where autocast allows it, and compiled; on a CPU as they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import Run

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_EPSILON = 16 / 255


def use_all_cores() -> None:
    """Gives PyTorch as many threads as this process has cores, which JAX takes by itself."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def ended(run: Run) -> Run:
    """Makes a call end when its work on the device has."""
    if DEVICE == "cpu":
        return run

    def whole() -> Any:
        result = run()
        torch.cuda.synchronize()
        return result

    return whole


def generator_pass(net: nn.Module, size: int) -> Run:
    """Forward and backward of a generator, for its parameters."""
    net = _placed(net.train())
    z, gradient = _images(1, size), torch.full((1, 3, size, size), 1e-3, device=DEVICE)

    def run() -> Any:
        with _autocast():
            noise = net(z)
        return torch.autograd.grad(noise.float(), list(net.parameters()), gradient)

    return run


def noise_step(
    surrogate: nn.Module, generators: Callable[[], nn.Module], *,
    p: int, batch: int, size: int, frozen: bool,
) -> Run:  # fmt: skip
    """Trains `p` generators by one batch, every image with the noise of one of them.

    With p = 1 and a surrogate that is not frozen it is the published step: the weights get
    gradients that nobody uses, and each generator sees every image in a step of its own.
    """
    surrogate = _placed(surrogate.eval().requires_grad_(not frozen))
    nets = [_placed(generators().train()) for _ in range(p)]
    weights = [parameter for net in nets for parameter in net.parameters()]
    optimizer = torch.optim.Adam(weights, 1e-4, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10_000, 1e-6)
    images, z = _images(batch, size), [_images(1, size) for _ in nets]
    cluster = torch.arange(batch, device=DEVICE) % p
    with torch.no_grad(), _autocast():
        features = surrogate(_normalized(images)).float()
    centers = features[torch.arange(p) % batch] + 1

    def run() -> Any:
        with _autocast():
            raw = torch.cat([net(x) for net, x in zip(nets, z, strict=True)])
            noise = raw.float().clamp(-_EPSILON, _EPSILON)
            features = surrogate(_normalized((images + noise[cluster]).clamp(0, 1)))
        goal = F.log_softmax(centers[(cluster + 1) % p], -1)
        seen = F.log_softmax(features.float(), -1)
        loss = F.kl_div(seen, goal, reduction="batchmean", log_target=True)
        optimizer.zero_grad()
        surrogate.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    return run


def input_gradient(net: nn.Module, batch: int, size: int) -> Run:
    """The gradient of half the squared features of a frozen network to its images."""
    net = _placed(net.eval().requires_grad_(False))
    images = _images(batch, size).requires_grad_()

    def run() -> Any:
        with _autocast():
            features = net(_normalized(images))
        return torch.autograd.grad(features.float().square().sum() / 2, images)

    return run


def victim_step(net: nn.Module, batch: int, size: int, classes: int) -> Run:
    """One step of a classifier's training: SGD with momentum, L2 decay and a cosine."""
    net = _placed(net.train())
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10_000)
    images, labels = _images(batch, size), torch.arange(batch, device=DEVICE) % classes

    def run() -> Any:
        with _autocast():
            loss = F.cross_entropy(net(_normalized(images)).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    return run


def _placed(net: nn.Module) -> nn.Module:
    if DEVICE == "cpu":
        return net
    return torch.compile(net.to(DEVICE, memory_format=torch.channels_last))


def _autocast() -> torch.autocast:
    return torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE != "cpu")


def _images(count: int, size: int) -> Tensor:
    images = torch.rand(count, 3, size, size, device=DEVICE)
    return images if DEVICE == "cpu" else images.to(memory_format=torch.channels_last)


def _normalized(images: Tensor) -> Tensor:
    return (images - 0.5) / 0.5
