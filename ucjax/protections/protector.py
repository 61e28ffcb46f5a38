"""The published artefact: a noise image per cluster, and what it takes to use it on new images.

Two files: `protector.safetensors` (noise and centres) and `protector.json` (everything else, with
checksums of both). They are not secret against a reader of the protected images: one clean and
protected pair of a cluster reveals its noise.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as dump_safetensors

from ucjax.errors import UserError
from ucjax.protections.noise import Noise, Patterns, Pixels
from ucjax.runtime import checkpoint
from ucjax.surrogates import Surrogate

FORMAT = 2
TENSORS, DESCRIPTION = "protector.safetensors", "protector.json"
# For noise of exactly eps, held in float32.
_SLACK = 1e-6


@dataclass(frozen=True, eq=False)
class Protector:
    """Noise of p clusters and the clusters' centres in a surrogate's feature space.

    The budget: with norm "linf" no value of the noise exceeds eps = epsilon_255 / 255; with
    "rms" no noise image is longer than an image of ±eps everywhere, that is, its root mean square
    is at most eps.
    """

    noise: np.ndarray  # float32 [p, crop, crop, 3], pixels of [0, 1]
    centers: np.ndarray  # float32 [p, d]
    surrogate_name: str
    surrogate_path: str
    surrogate_id: str
    surrogate_sha256: str
    mean: tuple[float, float, float]  # of the surrogate's preprocessing, pixels of [0, 1]
    std: tuple[float, float, float]
    epsilon_255: int
    norm: str  # "linf" | "rms"
    grain: int  # pixels a side of the cells that were trained
    short_side: int  # pixels: images are resized to this, then centre-cropped to `crop`
    crop: int
    seed: int
    versions: dict[str, str]

    def patterns(self) -> Patterns:
        """Returns the noise of the clusters, for pictures of any size."""
        return Pixels(
            self.noise.__getitem__, self.crop, self.short_side, self.epsilon_255, self.norm
        )


def of_noise(
    noise: Noise,
    *,
    centers: np.ndarray,
    surrogate: Surrogate,
    config: ConfigDict,
    seed: int,
    versions: dict[str, str],
) -> Protector:
    """Puts everything that putting a noise on tomorrow's images needs into one value.

    Args:
      noise: one pattern per cluster.
      centers: of the clusters, float32 `[p, d]`.
      surrogate: whose features they lie in.
      config: the settings it was made with.
      seed: of everything that was drawn.
      versions: of the packages that decide results.
    """
    assert isinstance(noise.patterns, Pixels), "patterns of another kind are not published yet"
    return Protector(
        noise=np.stack([noise.patterns.of(row) for row in range(len(centers))]),
        centers=centers,
        surrogate_name=config.surrogate.name,
        surrogate_path=config.surrogate.path,
        surrogate_id=surrogate.id,
        surrogate_sha256=surrogate.sha256,
        mean=surrogate.preprocessing.mean,
        std=surrogate.preprocessing.std,
        epsilon_255=noise.epsilon_255,
        norm=noise.norm,
        grain=config.noise.grain,
        short_side=config.data.short_side,
        crop=config.data.crop,
        seed=seed,
        versions=versions,
    )


def save(protector: Protector, folder: Path) -> None:
    """Writes both files, the description last; equal protectors give equal bytes.

    Raises:
      ValueError: the protector contradicts itself or breaks its budget.
    """
    fault = _fault(protector)
    if fault:
        raise ValueError(f"this protector must not be published: {fault}")
    arrays = {"noise": protector.noise, "centers": protector.centers}
    tensors = dump_safetensors({k: np.asarray(v, order="C") for k, v in arrays.items()})
    described = {
        "format": FORMAT,
        "noise_shape": list(protector.noise.shape),
        "centers_shape": list(protector.centers.shape),
        **{key: getattr(protector, key) for key in _described()},
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
    }
    checkpoint.write_bytes(folder / TENSORS, tensors)
    checkpoint.write_json(folder / DESCRIPTION, {**described, "sha256": _seal(described)})


def load(folder: Path) -> Protector:
    """Reads a protector, trusting neither file.

    Raises:
      UserError: a file is missing, damaged, edited, or breaks the budget it states.
    """
    described = _read_description(folder / DESCRIPTION)
    try:
        tensors = (folder / TENSORS).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {folder / TENSORS}: {error.strerror}") from error
    found = hashlib.sha256(tensors).hexdigest()
    if found != described["tensors_sha256"]:
        raise UserError(
            f"{folder / TENSORS} has sha256 {found[:12]}…, {DESCRIPTION} says "
            f"{str(described['tensors_sha256'])[:12]}…: fetch both again, or train again"
        )
    try:
        arrays = parse_safetensors(tensors)
        values = {key: described[key] for key in _described()}
        values |= {key: tuple(float(x) for x in values[key]) for key in ("mean", "std")}
        protector = Protector(noise=arrays["noise"], centers=arrays["centers"], **values)
        fault = _fault(protector)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder} holds no protector ({reason}): fetch it again") from error
    if fault:
        raise UserError(f"{folder} holds an invalid protector: {fault}; train again")
    return protector


def _described() -> list[str]:
    return [field.name for field in fields(Protector) if field.name not in ("noise", "centers")]


def _read_description(path: Path) -> dict[str, Any]:
    try:
        described = checkpoint.read_json(path)
    except OSError as error:
        raise UserError(f"no protector at {path}: {error.strerror}") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise UserError(f"{path} is no protector of format {FORMAT}: train again, or fetch another")
    if described.pop("sha256", None) != _seal(described):
        raise UserError(f"{path} was edited after it was written: fetch it again, or train again")
    return described


def _seal(described: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _fault(protector: Protector) -> str:
    """Returns what is wrong with the protector, in words, or nothing."""
    noise, centers, crop = protector.noise, protector.centers, protector.crop
    if noise.dtype != np.float32 or centers.dtype != np.float32:
        return f"noise is {noise.dtype} and centres are {centers.dtype}, not float32"
    if noise.ndim != 4 or centers.ndim != 2 or noise.shape != (len(centers), crop, crop, 3):
        return f"noise {noise.shape} fits neither centres {centers.shape} nor crop {crop}"
    if not 1 <= crop <= protector.short_side:
        return f"crop {crop} does not fit into short side {protector.short_side}"
    if not len(noise) or not (np.isfinite(noise).all() and np.isfinite(centers).all()):
        return "noise or centres are empty or not finite"
    if protector.norm not in ("linf", "rms") or not 1 <= protector.epsilon_255 <= 255:
        return f"norm {protector.norm!r} with epsilon_255 {protector.epsilon_255}"
    if protector.norm == "linf":
        used = float(np.abs(noise).max())
    else:
        used = float(np.sqrt(np.square(noise, dtype=np.float64).mean(axis=(1, 2, 3)).max()))
    if used > protector.epsilon_255 / 255 + _SLACK:
        return f"noise of {used * 255:.3f}/255 is over its budget of {protector.epsilon_255}/255"
    return ""
