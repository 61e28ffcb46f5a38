"""RegNetX-1.6GF (Radosavovic et al., arXiv:2003.13678) as torchvision defines it.

On a CPU its grouped convolutions are slow.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ucjax.networks.resnet import BatchNorm, Conv

_STEM = 32
# torch's fan_out counts the channels of all groups, as flax's does.
_kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class RegNet(nn.Module):
    """A RegNet of type X: a stem of stride 2, then stages that each begin with stride 2.

    Attributes:
      num_classes: number of logits.
      widths: channels of each stage.
      depths: blocks of each stage.
      group_width: channels of a group of the 3x3 convolutions.
      axis_name: mapped axis over which BatchNorm's statistics are averaged; None for none.
    """

    num_classes: int
    widths: tuple[int, ...] = (72, 168, 408, 912)
    depths: tuple[int, ...] = (2, 4, 10, 2)
    group_width: int = 24
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits `[b, num_classes]` of normalized images `[b, h, w, 3]`."""
        x = Conv(_STEM, 3, 2, name="stem_conv")(x)
        x = nn.relu(BatchNorm(self.axis_name, name="stem_bn")(x, train))
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            for i in range(depth):
                block = Block(
                    width, 1 if i else 2, self.group_width, self.axis_name,
                    name=f"block{stage + 1}_{i}",
                )  # fmt: skip
                x = block(x, train)
        few = nn.initializers.normal(0.01)
        return nn.Dense(self.num_classes, kernel_init=few, name="fc")(jnp.mean(x, (1, 2)))


class Block(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolution and a shortcut, all of the stage's width."""

    width: int
    stride: int
    group_width: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Turns `[b, h, w, c]` into `[b, h/stride, w/stride, width]`."""

        def norm(name: str, y: jax.Array) -> jax.Array:
            return BatchNorm(self.axis_name, name=f"{name}_bn")(y, train)

        shortcut = x
        if self.stride > 1 or x.shape[-1] != self.width:
            shortcut = norm("proj", Conv(self.width, 1, self.stride, name="proj_conv")(x))
        y = nn.relu(norm("a", Conv(self.width, 1, name="a_conv")(x)))
        y = GroupedConv(self.width // self.group_width, self.stride, name="b_conv")(y)
        y = nn.relu(norm("b", y))
        return nn.relu(norm("c", Conv(self.width, 1, name="c_conv")(y)) + shortcut)


class GroupedConv(nn.Module):
    """3x3 convolution in groups, without bias, of as many channels as it has."""

    groups: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `x` `[b, h, w, c]` with `kernel` `[3, 3, c / groups, c]`."""
        channels = x.shape[-1]
        shape = (3, 3, channels // self.groups, channels)
        kernel = self.param("kernel", _kaiming_fan_out, shape)
        return lax.conv_general_dilated(
            x, kernel, (self.stride, self.stride), ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=self.groups,
        )  # fmt: skip
