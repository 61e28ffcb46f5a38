"""The model: a small CLIP as transformers defines it, begun as OpenAI began theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from transformers import CLIPConfig
from transformers.models.clip.modeling_flax_clip import FlaxCLIPModule

from tools.packaged_clip.data import IMAGE_SIZE
from tools.packaged_clip.prompts import Prompts
from ucjax.runtime import platforms
from ucjax.surrogates.base import Preprocessing
from ucjax.surrogates.pretrained import normalize

# Those of OpenAI's CLIP, so that programs made for it feed this one rightly too.
PREPROCESSING = Preprocessing(
    mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)
LARGEST_LOGIT_SCALE = 100.0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights.

    Attributes:
      patch: side of a patch in pixels, 8 or 16.
      width: of the image tower.
      layers: of the image tower.
      heads: of the image tower.
      dimensions: of the space that images and captions share.
      text_width: of the text tower, which has heads of 64.
      text_layers: of the text tower.
      epochs: passes over the training images.
      batch_size: images a step, over all devices.
      learning_rate: of Muon, for the matrices of the image tower's layers.
      adam_learning_rate: of Adam, for everything else. Both are reached after the warm-up and fall
        to 0 along a half cosine.
      warmup_epochs: of the learning rates, from 0.
      weight_decay: of matrices only.
      label_smoothing: share of a label spread over all classes.
      smallest_area: of a random crop, as a share of the image.
      colour: brightness, contrast and saturation vary by this share.
      seed: of weights, order, captions and views.
    """

    patch: int = 16
    width: int = 256
    layers: int = 6
    heads: int = 4
    dimensions: int = 256
    text_width: int = 128
    text_layers: int = 1
    epochs: int = 14
    batch_size: int = 128
    learning_rate: float = 2e-3
    adam_learning_rate: float = 1e-3
    warmup_epochs: float = 0.25
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    smallest_area: float = 0.5
    colour: float = 0.2
    seed: int = 0


def make(recipe: Recipe, prompts: Prompts) -> FlaxCLIPModule:
    """Returns the module; it computes in bfloat16 except on CPUs, which have no fast one."""
    text = {
        "vocab_size": prompts.end + 1,
        "hidden_size": recipe.text_width,
        "intermediate_size": 4 * recipe.text_width,
        "num_hidden_layers": recipe.text_layers,
        "num_attention_heads": max(recipe.text_width // 64, 1),
        "max_position_embeddings": prompts.ids.shape[1],
        "projection_dim": recipe.dimensions,
        "pad_token_id": 0,
        "eos_token_id": prompts.end,
    }
    vision = {
        "hidden_size": recipe.width,
        "intermediate_size": 4 * recipe.width,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "image_size": IMAGE_SIZE,
        "patch_size": recipe.patch,
        "projection_dim": recipe.dimensions,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=recipe.dimensions)
    return FlaxCLIPModule(config, dtype=platforms.compute_dtype())


def init(module: FlaxCLIPModule, seed: int) -> Any:
    """Draws parameters (host arrays), the image tower's at the scales of OpenAI's code.

    transformers' Flax modules start nearly all matrices at a standard deviation of 0.01, whatever
    their width: far below the usual, which costs a short training its first epochs.
    """
    config, rng = module.config, np.random.default_rng(seed)
    ids = jnp.zeros((1, config.text_config.max_position_embeddings), jnp.int32)
    pixels = jnp.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3))
    shapes = jax.eval_shape(module.init, jax.random.key(0), ids, pixels, ids, ids)["params"]
    flat = traverse_util.flatten_dict(shapes)
    for name, shape in flat.items():
        tower = config.vision_config if name[0].startswith("vis") else config.text_config
        mean, deviation = _scale(name, tower.hidden_size, tower.num_hidden_layers)
        flat[name] = np.float32(mean + deviation * rng.standard_normal(shape.shape))
    flat["logit_scale",] = np.float32(config.logit_scale_init_value)
    return traverse_util.unflatten_dict(flat)


def _scale(name: tuple[str, ...], width: int, layers: int) -> tuple[float, float]:
    """Mean and standard deviation of a parameter at the start."""
    if name[-1] in ("bias", "scale", "logit_scale"):
        return float(name[-1] == "scale"), 0.0
    text = name[0] == "text_model"
    # Captions begin as nearly the sum of their words: attention even, positions faint. Else
    # templates would move a class's words about, and with them, at random, its feature.
    scales = {
        "class_embedding": width**-0.5,
        "patch_embedding": 0.02,
        "token_embedding": 0.02,
        "position_embedding": 0.002 if text else width**-0.5,
        "q_proj": width**-0.5 * (0.2 if text else 1.0),
        "k_proj": width**-0.5 * (0.2 if text else 1.0),
        "v_proj": width**-0.5,
        "out_proj": width**-0.5 * (1.0 if text else (2 * layers) ** -0.5),
        "fc1": (2 * width) ** -0.5,
        "fc2": width**-0.5 * (2 * layers) ** -0.5,
        "visual_projection": width**-0.5,
        "text_projection": width**-0.5,
    }
    return 0.0, scales[name[-1] if name[-1] in scales else name[-2]]


def embed_images(module: FlaxCLIPModule, params: Any, images: jax.Array) -> jax.Array:
    """Maps images `[b, s, s, 3]` in [0, 1] to unit vectors `[b, d]`, float32."""

    def tower(module: FlaxCLIPModule, pixels: jax.Array) -> jax.Array:
        return module.visual_projection(module.vision_model(pixels).pooler_output)

    pixels = normalize(images, PREPROCESSING)
    features: Any = module.apply({"params": params}, pixels, method=tower)
    return unit(features.astype(jnp.float32))


def embed_captions(module: FlaxCLIPModule, params: Any, ids: jax.Array) -> jax.Array:
    """Maps tokens `[n, length]` to features `[n, d]`, float32, to go through `apart`."""

    def tower(module: FlaxCLIPModule, ids: jax.Array) -> jax.Array:
        positions = jnp.broadcast_to(jnp.arange(ids.shape[1])[None], ids.shape)
        pooled = module.text_model(ids, (ids > 0).astype(jnp.int32), positions).pooler_output
        return module.text_projection(pooled)

    features: Any = module.apply({"params": params}, ids, method=tower)
    return features.astype(jnp.float32)


def apart(features: jax.Array) -> jax.Array:
    """Maps one feature of every class, `[classes, d]`, to unit vectors without their mean.

    Captions share most of their words, and what they share, a direction common to all, tells no
    class from another. Left in, it is the easiest thing to learn: in a trial the classes' mean
    cosine rose from 0.89 to 0.99 within a hundred steps.
    """
    return unit(features - features.mean(axis=0, keepdims=True))


def unit(x: jax.Array) -> jax.Array:
    """Divides vectors `[n, d]` by their lengths."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
