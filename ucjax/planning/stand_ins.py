"""Surrogates without weights: what a step costs depends on shapes alone, and none is downloaded."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import linen as nn

from ucjax import config, surrogates
from ucjax.runtime import platforms
from ucjax.surrogates import Preprocessing, Surrogate
from ucjax.surrogates.pretrained import normalize

_PREPROCESSING = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)


def load(name: str, *, path: str, image_size: int) -> Surrogate:
    """Loads a surrogate, or of the paper's, which live on a hub, the architecture alone.

    The parameters of the latter are `jax.ShapeDtypeStruct`.

    Raises:
      UserError: as `surrogates.load`.
    """
    if path and path != config.SURROGATES.get(name):
        return surrogates.load(name, path=path, image_size=image_size)
    net = _architecture(name, image_size)
    if net is None:
        return surrogates.load(name, path=path, image_size=image_size)
    return shapes_of(net, name, image_size)


def shapes_of(net: nn.Module, name: str, image_size: int) -> Surrogate:
    """Returns a surrogate of a published network's kind, its parameters `jax.ShapeDtypeStruct`."""
    pixels = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), pixels)

    def embed(variables: Any, images: jax.Array) -> jax.Array:
        network = net.clone(dtype=platforms.compute_dtype())
        features: Any = network.apply(variables, normalize(images, _PREPROCESSING))
        features = getattr(features, "pooler_output", features)
        return features.reshape(len(images), -1).astype(np.float32)

    return Surrogate(embed, variables, image_size, _PREPROCESSING, f"{name}: shapes only", "")


def _architecture(name: str, image_size: int) -> nn.Module | None:
    """Returns the published network (ViT-B/32, CLIP's ResNet-50, ImageNet's), if it is one."""
    if name == "clip":
        from transformers import CLIPVisionConfig

        from ucjax.surrogates.clip import ImageTower

        vision = CLIPVisionConfig(image_size=image_size)
        return ImageTower(vision, vision.projection_dim)
    if name == "clip_rn50":
        from ucjax.surrogates.clip_resnet import ModifiedResNet

        return ModifiedResNet(64, (3, 4, 6, 3), 1024)
    if name == "rn50":
        from transformers import ResNetConfig

        from ucjax.surrogates.resnet import ResNet

        return ResNet(ResNetConfig())
    return None
