"""CLIP's ResNet-50 image tower (arXiv:2103.00020): the surrogate of "UC-CLIP".

A ResNet with a stem of three convolutions, average pooling before every stride, and attention
pooling in place of the mean. Features are its output, not L2-normalized.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ucjax.errors import UserError
from ucjax.ops.convolution import conv2d
from ucjax.runtime import platforms
from ucjax.surrogates import pretrained
from ucjax.surrogates.base import Surrogate

DEFAULT = "timm/resnet50_clip.openai"

_STRIDE = 32
_HEAD_WIDTH = 64
_BATCH_NORM_EPSILON = 1e-5
# timm's names, then open_clip's, made ours; applied in order, each at most once a name.
_RENAMES = (
    (r"^visual\.", ""),
    (r"^stem\.conv([1-3])\.(conv|bn)\.", r"conv\1."),
    (r"^stages\.([0-3])\.", lambda m: f"layer{int(m[1]) + 1}."),
    (r"\.conv([1-3])_(1x1|kxk)\.(conv|bn)\.", r".conv\1."),
    (r"\.shortcut\.conv\.(conv|bn)\.", ".downsample."),
    (r"^head\.pos_embed$", "attnpool.positional_embedding"),
    (r"^head\.([qkv])\.", r"attnpool.\1_proj."),
    (r"^head\.proj\.", "attnpool.c_proj."),
    (r"^layer([1-4])\.(\d+)\.", r"layer\1_\2."),
    (r"\bbn([1-3])\.", r"conv\1."),
    (r"\.downsample\.[01]\.", ".downsample."),
)
_POSITIONS = "attnpool.positional_embedding"


class ConvNorm(nn.Module):
    """A convolution without bias, then batch normalisation by running statistics."""

    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, h, w, c]` to `[b, h / stride, w / stride, features]`."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        vector = (self.features,)
        scale = self.param("scale", nn.initializers.ones, vector)
        bias = self.param("bias", nn.initializers.zeros, vector)
        mean = self.param("mean", nn.initializers.zeros, vector)
        var = self.param("var", nn.initializers.ones, vector)
        gain = scale * jax.lax.rsqrt(var + _BATCH_NORM_EPSILON)
        pad = (self.size // 2, self.size // 2)
        y = conv2d(x, kernel.astype(x.dtype), stride=self.stride, padding=(pad, pad))
        y = y * gain.reshape(1, 1, 1, -1) + (bias - mean * gain).reshape(1, 1, 1, -1)
        return y.astype(x.dtype)


class Bottleneck(nn.Module):
    """A residual block of widths w, w, 4w whose stride is average pooling."""

    width: int
    stride: int
    project: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, h, w, c]` to `[b, h / stride, w / stride, 4 width]`."""
        y = nn.relu(ConvNorm(self.width, 1, name="conv1")(x))
        y = nn.relu(ConvNorm(self.width, 3, name="conv2")(y))
        y = ConvNorm(4 * self.width, 1, name="conv3")(_average_pool(y, self.stride))
        if self.project:
            x = ConvNorm(4 * self.width, 1, name="downsample")(_average_pool(x, self.stride))
        return nn.relu(x + y)


