"""The network that draws a noise image: the ResNet generator of Johnson et al. and of GAP.

Architecture as published (arXiv:1603.08155, arXiv:1712.02328): reflect-padded 7x7 convolution, two
stride-2 convolutions, residual blocks, two transposed convolutions, 7x7 convolution, tanh.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from ucjax.ops import convolution

# PyTorch's defaults, uniform within ±1/sqrt(fan_in), where a transposed convolution counts its
# outputs as fan_in.
_CONV_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_TRANSPOSED_INIT = nn.initializers.variance_scaling(
    1 / 3, "fan_in", "uniform", in_axis=-1, out_axis=-2
)


class NoiseGenerator(nn.Module):
    """Maps an image to an image of the same size.

    7,841,411 parameters at the published size: only the last convolution has a bias, for the
    others the normalisation's does.
    """

    width: int = 64
    blocks: int = 6

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Returns `[b, s, s, 3]` in (-1, 1) for `z` `[b, s, s, 3]`, each image on its own.

        Raises:
          ValueError: a side of `z` is no multiple of 4, or less than 8.
        """
        h, w = z.shape[1:3]
        if h % 4 or w % 4 or min(h, w) < 8:
            raise ValueError(f"z is {h}x{w}: its sides must be multiples of 4, at least 8")
        x = Conv(self.width, 7, name="stem")(_reflect(z, 3))
        x = nn.relu(ImageNorm(name="stem_norm")(x))
        for i in (1, 2):
            x = Conv(2**i * self.width, 3, stride=2, padding=1, name=f"down{i}")(x)
            x = nn.relu(ImageNorm(name=f"down{i}_norm")(x))
        for i in range(1, self.blocks + 1):
            x = ResidualBlock(name=f"block{i}")(x)
        for i in (1, 2):
            x = UpConv(4 * self.width // 2**i, name=f"up{i}")(x)
            x = nn.relu(ImageNorm(name=f"up{i}_norm")(x))
        bias_init = nn.initializers.uniform(2 / (7 * self.width**0.5))
        bias = self.param("bias", lambda key: bias_init(key, (3,)) - 1 / (7 * self.width**0.5))
        return jnp.tanh(Conv(3, 7, name="head")(_reflect(x, 3)) + bias.reshape(1, 1, 1, 3))


class ResidualBlock(nn.Module):
    """`x + norm(conv(relu(norm(conv(x)))))`, both convolutions 3x3 on reflected borders."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns an array of the shape `[b, h, w, c]` of `x`."""
        y = Conv(x.shape[-1], 3, name="conv1")(_reflect(x, 1))
        y = nn.relu(ImageNorm(name="norm1")(y))
        y = Conv(x.shape[-1], 3, name="conv2")(_reflect(y, 1))
        return x + ImageNorm(name="norm2")(y)


class Conv(nn.Module):
    """Convolution without bias."""

    features: int
    size: int
    stride: int = 1
    padding: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, h, w, c]` to `[b, h', w', features]`."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", _CONV_INIT, shape)
        padding = ((self.padding, self.padding), (self.padding, self.padding))
        return convolution.conv2d(x, kernel, stride=self.stride, padding=padding)


class UpConv(nn.Module):
    """Transposed 3x3 convolution without bias that doubles the sides."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, h, w, c]` to `[b, 2h, 2w, features]`."""
        kernel = self.param("kernel", _TRANSPOSED_INIT, (3, 3, x.shape[-1], self.features))
        return convolution.conv2d_transposed_x2(x, kernel)


class ImageNorm(nn.Module):
    """BatchNorm as it acts on a batch of one: every image by its own statistics, always."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises each channel of each image of `[b, h, w, c]` over h and w."""
        c = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (1, 1, 1, c))
        bias = self.param("bias", nn.initializers.zeros, (1, 1, 1, c))
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        variance = jnp.var(x, axis=(1, 2), keepdims=True)
        return (x - mean) * (scale * lax.rsqrt(variance + 1e-5)) + bias


def _reflect(x: jax.Array, width: int) -> jax.Array:
    """Pads h and w by mirrored pixels, the border itself not repeated."""
    return jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0)), mode="reflect")
