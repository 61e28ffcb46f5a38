"""From trained parameters to a folder that ucjax and transformers read, with its model card."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import save
from transformers import CLIPConfig

from tools.packaged_clip.model import PREPROCESSING, Recipe
from ucjax.runtime import checkpoint

SHIPPED = ("vision_model", "visual_projection")
# The others, of generation and the like, mean nothing here.
_CONFIG_KEYS = (
    "model_type", "image_size", "patch_size", "num_channels", "hidden_size", "intermediate_size",
    "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps", "projection_dim",
)  # fmt: skip
_CARD = """# A small CLIP image tower

A surrogate that comes with ucjax, for use offline (`config.surrogate.name = "packaged_clip"`): the
image half of a CLIP (arXiv:2103.00020) of {million:.1f} million parameters for {size} px, a vision
transformer with patches of {patch} px, width {width}, {layers} layers and {heads} heads, projected
to {dimensions} dimensions. Trained from scratch by `tools/packaged_clip/train.py`; nothing of
another model is in it.

| | |
|---|---|
| zero-shot top-1 | {top1:.2f} % of {val_images:,} validation images (chance {chance:.1f} %) |
| training images | {train_images:,}, {epochs:.1f} passes |
| time, hardware | {minutes:.0f} minutes on {hardware} |
| weights | `model.safetensors`, float16, {megabytes:.1f} MB |
| sha256 | `{sha256}` |

Zero-shot here means: the nearest of the classes' caption embeddings, each the mean over all
synonyms and templates. The captions are those of training, so this is the accuracy on unseen
images of known classes, as measured with the float16 weights in this folder.

## Data and terms

A part of Tiny-ImageNet: {train_images:,} images of {size} px in {classes} classes of ImageNet; none
of them is in this folder. ImageNet's terms of access allow non-commercial research and education;
take the weights under the same terms. The code that made them is ucjax's own, under Apache-2.0.

## Recipe

Every step shows the text tower one caption of each class, a synonym drawn from its own in one of
eight templates, and every image must pick its class's among all. The text tower, with a vocabulary
of its own, is not shipped. Views: random resized crops, flips, mild colour.

{recipe}

On a GPU the same script can afford patches of 8 px and more passes (`--patch=8 --epochs=90
--batch-size=1024`), to replace this folder; what these give has not been measured yet.

## What it is not

Not OpenAI's CLIP, nor comparable to one: it has seen {classes} kinds of things in {train_images:,}
small images. Not a classifier, and without its text tower not usable as one. Its features carry
ImageNet's selection of things, places and people. A protection made with it holds, at best, as
far as has been measured with it: make one that matters with a larger surrogate.
"""


class Measured(NamedTuple):
    """What the card states beyond the recipe."""

    train_images: int
    val_images: int
    classes: int
    epochs: float  # passes made, which a training exported early has not finished
    minutes: float  # of training, with its starts and tests, to the last checkpoint
    hardware: str
    zero_shot_top1: float  # in [0, 1]


def rounded(params: Any) -> Any:
    """Returns the parameters with the image tower as it is shipped: rounded to float16."""
    shipped = {name: params[name] for name in SHIPPED}
    return params | jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), shipped)


def write(
    folder: Path, params: Any, config: CLIPConfig, recipe: Recipe, measured: Measured
) -> None:
    """Writes weights, configs, `training.json` and the card.

    Raises:
      ValueError: a weight is beyond float16.
    """
    flat = traverse_util.flatten_dict({name: params[name] for name in SHIPPED}, sep=".")
    halves = {name: np.asarray(x, np.float16, order="C") for name, x in flat.items()}
    if not all(np.isfinite(x).all() for x in halves.values()):
        raise ValueError("a weight is beyond float16 or not a number")
    # transformers, too, reads Flax's names from a file that says so.
    weights = folder / "model.safetensors"
    checkpoint.write_bytes(weights, save(halves, metadata={"format": "flax"}))
    vision = {key: getattr(config.vision_config, key) for key in _CONFIG_KEYS}
    checkpoint.write_json(folder / "config.json", vision)
    checkpoint.write_json(folder / "preprocessor_config.json", _preprocessor(vision["image_size"]))
    facts = {
        "sha256": checkpoint.sha256(weights),
        **measured._asdict(),
        "recipe": dataclasses.asdict(recipe),
    }
    checkpoint.write_json(folder / "training.json", facts)
    count = sum(x.size for x in halves.values())
    card = _card(recipe, measured, facts["sha256"], vision["image_size"], count, weights)
    checkpoint.write_bytes(folder / "README.md", card.encode())


def _preprocessor(size: int) -> dict[str, Any]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(PREPROCESSING.mean),
        "image_std": list(PREPROCESSING.std),
    }


def _card(
    recipe: Recipe, measured: Measured, sha256: str, size: int, parameters: int, weights: Path
) -> str:
    values = {name.replace("_", " "): value for name, value in dataclasses.asdict(recipe).items()}
    return _CARD.format(
        **measured._asdict() | dataclasses.asdict(recipe) | {"epochs": measured.epochs},
        million=parameters / 1e6,
        size=size,
        top1=100 * measured.zero_shot_top1,
        chance=100 / measured.classes,
        megabytes=weights.stat().st_size / 1e6,
        sha256=sha256,
        recipe=" · ".join(f"{name} {value:g}" for name, value in values.items()),
    )
