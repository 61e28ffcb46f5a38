"""Frozen feature extractors; `load` finds one by its name in a config.

To add one: a module with `load(path, image_size, precision) -> Surrogate` (or that function alone)
and a line in `SURROGATES`, which a user's own module may write too.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

from ucjax import names
from ucjax.runtime import platforms
from ucjax.surrogates.base import Preprocessing, Surrogate
from ucjax.surrogates.joined import join, split

__all__ = ["SURROGATES", "Loader", "Preprocessing", "Surrogate", "join", "load", "split"]

Loader = Callable[[str, int, str], Surrogate]

# Modules are named, and imported on demand: CLIP brings in transformers, which takes seconds.
SURROGATES: dict[str, str | Loader] = {
    "efficientnet_lite0": "ucjax.surrogates.efficientnet_lite",
    "clip": "ucjax.surrogates.clip",
    "packaged_clip": "ucjax.surrogates.packaged_clip",
    "clip_rn50": "ucjax.surrogates.clip_resnet",
    "rn50": "ucjax.surrogates.resnet",
}


def load(name: str, *, path: str = "", image_size: int, precision: str = "auto") -> Surrogate:
    """Loads a surrogate for square images of `image_size` pixels, or several as one.

    Args:
      name: a key of `SURROGATES`, or several joined by "+" (see `joined.join`).
      path: a weight file or folder, or for those on the Hugging Face hub an id; empty means the
        surrogate's default weights. Of several surrogates, as many joined by "+", or empty.
      image_size: side in pixels.
      precision: what the network computes in: "float32", "bfloat16" or "auto", which is bfloat16
        on accelerators and float32 on a CPU.

    Raises:
      UserError: an unknown name or precision, or the weights are missing or do not fit.
    """
    names.known(precision, platforms.PRECISIONS, "precision")
    parts = [_load(*part, image_size, precision) for part in split(name, path)]
    return parts[0] if len(parts) == 1 else join(parts)


def _load(name: str, path: str, image_size: int, precision: str) -> Surrogate:
    loader = SURROGATES[names.known(name, SURROGATES, "surrogate")]
    if isinstance(loader, str):
        loader = importlib.import_module(loader).load
    surrogate = loader(path, image_size, precision)
    if precision != "float32":
        return surrogate
    logits = surrogate.logits and platforms.exact(surrogate.logits)
    return dataclasses.replace(surrogate, embed=platforms.exact(surrogate.embed), logits=logits)
