"""CLIP's image tower, a vision transformer (arXiv:2103.00020), on transformers' Flax modules.

Features are the projected image embedding, not L2-normalized.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_flax_clip import FlaxCLIPVisionTransformer

from ucjax.errors import UserError
from ucjax.runtime import platforms
from ucjax.surrogates import pretrained
from ucjax.surrogates.base import Surrogate

DEFAULT = "openai/clip-vit-base-patch32"

_POSITIONS = "vision_model.embeddings.position_embedding.embedding"


class ImageTower(nn.Module):
    """`FlaxCLIPModel.get_image_features` without the text tower it would carry along."""

    config: CLIPVisionConfig
    dimensions: int
    dtype: Any = jnp.float32  # of all but the projection

    def setup(self) -> None:  # noqa: D102
        self.vision_model = FlaxCLIPVisionTransformer(self.config, dtype=self.dtype)
        self.visual_projection = nn.Dense(self.dimensions, use_bias=False, dtype=jnp.float32)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Maps normalized pixels `[b, s, s, 3]` to features `[b, d]`."""
        return self.visual_projection(self.vision_model(pixels).pooler_output)


def load(path: str, image_size: int, precision: str = "auto") -> Surrogate:
    """Loads a CLIP checkpoint of transformers: a folder or a Hugging Face id.

    Its text tower is not read. Position embeddings are interpolated if `image_size` is not the
    size the model was trained at.

    Raises:
      UserError: no such checkpoint, not CLIP, weights that do not fit, preprocessing that is
        not stated or contradicts the config, or an image size that its patches do not tile.
    """
    checkpoint = pretrained.find(path or DEFAULT)
    config, dimensions = _read_config(checkpoint)
    preprocessing = pretrained.read_preprocessing(checkpoint)
    patch = _check_size(checkpoint, config, image_size)
    tensors = dict(
        _to_flax(name, tensor)
        for name, tensor in pretrained.read_tensors(checkpoint, _is_image_tower).items()
    )
    embeddings = tensors.get(_POSITIONS)
    if embeddings is not None and len(embeddings) == 1 + (config.image_size // patch) ** 2:
        tensors[_POSITIONS] = _resize_positions(embeddings, image_size // patch)
    config.image_size = image_size
    tower = ImageTower(config, dimensions)
    blank = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    targets = jax.eval_shape(tower.init, jax.random.key(0), blank)["params"]
    params = pretrained.fill(checkpoint, "CLIP vision transformer", targets, tensors)

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
        id=f"clip:{checkpoint.name}",
        sha256=pretrained.sha256(checkpoint),
    )


def _read_config(checkpoint: pretrained.Checkpoint) -> tuple[CLIPVisionConfig, int]:
    """The image tower's config and the dimension of its projected features."""
    whole = pretrained.read_config(checkpoint, "config.json")
    kind = whole.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise UserError(
            f"{checkpoint.name}: config.json says model_type {kind!r} instead of 'clip': pass a "
            "CLIP vision transformer in transformers' layout"
        )
    vision = whole.get("vision_config", {}) if kind == "clip" else whole
    dimensions = whole.get("projection_dim")
    if not isinstance(vision, dict) or not isinstance(dimensions, int):
        raise UserError(f"{checkpoint.name}: config.json states no vision_config or projection_dim")
    return CLIPVisionConfig.from_dict(vision), dimensions


def _check_size(
    checkpoint: pretrained.Checkpoint, config: CLIPVisionConfig, image_size: int
) -> int:
    """Returns the patch size, which divides `image_size`."""
    values = pretrained.read_config(checkpoint, "preprocessor_config.json")
    crop = values.get("crop_size", config.image_size)
    crop = crop.get("height") if isinstance(crop, dict) else crop
    if crop != config.image_size:
        raise UserError(
            f"{checkpoint.name}: preprocessor_config.json crops to {crop} pixels but config.json "
            f"says {config.image_size}: these files belong to different models"
        )
    patch: int = config.patch_size
    if image_size < patch or image_size % patch:
        raise UserError(
            f"image size {image_size} is not a multiple of {patch}, the patch size of "
            f"{checkpoint.name}: choose {max(1, round(image_size / patch)) * patch}"
        )
    return patch


def _is_image_tower(name: str) -> bool:
    # Old checkpoints also store the constant 0, 1, 2, … as `position_ids`.
    towers = ("vision_model.", "visual_projection.")
    return name.startswith(towers) and not name.endswith("position_ids")


def _to_flax(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    if name.endswith("position_embedding.weight"):
        return _POSITIONS, tensor
    return pretrained.to_flax(name, tensor)


def _resize_positions(positions: np.ndarray, size: int) -> np.ndarray:
    """Interpolates embeddings `[1 + g², d]` of a g x g grid to `[1 + size², d]`.

    The first is the class token's. Equals transformers' `interpolate_pos_encoding`, which is
    torch's bicubic: Keys' cubic with a = -0.75 (jax.image.resize has -0.5), edges repeated, no
    anti-aliasing.
    """
    old = round((len(positions) - 1) ** 0.5)
    if old == size:
        return positions
    weights = _cubic_weights(old, size)
    grid = positions[1:].reshape(old, old, -1)
    resized = np.einsum("ai,bj,ijd->abd", weights, weights, grid, optimize=True)
    return np.concatenate([positions[:1], resized.reshape(size * size, -1).astype(np.float32)])


def _cubic_weights(n: int, size: int, a: float = -0.75) -> np.ndarray:
    """The matrix `[size, n]` that resizes one axis."""
    center = (np.arange(size) + 0.5) * n / size - 0.5
    first = np.floor(center).astype(int) - 1
    weights = np.zeros((size, n))
    for tap in range(4):
        x = np.abs(center - (first + tap))
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((x - 5) * x + 8) * x * a - 4 * a
        source = np.clip(first + tap, 0, n - 1)
        np.add.at(weights, (np.arange(size), source), np.where(x <= 1, near, far))
    return weights
