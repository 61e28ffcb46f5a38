"""Vision Transformers (Dosovitskiy et al., arXiv:2010.11929) as torchvision defines them.

The same function and initialization, so that ViT-B/16 is `ViT(classes, width=64, heads=12)` with
patches of 16 pixels. There is no BatchNorm in them.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ucjax.errors import UserError
from ucjax.victims.models.dropout import Dropout

_EPSILON = 1e-6
_xavier = nn.initializers.xavier_uniform()
_tiny = nn.initializers.normal(1e-6)
# torch's Linear: uniform within 1 / sqrt(fan_in).
_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# torch's trunc_normal_ cuts at +-2, far outside, so that nothing is cut.
_patches = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Attention(nn.Module):
    """Self-attention of several heads: `[b, t, d]` to the same shape."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Lets every token look at all."""
        b, t, d = x.shape
        qkv = nn.Dense(3 * d, kernel_init=_xavier, name="in_proj")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(b, t, 3, self.heads, d // self.heads), 2, 0)
        scores = jnp.einsum("bqhc,bkhc->bhqk", q, k) * (d // self.heads) ** -0.5
        mixed = jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(scores), v)
        return nn.Dense(d, kernel_init=_linear, name="out_proj")(mixed.reshape(b, t, d))


class Block(nn.Module):
    """Attention, then two layers on each token, both after LayerNorm and beside a shortcut."""

    heads: int
    dropout: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies the block to `[b, t, d]`."""
        d = x.shape[-1]

        def dropped(y: jax.Array) -> jax.Array:
            return Dropout(self.dropout, self.axis_name)(y, train)

        y = nn.LayerNorm(_EPSILON, name="ln_1")(x)
        x = x + dropped(Attention(self.heads, name="self_attention")(y))
        y = nn.LayerNorm(_EPSILON, name="ln_2")(x)
        y = nn.Dense(4 * d, kernel_init=_xavier, bias_init=_tiny, name="mlp_0")(y)
        y = dropped(nn.gelu(y, approximate=False))
        return x + dropped(nn.Dense(d, kernel_init=_xavier, bias_init=_tiny, name="mlp_3")(y))


class ViT(nn.Module):
    """A Vision Transformer with a class token and learnt positions.

    Attributes:
      num_classes: number of logits.
      width: channels of a head, so that tokens have `heads * width`; 64 in the published ones.
      heads: of each attention.
      depth: number of blocks.
      patch: side of the patches in pixels; 0: 16 for images of 128 pixels and more, 8 from 64 on,
        4 below.
      dropout: after the positions and within each block, in training.
      axis_name: mapped axis over which the batch is spread; None for none.
    """

    num_classes: int
    width: int = 64
    heads: int = 12
    depth: int = 12
    patch: int = 0
    dropout: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits `[b, num_classes]` of normalized images `[b, h, w, 3]`.

        Raises:
          UserError: the sides are no multiples of the patch's.
        """
        d = self.heads * self.width
        tokens = nn.Dense(d, kernel_init=_patches, name="conv_proj")(self._patches(x))
        token = self.param("class_token", nn.initializers.zeros, (1, 1, d))
        tokens = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, d)), tokens], 1)
        where = nn.initializers.normal(0.02)
        tokens = tokens + self.param("pos_embedding", where, (1, tokens.shape[1], d))
        tokens = Dropout(self.dropout, self.axis_name)(tokens, train)
        for i in range(self.depth):
            block = Block(self.heads, self.dropout, self.axis_name, name=f"encoder_layer_{i}")
            tokens = block(tokens, train)
        first = nn.LayerNorm(_EPSILON, name="ln")(tokens)[:, 0]
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(first)

    def _patches(self, x: jax.Array) -> jax.Array:
        """Cuts `[b, h, w, 3]` into squares: `[b, patches, patch * patch * 3]`, row by row."""
        b, h, w, c = x.shape
        patch = self.patch or (16 if min(h, w) >= 128 else 8 if min(h, w) >= 64 else 4)
        if h % patch or w % patch:
            raise UserError(
                f"images of {h} px do not divide into patches of {patch} px: "
                f"config.victim.crop may be {max(h // patch, 1) * patch} for this model"
            )
        x = x.reshape(b, h // patch, patch, w // patch, patch, c)
        return x.swapaxes(2, 3).reshape(b, -1, patch * patch * c)
