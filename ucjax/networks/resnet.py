"""ResNet-18 as torchvision defines it: the same function, initialisation and running statistics.

Parameters are named as there, so that `layer1.0.conv1.weight` is `layer1_0/conv1/kernel`; only
`downsample.0` and `downsample.1` are called `downsample_conv` and `downsample_bn`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ucjax.ops import convolution
from ucjax.ops.pooling import max_pool

_kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """Convolution without bias, padded by half its kernel: `[b, h, w, c]` to `[b, h', w', d]`."""

    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `x` with `kernel` `[size, size, c, features]`."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", _kaiming_fan_out, shape)
        half = self.size // 2
        padding = ((half, half), (half, half))
        return convolution.conv2d(x, kernel, stride=self.stride, padding=padding)


class BatchNorm(nn.Module):
    """Batch normalisation over all rows of all devices, as torch's.

    Flax's own keeps the biased batch variance in its running average; torch keeps the unbiased
    one, which a victim with few pixels in its last stage notices.
    """

    axis_name: str | None = None
    epsilon: float = 1e-5
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalizes `x` `[b, h, w, c]`; updates the collection `batch_stats` in training."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        mean, var = running_mean.value, running_var.value
        if train:
            mean, var, count = self._batch_statistics(x)
            if not self.is_initializing():
                rest = 1 - self.momentum
                unbiased = var * (count / max(count - 1, 1))
                running_mean.value = self.momentum * running_mean.value + rest * mean
                running_var.value = self.momentum * running_var.value + rest * unbiased
        gain = scale * lax.rsqrt(var + self.epsilon)
        return x * gain[None, None, None] + (bias - mean * gain)[None, None, None]

    def _batch_statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array, int]:
        moments = jnp.stack([jnp.mean(x, (0, 1, 2)), jnp.mean(jnp.square(x), (0, 1, 2))])
        count = x.size // x.shape[-1]
        if self.axis_name is not None:
            moments = lax.pmean(moments, self.axis_name)
            count *= lax.axis_size(self.axis_name)
        mean, mean_of_squares = moments
        return mean, jnp.maximum(mean_of_squares - jnp.square(mean), 0), count


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: `[b, h, w, c]` to `[b, h/stride, w/stride, d]`."""

    features: int
    stride: int = 1
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies the block; a 1x1 convolution fits the shortcut where the shape changes."""
        shortcut = x
        if self.stride > 1 or x.shape[-1] != self.features:
            shortcut = Conv(self.features, 1, self.stride, name="downsample_conv")(x)
            shortcut = BatchNorm(self.axis_name, name="downsample_bn")(shortcut, train)
        y = Conv(self.features, 3, self.stride, name="conv1")(x)
        y = nn.relu(BatchNorm(self.axis_name, name="bn1")(y, train))
        y = Conv(self.features, 3, name="conv2")(y)
        return nn.relu(BatchNorm(self.axis_name, name="bn2")(y, train) + shortcut)


class ResNet18(nn.Module):
    """ResNet-18 (He et al., arXiv:1512.03385) with `width` channels in its first stage.

    Attributes:
      num_classes: Number of logits; 0: the features instead.
      width: Channels of the stem and the first stage; 64 is the published network.
      axis_name: Mapped axis over which BatchNorm's statistics are averaged; None for none.
      small: Whether the stem is that for images of 32 pixels: 3x3, neither stride nor pooling.
    """

    num_classes: int
    width: int = 64
    axis_name: str | None = None
    small: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits `[b, num_classes]` of normalized images `[b, h, w, 3]`, or features."""
        size, stride = (3, 1) if self.small else (7, 2)
        x = Conv(self.width, size, stride, name="conv1")(x)
        x = BatchNorm(self.axis_name, name="bn1")(x, train)
        # Pooling before ReLU is the same function, on fewer values afterwards.
        x = nn.relu(x if self.small else max_pool(x))
        for stage in range(4):
            features = self.width * 2**stage
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"layer{stage + 1}_{block}"
                x = BasicBlock(features, stride, self.axis_name, name=name)(x, train)
        x = jnp.mean(x, (1, 2))
        if not self.num_classes:
            return x
        bound = x.shape[-1] ** -0.5

        def uniform(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return nn.Dense(self.num_classes, kernel_init=uniform, bias_init=uniform, name="fc")(x)
