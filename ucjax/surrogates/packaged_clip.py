"""A small CLIP image tower, exported by `tools/packaged_clip` into the package's assets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ucjax.errors import UserError
from ucjax.runtime import checkpoint
from ucjax.surrogates import clip
from ucjax.surrogates.base import Surrogate

_FOLDER = Path(__file__).parents[1] / "assets" / "packaged_clip"


def load(path: str, image_size: int, precision: str = "auto") -> Surrogate:
    """Loads the packaged weights, or those of a folder that `train.py` exported.

    Raises:
      UserError: the files are missing, or not the weights that `training.json` was written for;
        or the image size does not fit (see `clip.load`).
    """
    folder = Path(path).expanduser() if path else _FOLDER
    weights, facts = folder / "model.safetensors", folder / "training.json"
    for file in (weights, facts):
        if not file.is_file():
            raise UserError(
                f"no packaged CLIP in {folder} ({file.name} is missing): train one with "
                "tools/packaged_clip, or choose another surrogate"
            )
    found, stated = checkpoint.sha256(weights), checkpoint.read_json(facts).get("sha256")
    if found != stated:
        raise UserError(
            f"{weights} has SHA-256 {found[:12]}…, but {facts.name} states {str(stated)[:12]}…: "
            "install ucjax again"
        )
    surrogate = clip.load(str(folder), image_size, precision)
    return surrogate if path else dataclasses.replace(surrogate, id="packaged_clip")
