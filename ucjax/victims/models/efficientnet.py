"""EfficientNets (Tan and Le, arXiv:1905.11946): B1 as torchvision has it, Lite0 as TensorFlow.

Same functions, initialization and running statistics. Modules are called as in the project
EfficientNet-PyTorch, whose names the weights of Lite0 have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ucjax.networks.resnet import BatchNorm
from ucjax.ops import convolution
from ucjax.victims.models.dropout import Dropout

# Expansion, kernel, stride of the first block, output channels and repeats of each stage.
Stage = tuple[int, int, int, int, int]
LITE0: tuple[Stage, ...] = (
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4), (6, 3, 1, 320, 1),
)  # fmt: skip
B1: tuple[Stage, ...] = (
    (1, 3, 1, 16, 2), (6, 3, 2, 24, 3), (6, 5, 2, 40, 3), (6, 3, 2, 80, 4), (6, 5, 1, 112, 4),
    (6, 5, 2, 192, 5), (6, 3, 1, 320, 2),
)  # fmt: skip
_STEM, _DROPPED, _STOCHASTIC_DEPTH = 32, 0.2, 0.2
_kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Style(NamedTuple):
    """What tells Lite0 from the others.

    Attributes:
      lite: ReLU6 for SiLU, no squeeze-and-excitation, TensorFlow's padding, no dropping of blocks.
      epsilon: of BatchNorm.
      axis_name: mapped axis over which the batch is spread; None for none.
      tune: whether BatchNorm is in training mode while the head is trained.
    """

    lite: bool = False
    epsilon: float = 1e-5
    axis_name: str | None = None
    tune: bool = True

    def norm(self, name: str) -> BatchNorm:
        """Makes a BatchNorm."""
        return BatchNorm(self.axis_name, self.epsilon, name=name)

    def activate(self, x: jax.Array) -> jax.Array:
        """Applies ReLU6 or SiLU."""
        # ReLU6's own gradient is that of clamping, which keeps a byte an element.
        return lax.clamp(0.0, x, 6.0) if self.lite else nn.silu(x)


class EfficientNet(nn.Module):
    """An EfficientNet of width 1.

    Attributes:
      num_classes: number of logits.
      stages: `B1` or `LITE0`.
      head: channels before the mean over the last map.
      style: see `Style`.
    """

    num_classes: int
    stages: tuple[Stage, ...] = B1
    head: int = 1280
    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits `[b, num_classes]` of normalized images `[b, h, w, 3]`."""
        style, training = self.style, train and self.style.tune
        x = _Conv(_STEM, 3, 2, style.lite, name="conv_stem")(x)
        x = style.activate(style.norm("bn0")(x, training))
        blocks = list(_blocks(self.stages))
        for i, (expansion, kernel, stride, outputs) in enumerate(blocks):
            rate = 0.0 if style.lite else _STOCHASTIC_DEPTH * i / len(blocks)
            block = Block(expansion, kernel, stride, outputs, rate, style, name=f"blocks_{i}")
            x = block(x, training)
        x = _pointwise(self.head, "conv_head")(x)
        x = jnp.mean(style.activate(style.norm("bn1")(x, training)), (1, 2))
        x = Dropout(_DROPPED, style.axis_name)(x, training)
        # torchvision's: uniform within the inverse root of the number of outputs.
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")
        return nn.Dense(self.num_classes, kernel_init=uniform, name="fc")(x)


class Block(nn.Module):
    """An inverted residual block: 1x1 expansion, depthwise convolution, 1x1 projection."""

    expansion: int
    kernel: int
    stride: int
    outputs: int
    drop_rate: float
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Turns `[b, h, w, c]` into `[b, h/stride, w/stride, outputs]`."""
        style, inputs = self.style, x.shape[-1]
        y = x
        if self.expansion > 1:
            y = _pointwise(inputs * self.expansion, "expand_conv")(y)
            y = style.activate(style.norm("bn0")(y, train))
        y = _Depthwise(self.kernel, self.stride, style.lite, name="depthwise_conv")(y)
        y = style.activate(style.norm("bn1")(y, train))
        if not style.lite:
            y = y * self._excitation(jnp.mean(y, (1, 2)), max(inputs // 4, 1))[:, None, None]
        y = style.norm("bn2")(_pointwise(self.outputs, "project_conv")(y), train)
        if self.stride > 1 or inputs != self.outputs:
            return y
        return x + Dropout(self.drop_rate, style.axis_name, whole=True)(y, train)

    def _excitation(self, means: jax.Array, squeezed: int) -> jax.Array:
        few = nn.Dense(squeezed, kernel_init=_kaiming_fan_out, name="se_reduce")(means)
        again = nn.Dense(means.shape[-1], kernel_init=_kaiming_fan_out, name="se_expand")
        return nn.sigmoid(again(nn.silu(few)))


class _Conv(nn.Module):
    """Convolution without bias, padded as torchvision or as TensorFlow ("SAME")."""

    features: int
    size: int
    stride: int
    same: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `x` `[b, h, w, c]` with `kernel` `[size, size, c, features]`."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", _kaiming_fan_out, shape)
        padding = _padding(x, self.size, self.stride, self.same)
        return convolution.conv2d(x, kernel, stride=self.stride, padding=padding)


class _Depthwise(nn.Module):
    """Convolution of each channel by itself, without bias."""

    size: int
    stride: int
    same: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `x` `[b, h, w, c]` with `kernel` `[size, size, c]`."""
        channels = x.shape[-1]
        # torch's fan_out counts the channels of all groups.
        init = nn.initializers.normal((2 / (channels * self.size**2)) ** 0.5)
        kernel = self.param("kernel", init, (self.size, self.size, channels))
        padding = _padding(x, self.size, self.stride, self.same)
        return convolution.depthwise_conv2d(x, kernel, stride=self.stride, padding=padding)


def _padding(x: jax.Array, size: int, stride: int, same: bool) -> convolution.Padding:
    if same:
        return convolution.same_padding((x.shape[1], x.shape[2]), size, stride)
    return ((size // 2, size // 2), (size // 2, size // 2))


def _pointwise(features: int, name: str) -> nn.Dense:
    """A 1x1 convolution without bias; as a matrix product it is fast everywhere."""
    return nn.Dense(features, use_bias=False, kernel_init=_kaiming_fan_out, name=name)


def _blocks(stages: tuple[Stage, ...]) -> Iterator[tuple[int, int, int, int]]:
    """Yields expansion, kernel, stride and output channels of each block."""
    for expansion, kernel, stride, outputs, repeats in stages:
        for i in range(repeats):
            yield expansion, kernel, 1 if i else stride, outputs
