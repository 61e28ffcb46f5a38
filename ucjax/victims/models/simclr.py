"""SimCLR: an encoder that learns from images without labels, and a linear probe on it.

Source: Chen et al., arXiv:2002.05709. `victims/pretraining.py` trains `Contrasted`; what it learns
of the encoder is where the probe starts.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

_DIMENSIONS = 128
_TEMPERATURE = 0.07


class Probed(nn.Module):
    """A linear layer on the features of an encoder that is not trained.

    Attributes:
      encoder: called as `(x, train=…)`, gives features `[b, d]`.
      num_classes: number of logits.
    """

    encoder: nn.Module
    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits `[b, num_classes]` of normalized images `[b, h, w, 3]`."""
        del train  # BatchNorm keeps its averages
        return nn.Dense(self.num_classes, name="fc")(self.encoder(x, train=False))


class Contrasted(nn.Module):
    """What SimCLR compares views by: two more layers on the features, of length 1.

    Attributes:
      encoder: as that of `Probed`.
    """

    encoder: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[b, 128]` of normalized images `[b, h, w, 3]`."""
        features = self.encoder(x, train=train)
        hidden = nn.relu(nn.Dense(features.shape[-1], name="head1")(features))
        found = nn.Dense(_DIMENSIONS, name="head2")(hidden)
        return found * lax.rsqrt(jnp.sum(jnp.square(found), -1, keepdims=True) + 1e-12)


def in_head(path: tuple[str, ...]) -> bool:
    """Whether a parameter is one of the probe's."""
    return path[0] == "fc"


def contrast(first: jax.Array, second: jax.Array, axis_name: str) -> jax.Array:
    """Returns NT-Xent, the mean over this device's share of both views.

    The cross entropy of finding an image's other view among all other views of the whole batch,
    by the cosine over a temperature of 0.07, which is that of the authors of Unlearnable Clusters.

    Args:
      first: a view of each image of this device's share, of length 1, `[b, d]`.
      second: another view of each.
      axis_name: the mapped axis over which the batch is spread.
    """
    count = len(first)
    mine = jnp.concatenate([first, second])
    all_first, all_second = (lax.all_gather(x, axis_name, tiled=True) for x in (first, second))
    whole = len(all_first)
    similar = mine @ jnp.concatenate([all_first, all_second]).T / _TEMPERATURE
    row = lax.axis_index(axis_name) * count + jnp.arange(count)
    itself = jnp.concatenate([row, whole + row])
    other = jnp.concatenate([whole + row, row])
    similar = jnp.where(jnp.arange(2 * whole)[None] == itself[:, None], -jnp.inf, similar)
    positive = jnp.take_along_axis(similar, other[:, None], 1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(similar, axis=1) - positive)