class AttentionPool(nn.Module):
    """One query, the mean over the grid, attends to the grid and itself."""

    dimensions: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, h, w, c]` to `[b, dimensions]`."""
        b, h, w, c = x.shape
        heads = c // _HEAD_WIDTH
        tokens = x.reshape(b, h * w, c)
        tokens = jnp.concatenate([tokens.mean(axis=1, keepdims=True), tokens], axis=1)
        positions = self.param("positional_embedding", nn.initializers.zeros, (1 + h * w, c))
        tokens = tokens + positions[None]

        def project(name: str, tokens: jax.Array) -> jax.Array:
            y = nn.Dense(c, dtype=x.dtype, name=name)(tokens)
            return y.astype(jnp.float32).reshape(*tokens.shape[:-1], heads, _HEAD_WIDTH)

        query = project("q_proj", tokens[:, 0])
        key, value = project("k_proj", tokens), project("v_proj", tokens)
        scores = jnp.einsum("bhd,bthd->bht", query, key) / _HEAD_WIDTH**0.5
        pooled = jnp.einsum("bht,bthd->bhd", nn.softmax(scores), value).reshape(b, c)
        return nn.Dense(self.dimensions, name="c_proj")(pooled)


class ModifiedResNet(nn.Module):
    """The image tower; `depths` are the blocks of its four stages."""

    width: int
    depths: tuple[int, ...]
    dimensions: int
    dtype: Any = jnp.float32  # of all but the attention's end

    @nn.compact
    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Maps normalized pixels `[b, s, s, 3]` to features `[b, dimensions]`."""
        x = pixels.astype(self.dtype)
        x = nn.relu(ConvNorm(self.width // 2, 3, stride=2, name="conv1")(x))
        x = nn.relu(ConvNorm(self.width // 2, 3, name="conv2")(x))
        x = _average_pool(nn.relu(ConvNorm(self.width, 3, name="conv3")(x)), 2)
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"layer{stage + 1}_{block}"
                x = Bottleneck(self.width << stage, stride, project=block == 0, name=name)(x)
        return AttentionPool(self.dimensions, name="attnpool")(x)


def _average_pool(x: jax.Array, size: int) -> jax.Array:
    b, h, w, c = x.shape
    return x.reshape(b, h // size, size, w // size, size, c).mean(axis=(2, 4)) if size > 1 else x


def load(path: str, image_size: int, precision: str = "auto") -> Surrogate:
    """Loads a CLIP ResNet of open_clip or timm: a folder, weight file or Hugging Face id.

    The text tower of an open_clip checkpoint is not read. Position embeddings are interpolated
    if `image_size` is not the size the model was trained at.

    Raises:
      UserError: no such checkpoint, weights that do not fit, preprocessing that is not stated,
        or an image size that is not a multiple of the network's stride.
    """
    if image_size < _STRIDE or image_size % _STRIDE:
        raise UserError(
            f"image size {image_size} is not a multiple of {_STRIDE}, a CLIP ResNet's total "
            f"stride: choose {max(1, round(image_size / _STRIDE)) * _STRIDE}"
        )
    checkpoint = pretrained.find(path or DEFAULT)
    preprocessing = pretrained.read_preprocessing(checkpoint)
    tensors = dict(
        _to_flax(name, tensor)
        for name, tensor in pretrained.read_tensors(checkpoint, _is_image_tower).items()
    )
    tower = _tower_of(checkpoint, tensors)
    tensors[_POSITIONS] = _resize_positions(tensors[_POSITIONS], image_size // _STRIDE)
    blank = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    targets = jax.eval_shape(tower.init, jax.random.key(0), blank)["params"]
    params = pretrained.fill(checkpoint, "CLIP ResNet", targets, tensors)

    def embed(params: Any, images: jax.Array) -> jax.Array:
        pixels = pretrained.normalize(images, preprocessing)
        network = tower.clone(dtype=platforms.compute_dtype(precision))
        features: Any = network.apply({"params": params}, pixels)
        return features

    return Surrogate(
        embed=embed,
        params=params,
        image_size=image_size,
        preprocessing=preprocessing,
        id=f"clip_rn50:{checkpoint.name}",
        sha256=pretrained.sha256(checkpoint),
    )


def _is_image_tower(name: str) -> bool:
    towers = ("visual.", "stem.", "stages.", "head.")
    return name.startswith(towers) and not name.endswith("num_batches_tracked")


def _to_flax(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name, count=1)
    return pretrained.to_flax(name, tensor)


def _tower_of(checkpoint: pretrained.Checkpoint, tensors: pretrained.Tensors) -> ModifiedResNet:
    """The network these weights are of, by their shapes."""
    depths = tuple(
        sum(bool(re.fullmatch(rf"layer{stage}_\d+\.conv1\.kernel", name)) for name in tensors)
        for stage in (1, 2, 3, 4)
    )
    needed = ("conv3.kernel", _POSITIONS, "attnpool.c_proj.kernel")
    missing = [name for name in needed if name not in tensors]
    if missing or not all(depths):
        raise UserError(
            f"{checkpoint.name}: these are not the weights of a CLIP ResNet: its stages have "
            f"{depths} blocks and {', '.join(missing) or 'nothing else'} is missing: pass a "
            "checkpoint of open_clip or timm such as " + DEFAULT
        )
    width, dimensions = (
        tensors["conv3.kernel"].shape[-1],
        tensors["attnpool.c_proj.kernel"].shape[1],
    )
    return ModifiedResNet(width, depths, dimensions)


def _resize_positions(positions: np.ndarray, size: int) -> np.ndarray:
    """Interpolates `[1 + g², c]` to `[1 + size², c]`, as timm and open_clip do.

    The first is the mean's. Both libraries use the anti-aliased bicubic with a = -0.5.
    """
    old = round((len(positions) - 1) ** 0.5)
    if old == size or old * old != len(positions) - 1:
        return positions
    grid = positions[1:].reshape(old, old, -1)
    resized = jax.image.resize(grid, (size, size, grid.shape[-1]), "bicubic", antialias=True)
    return np.concatenate([positions[:1], np.asarray(resized).reshape(size * size, -1)])
