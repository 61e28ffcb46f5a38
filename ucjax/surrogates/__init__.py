"""Frozen feature extractors; `load` finds one by its name in a config."""

from __future__ import annotations

import importlib

from ucjax.errors import UserError
from ucjax.surrogates.base import Preprocessing, Surrogate

__all__ = ["Preprocessing", "Surrogate", "load"]

# Modules are imported on demand: CLIP brings in transformers, which takes seconds.
_MODULES = {
    "efficientnet_lite0": "efficientnet_lite",
    "clip": "clip",
    "packaged_clip": "packaged_clip",
    "clip_rn50": "clip_resnet",
    "rn50": "resnet",
}


def load(name: str, *, path: str = "", image_size: int) -> Surrogate:
    """Loads a surrogate for square images of `image_size` pixels.

    `path` is a weight file or folder, or for "clip" also a Hugging Face id; empty means the
    surrogate's default weights.

    Raises:
      UserError: unknown name, or the weights are missing or do not fit.
    """
    if name not in _MODULES:
        raise UserError(f"unknown surrogate {name!r}: choose one of {', '.join(_MODULES)}")
    module = importlib.import_module(f"ucjax.surrogates.{_MODULES[name]}")
    return module.load(path, image_size)
