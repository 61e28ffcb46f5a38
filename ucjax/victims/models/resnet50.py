"""ResNet-50 as torchvision defines it: the stride of a bottleneck is that of its 3x3 convolution.

Parameters are named as those of ResNet-18 (`models/resnet.py`).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ucjax.networks.resnet import BatchNorm, Conv
from ucjax.ops.pooling import max_pool

_WIDER = 4
# torch's Linear: uniform within 1 / sqrt(fan_in).
_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, shortcut: `[b, h, w, c]` to `[b, h/stride, w/stride, 4d]`."""

    features: int
    stride: int = 1
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies the block; a 1x1 convolution fits the shortcut where the shape changes."""
        shortcut, wide = x, _WIDER * self.features
        if self.stride > 1 or x.shape[-1] != wide:
            shortcut = Conv(wide, 1, self.stride, name="downsample_conv")(x)
            shortcut = BatchNorm(self.axis_name, name="downsample_bn")(shortcut, train)
        y = Conv(self.features, 1, name="conv1")(x)
        y = nn.relu(BatchNorm(self.axis_name, name="bn1")(y, train))
        y = Conv(self.features, 3, self.stride, name="conv2")(y)
        y = nn.relu(BatchNorm(self.axis_name, name="bn2")(y, train))
        y = Conv(wide, 1, name="conv3")(y)
        return nn.relu(BatchNorm(self.axis_name, name="bn3")(y, train) + shortcut)


class ResNet50(nn.Module):
    """ResNet-50 (He et al., arXiv:1512.03385) with `width` channels in its first stage.

    Attributes:
      num_classes: number of logits; 0: the features instead.
      width: channels of the stem; 64 is the published network.
      depths: blocks of each stage.
      axis_name: mapped axis over which BatchNorm's statistics are averaged; None for none.
    """

    num_classes: int
    width: int = 64
    depths: tuple[int, ...] = (3, 4, 6, 3)
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits `[b, num_classes]` of normalized images `[b, h, w, 3]`, or features."""
        x = Conv(self.width, 7, 2, name="conv1")(x)
        # Pooling before ReLU is the same function, on fewer values afterwards.
        x = nn.relu(max_pool(BatchNorm(self.axis_name, name="bn1")(x, train)))
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"layer{stage + 1}_{block}"
                x = Bottleneck(self.width * 2**stage, stride, self.axis_name, name=name)(x, train)
        x = jnp.mean(x, (1, 2))
        if not self.num_classes:
            return x
        bound = x.shape[-1] ** -0.5

        def uniform(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return nn.Dense(self.num_classes, kernel_init=_linear, bias_init=uniform, name="fc")(x)
