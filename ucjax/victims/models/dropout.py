"""Dropout whose numbers do not depend on the number of devices, as flax's own do."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


class Dropout(nn.Module):
    """Sets each number to 0 with probability `rate` and scales the others to keep their mean.

    Attributes:
      rate: in [0, 1).
      whole: whether whole images are dropped, as in stochastic depth (arXiv:1603.09382).
      axis_name: mapped axis over which the batch is spread; None for none.
    """

    rate: float
    axis_name: str | None = None
    whole: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Drops from `x` `[b, ...]` in training; draws from the numbers "dropout"."""
        if not train or self.rate == 0:
            return x
        key, first = self.make_rng("dropout"), jnp.int32(0)
        if self.axis_name is not None:
            first = lax.axis_index(self.axis_name) * len(x)
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(first + jnp.arange(len(x)))
        shape = (1,) * (x.ndim - 1) if self.whole else x.shape[1:]
        kept = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - self.rate, shape))(keys)
        return jnp.where(kept, x / (1 - self.rate), 0.0)
