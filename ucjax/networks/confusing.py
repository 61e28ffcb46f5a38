"""The networks of DeepConfuse (Feng et al., NeurIPS 2019): generators of noise and classifiers.

They are differentiated twice, so convolutions are flax's own: those of `ops.convolution` have a
first derivative only.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ucjax.networks.resnet import BatchNorm


class UNet(nn.Module):
    """A U-Net of four levels for small images, sides divisible by 8.

    Attributes:
      width: channels of the first level, doubled at each.
      axis_name: mapped axis of BatchNorm's statistics; None for none.
    """

    width: int = 64
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns noise `[b, s, s, 3]` in [-1, 1] of pixels in [0, 1]."""
        skips = []
        for level in range(4):
            x = self._pair(x, self.width * 2**level, train)
            if level < 3:
                skips.append(x)
                b, h, w, c = x.shape
                x = x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
        for level in (2, 1, 0):
            x = jnp.concatenate([skips[level], _doubled(x)], -1)
            x = self._pair(x, self.width * 2**level, train)
        return jnp.tanh(BatchNorm(self.axis_name)(nn.Conv(3, (1, 1))(x), train))

    def _pair(self, x: jax.Array, features: int, train: bool) -> jax.Array:
        for _ in range(2):
            x = nn.relu(BatchNorm(self.axis_name)(nn.Conv(features, (3, 3))(x), train))
        return x


class Autoencoder(nn.Module):
    """Four strided convolutions and their counterparts for large images, sides divisible by 16.

    Attributes:
      width: channels of the first; 16 is the published network.
      axis_name: mapped axis of BatchNorm's statistics; None for none.
    """

    width: int = 16
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns noise `[b, s, s, 3]` in [-1, 1] of pixels in [0, 1]."""
        for level in range(4):
            x = nn.Conv(self.width * 2**level, (4, 4), (2, 2), padding=1)(x)
            x = nn.relu(BatchNorm(self.axis_name)(x, train))
        for level in (2, 1, 0):
            x = nn.ConvTranspose(self.width * 2**level, (4, 4), (2, 2))(x)
            x = nn.relu(BatchNorm(self.axis_name)(x, train))
        return jnp.tanh(nn.ConvTranspose(3, (4, 4), (2, 2))(x))


class Stacked(nn.Module):
    """3x3 convolutions with BatchNorm and 2x2 max-pools, then the mean and a linear layer.

    Attributes:
      num_classes: number of logits.
      features: channels of each convolution; 0 stands for a pool.
      grid: side of the maps of means that the linear layer sees, where it divides; else 1.
      axis_name: mapped axis of BatchNorm's statistics; None for none.
    """

    num_classes: int
    features: tuple[int, ...]
    grid: int = 1
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits `[b, num_classes]` of pixels `[b, s, s, 3]`."""
        for features in self.features:
            if features:
                x = nn.relu(BatchNorm(self.axis_name)(nn.Conv(features, (3, 3))(x), train))
            elif min(x.shape[1:3]) > 1:
                b, h, w, c = x.shape
                x = x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))
        side = self.grid if x.shape[1] % self.grid == 0 else 1
        b, h, w, c = x.shape
        x = x.reshape(b, side, h // side, side, w // side, c).mean((2, 4))
        return nn.Dense(self.num_classes)(x.reshape(b, -1))


VGG11 = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)
FIVE = (32, 0, 64, 0, 128, 0, 128, 0, 128, 0)


def _doubled(x: jax.Array) -> jax.Array:
    """Enlarges `[b, h, w, c]` bilinearly to twice its sides, corners on corners."""

    def weights(side: int) -> jax.Array:
        where = jnp.linspace(0, side - 1, 2 * side)
        return jnp.maximum(1 - jnp.abs(where[:, None] - jnp.arange(side)[None]), 0)

    return jnp.einsum("ij,kl,bjlc->bikc", weights(x.shape[1]), weights(x.shape[2]), x)
