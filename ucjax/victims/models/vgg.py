"""A small VGG: what a quick, shallow victim sees at its images' own scale."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ucjax.networks.resnet import BatchNorm, Conv
from ucjax.ops.pooling import max_pool


class VGG6(nn.Module):
    """Six 3x3 convolutions in three pairs, after VGG (arXiv:1409.1556), with BatchNorm.

    Each pair works at half the resolution and twice the channels of the one before; the mean over
    the last map goes to one linear layer.

    Attributes:
      num_classes: Number of logits.
      width: Channels of the first pair.
      axis_name: Mapped axis over which BatchNorm's statistics are averaged; None for none.
    """

    num_classes: int
    width: int = 32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits `[b, num_classes]` of normalized images `[b, h, w, 3]`."""
        for stage in range(3):
            for layer in (1, 2):
                x = Conv(self.width * 2**stage, 3, name=f"conv{stage + 1}_{layer}")(x)
                norm = BatchNorm(self.axis_name, name=f"bn{stage + 1}_{layer}")
                x = norm(x, train)
                x = nn.relu(max_pool(x) if layer == 2 else x)
        return nn.Dense(self.num_classes, name="fc")(jnp.mean(x, (1, 2)))
