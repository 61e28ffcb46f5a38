"""The published artefact: the noise of each cluster, and what it takes to use it on new images.

Noise is of one of two kinds: "pixels", an image a cluster, or "gratings", a few numbers a cluster.
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
from ucjax.protections.waves import Gratings
from ucjax.runtime import checkpoint, disk, platforms
from ucjax.surrogates import Surrogate

FORMAT = 3
TENSORS, DESCRIPTION = "protector.safetensors", "protector.json"
# For noise of exactly eps, held in float32.
_SLACK = 1e-6
# Pictures are resized to this short side, whatever else a stranger asks for.
_LONGEST_SIDE = 4096


@dataclass(frozen=True, eq=False)
class Protector:
    """Noise of p clusters and the clusters' centres in a surrogate's feature space.

    It has either `noise` or `gratings`, which says its kind.

    The budget: with norm "linf" no value of the noise exceeds eps = epsilon_255 / 255; with
    "rms" no noise image is longer than an image of ±eps everywhere, that is, its root mean square
    is at most eps.
    """

    noise: np.ndarray | None  # float32 [p, crop, crop, 3], pixels of [0, 1]
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
    gratings: Gratings | None = None  # with this budget and short side
    # What the surrogate computed in: "float32" or "bfloat16"; "auto" where nobody wrote it down.
    surrogate_precision: str = "auto"
    folders: tuple[str, ...] = ()  # clusters that are folders: their names, else empty

    def __repr__(self) -> str:
        return (
            f"<Protector: {self.kind} of {len(self.centers)} clusters, eps {self.epsilon_255}/255, "
            f"{self.crop} of {self.short_side} px, {self.surrogate_id}, seed {self.seed}>"
        )

    @property
    def kind(self) -> str:
        """What the noise is given by: "pixels" or "gratings"."""
        return "pixels" if self.gratings is None else "gratings"

    def patterns(self) -> Patterns:
        """Returns the noise of the clusters, for pictures of any size.

        Raises:
          ValueError: there is none.
        """
        if self.gratings is not None:
            return self.gratings
        if self.noise is None:
            raise ValueError("this protector has neither noise nor gratings")
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
    folders: tuple[str, ...] = (),
) -> Protector:
    """Puts everything that putting a noise on tomorrow's images needs into one value.

    Args:
      noise: one pattern per cluster.
      centers: of the clusters, float32 `[p, d]`.
      surrogate: whose features they lie in.
      config: the settings it was made with.
      seed: of everything that was drawn.
      versions: of the packages that decide results.
      folders: names of the clusters, if they are folders.
    """
    patterns, pixels, gratings = noise.patterns, None, None
    if isinstance(patterns, Pixels):
        pixels = np.stack([patterns.of(row) for row in range(len(centers))])
    else:
        assert isinstance(patterns, Gratings), "other patterns are of single images"
        gratings = patterns
    return Protector(
        noise=pixels,
        gratings=gratings,
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
        surrogate_precision=np.dtype(platforms.compute_dtype(config.surrogate.precision)).name,
        folders=folders,
    )


def save(protector: Protector, folder: Path) -> None:
    """Writes both files, the description last; equal protectors give equal bytes.

    Raises:
      ValueError: the protector contradicts itself or breaks its budget.
    """
    fault = _fault(protector)
    if fault:
        raise ValueError(f"this protector must not be published: {fault}")
    arrays = {"centers": protector.centers, **_noise_arrays(protector)}
    tensors = dump_safetensors({k: np.asarray(v, order="C") for k, v in arrays.items()})
    described = {
        "format": FORMAT,
        "kind": protector.kind,
        **{f"{name}_shape": list(array.shape) for name, array in sorted(arrays.items())},
        **{key: getattr(protector, key) for key in _described()},
        **({"folders": list(protector.folders)} if protector.folders else {}),
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
        tensors = disk.read_regular(folder / TENSORS)
    except OSError as error:
        raise UserError(f"cannot read {folder / TENSORS}: {error.strerror}") from error
    found = hashlib.sha256(tensors).hexdigest()
    if found != described.get("tensors_sha256"):
        raise UserError(
            f"{folder / TENSORS} has sha256 {found[:12]}…, {DESCRIPTION} says "
            f"{str(described.get('tensors_sha256'))[:12]}…: fetch both again, or train again"
        )
    try:
        arrays = parse_safetensors(tensors)
        described.setdefault("surrogate_precision", "auto")
        values = {key: described[key] for key in _described()}
        values |= {key: tuple(float(x) for x in values[key]) for key in ("mean", "std")}
        values["folders"] = tuple(described.get("folders", ()))
        protector = _restored(str(described["kind"]), arrays, values)
        fault = _fault(protector)
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder} holds no protector ({reason}): fetch it again") from error
    if fault:
        raise UserError(f"{folder} holds an invalid protector: {fault}; train again")
    return protector


def _described() -> list[str]:
    apart = ("noise", "centers", "gratings", "folders")
    return [field.name for field in fields(Protector) if field.name not in apart]


def _noise_arrays(protector: Protector) -> dict[str, np.ndarray]:
    if protector.gratings is not None:
        return protector.gratings.arrays()
    assert protector.noise is not None, "_fault says so"
    return {"noise": protector.noise}


def _restored(kind: str, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> Protector:
    """Returns the protector; raises what any of its parts raises at a value it cannot have."""
    centers = arrays.pop("centers")
    if kind == "pixels":
        return Protector(noise=arrays["noise"], centers=centers, **values)
    if kind != "gratings":
        raise ValueError(f"its kind is {kind!r}, neither pixels nor gratings")
    gratings = Gratings.load(arrays, values["epsilon_255"], values["short_side"])
    return Protector(noise=None, centers=centers, **values, gratings=gratings)


def _read_description(path: Path) -> dict[str, Any]:
    try:
        described = json.loads(disk.read_regular(path))
    except OSError as error:
        raise UserError(f"no protector at {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch it again, or train again") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise UserError(f"{path} is no protector of format {FORMAT}: train again, or fetch another")
    if described.pop("sha256", None) != _seal(described):
        raise UserError(f"{path} was edited after it was written: fetch it again, or train again")
    return described


def _seal(described: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _fault(protector: Protector) -> str:
    """Returns what is wrong with the protector, in words, or nothing."""
    centers = protector.centers
    for key in ("epsilon_255", "short_side", "crop", "grain", "seed"):
        if type(value := getattr(protector, key)) is not int:
            return f"{key} is {value!r}, no whole number"
    for key in ("surrogate_name", "surrogate_path", "surrogate_id", "surrogate_sha256"):
        if not isinstance(value := getattr(protector, key), str):
            return f"{key} is {value!r}, no text"
    if protector.surrogate_precision not in platforms.PRECISIONS:
        return f"surrogate_precision is {protector.surrogate_precision!r}"
    if not all(isinstance(folder, str) for folder in protector.folders):
        return f"folders are {protector.folders!r}, no texts"
    if len({*protector.folders}) not in (0, len(centers)):
        return f"{len({*protector.folders})} folders do not fit {len(centers)} centres"
    if protector.short_side > _LONGEST_SIDE:
        return f"short side {protector.short_side} is over {_LONGEST_SIDE}"
    if (protector.noise is None) == (protector.gratings is None):
        return "it has both noise and gratings, or neither"
    if centers.dtype != np.float32 or centers.ndim != 2:
        return f"centres are {centers.dtype} {centers.shape}, not float32 [p, d]"
    if not 1 <= protector.crop <= protector.short_side:
        return f"crop {protector.crop} does not fit into short side {protector.short_side}"
    if not len(centers) or not np.isfinite(centers).all():
        return "centres are empty or not finite"
    if protector.norm not in ("linf", "rms") or not 1 <= protector.epsilon_255 <= 255:
        return f"norm {protector.norm!r} with epsilon_255 {protector.epsilon_255}"
    if protector.gratings is not None:
        return _fault_of_gratings(protector, protector.gratings)
    assert protector.noise is not None
    return _fault_of_noise(protector, protector.noise)


def _fault_of_gratings(protector: Protector, gratings: Gratings) -> str:
    if len(gratings.carriers) != len(protector.centers):
        return f"{len(gratings.carriers)} gratings do not fit {len(protector.centers)} centres"
    if protector.norm != "linf":
        return f"norm is {protector.norm!r}, gratings are bounded in linf"
    ours, theirs = ((x.epsilon_255, x.short_side) for x in (protector, gratings))
    if ours != theirs:
        return f"gratings of epsilon_255 and short side {theirs} in a protector of {ours}"
    return ""


def _fault_of_noise(protector: Protector, noise: np.ndarray) -> str:
    centers, crop = protector.centers, protector.crop
    if noise.dtype != np.float32:
        return f"noise is {noise.dtype}, not float32"
    if noise.ndim != 4 or noise.shape != (len(centers), crop, crop, 3):
        return f"noise {noise.shape} fits neither centres {centers.shape} nor crop {crop}"
    if not np.isfinite(noise).all():
        return "noise is not finite"
    if protector.norm == "linf":
        used = float(np.abs(noise).max())
    else:
        used = float(np.sqrt(np.square(noise, dtype=np.float64).mean(axis=(1, 2, 3)).max()))
    if used > protector.epsilon_255 / 255 + _SLACK:
        return f"noise of {used * 255:.3f}/255 is over its budget of {protector.epsilon_255}/255"
    return ""
