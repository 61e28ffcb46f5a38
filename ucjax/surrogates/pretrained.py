"""Published checkpoints: found in a folder or on the Hugging Face hub, checked, and read.

Only safetensors and Flax msgpack files are read: they hold arrays and nothing that can run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization, traverse_util
from safetensors import SafetensorError, safe_open

from ucjax.errors import UserError
from ucjax.surrogates.base import Preprocessing

Tensors = dict[str, np.ndarray]

# In order of preference. The index file names the shards of a split checkpoint.
_INDEX = "model.safetensors.index.json"
_WEIGHTS = ("model.safetensors", _INDEX, "open_clip_model.safetensors", "flax_model.msgpack")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_PASS_A_FOLDER = (
    "download it where there is a network and pass the folder: --config.surrogate.path=FOLDER "
    "with the files model.safetensors, config.json and, if it has one, preprocessor_config.json"
)


@dataclass(frozen=True)
class Checkpoint:
    """The files of a pretrained model: `weights` is one file, or the shards of one model."""

    name: str
    folder: Path
    weights: tuple[Path, ...]


def find(path: str) -> Checkpoint:
    """Locates the checkpoint at `path`: a folder, a weight file, or a Hugging Face id.

    Raises:
      UserError: there is no such folder, the hub cannot be reached and has never been, or
        no weights in a format that is safe to read.
    """
    place = Path(path).expanduser()
    if place.is_file():
        if place.suffix in _PICKLES:
            raise UserError(_no_weights(path, [place.name]))
        return Checkpoint(path, place.parent, _shards(place))
    folder = place if place.is_dir() else _from_hub(path)
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return Checkpoint(path, folder, _shards(folder / name))
    raise UserError(_no_weights(path, [file.name for file in folder.iterdir()]))


def _no_weights(path: str, files: Iterable[str]) -> str:
    pickles = sorted(name for name in files if Path(name).suffix in _PICKLES)
    if pickles:
        return (
            f"{path}: {pickles[0]} is a pickle, which can run code and is not read: convert it "
            "with safetensors.torch.save_file to model.safetensors"
        )
    return f"{path}: no weights there: it needs one of {', '.join(_WEIGHTS)}"


def _shards(file: Path) -> tuple[Path, ...]:
    if file.name != _INDEX:
        return (file,)
    names = sorted(set(_json(file).get("weight_map", {}).values()))
    shards = tuple(file.parent / name for name in names)
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing or not shards:
        raise UserError(
            f"{file}: {len(missing)} of its {len(shards)} shards missing, "
            f"such as {missing[:1]}: download them again"
        )
    return shards


def _from_hub(repo: str) -> Path:
    """Downloads a model's configs and weights, or finds them downloaded: the local folder."""
    from huggingface_hub import HfApi, errors, snapshot_download  # takes half a second

    try:
        # One request without retries, so that a machine without a network learns it at once.
        info = HfApi().model_info(repo, timeout=5)
    except (errors.HFValidationError, errors.RepositoryNotFoundError) as error:
        raise UserError(
            f"surrogate {repo!r} is neither a folder here nor a public model on the Hugging "
            "Face hub: check the spelling of --config.surrogate.path"
        ) from error
    except OSError as error:
        try:
            return Path(snapshot_download(repo, local_files_only=True))
        except OSError:
            raise UserError(
                f"cannot reach the Hugging Face hub for {repo!r}, which is not in the local "
                f"cache: {_PASS_A_FOLDER}"
            ) from error
    files = [file.rfilename for file in info.siblings or []]
    weights = next((name for name in _WEIGHTS if name in files), None)
    if weights is None:
        raise UserError(_no_weights(repo, files))
    patterns = ["*config.json", weights]
    if weights == _INDEX:
        patterns.append("model-*.safetensors")
    try:
        return Path(snapshot_download(repo, allow_patterns=patterns))
    except OSError as error:
        raise UserError(
            f"the download of {repo!r} failed: try again, or {_PASS_A_FOLDER}"
        ) from error


def read_config(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """Reads a JSON file of the checkpoint's folder; empty if it has no such file."""
    file = checkpoint.folder / name
    return _json(file) if file.is_file() else {}


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: not JSON ({error}): download it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{file}: holds a {type(value).__name__}, not an object: not a config")
    return value


def read_preprocessing(checkpoint: Checkpoint) -> Preprocessing:
    """Reads the normalisation the model was trained with; never guesses it.

    It stands in preprocessor_config.json (transformers), open_clip_config.json (open_clip) or
    config.json (timm).

    Raises:
      UserError: no such file, no mean or std in it, or pixels scaled otherwise than to [0, 1].
    """
    places = (
        (read_config(checkpoint, "preprocessor_config.json"), "image_mean", "image_std"),
        (_section(checkpoint, "open_clip_config.json", "preprocess_cfg"), "mean", "std"),
        (_section(checkpoint, "config.json", "pretrained_cfg"), "mean", "std"),
    )
    for values, mean, std in places:
        if mean in values and std in values:
            _check_scaling(checkpoint, values)
            return Preprocessing(
                _channels(checkpoint, mean, values[mean]), _channels(checkpoint, std, values[std])
            )
    raise UserError(
        f"{checkpoint.name}: the mean and std of its pixels are not stated: put the model's "
        "preprocessor_config.json (with image_mean and image_std) beside its weights"
    )


def _section(checkpoint: Checkpoint, file: str, key: str) -> dict[str, Any]:
    section = read_config(checkpoint, file).get(key, {})
    return section if isinstance(section, dict) else {}


def _check_scaling(checkpoint: Checkpoint, values: Mapping[str, Any]) -> None:
    scale = values.get("rescale_factor", 1 / 255)
    known = isinstance(scale, int | float) and math.isclose(scale, 1 / 255, rel_tol=1e-6)
    if not known or not values.get("do_rescale", True):
        raise UserError(
            f"{checkpoint.name}: wants pixels scaled by {scale} (do_rescale: "
            f"{values.get('do_rescale', True)}), but only 1/255 = {1 / 255:.6f} is supported"
        )
    if not values.get("do_normalize", True):
        raise UserError(
            f"{checkpoint.name}: do_normalize is false: state the image_mean and image_std that "
            "apply (0 and 1 for none) and set it to true"
        )


def _channels(checkpoint: Checkpoint, key: str, value: Any) -> tuple[float, float, float]:
    numbers = isinstance(value, list) and all(isinstance(x, int | float) for x in value)
    if not numbers or len(value) != 3 or (key.endswith("std") and not all(x > 0 for x in value)):
        raise UserError(f"{checkpoint.name}: {key} is {value}: expected 3 numbers, std above 0")
    return float(value[0]), float(value[1]), float(value[2])


def normalize(images: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """Applies a model's mean and std to images `[b, h, w, 3]` in [0, 1]."""
    mean = np.asarray(preprocessing.mean, np.float32).reshape(1, 1, 1, 3)
    std = np.asarray(preprocessing.std, np.float32).reshape(1, 1, 1, 3)
    return (images - mean) / std


def classifier(
    embed: Callable[[Any, jax.Array], jax.Array],
) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns `logits(params, images)`: a linear layer, `params["classifier"]`, on the features."""

    def logits(params: Any, images: jax.Array) -> jax.Array:
        head = params["classifier"]
        features, precision = embed(params, images), jax.lax.Precision.HIGHEST
        return jnp.matmul(features, head["kernel"], precision=precision) + head["bias"][None]

    return logits


def read_tensors(checkpoint: Checkpoint, wanted: Callable[[str], bool]) -> Tensors:
    """Reads the arrays whose dotted name is `wanted`, as float32.

    From safetensors the others never enter memory.

    Raises:
      UserError: a damaged file.
    """
    tensors: Tensors = {}
    for file in checkpoint.weights:
        tensors.update(_read_file(file, wanted))
    return {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}


def _read_file(file: Path, wanted: Callable[[str], bool]) -> Tensors:
    try:
        if file.suffix == ".msgpack":
            return _read_msgpack(file, wanted)
        with safe_open(file, framework="numpy") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys() if wanted(name)}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise UserError(
            f"{file}: damaged or not a weight file ({file.stat().st_size} bytes; {error}): "
            "download it again"
        ) from error


def _read_msgpack(file: Path, wanted: Callable[[str], bool]) -> Tensors:
    try:
        tree = serialization.msgpack_restore(file.read_bytes())
        flat = traverse_util.flatten_dict(tree, sep=".")
    except Exception as error:  # damaged bytes may decode to anything
        raise ValueError(f"{type(error).__name__} {error}") from error
    return {name: tensor for name, tensor in flat.items() if wanted(name)}


def to_flax(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    """Gives a PyTorch parameter its Flax name and layout; Flax's own pass unchanged."""
    scope, _, leaf = name.rpartition(".")
    kernels = {4: ("kernel", (2, 3, 1, 0)), 2: ("kernel", (1, 0)), 1: ("scale", (0,))}
    if leaf == "weight" and tensor.ndim in kernels:
        leaf, axes = kernels[tensor.ndim]
        tensor = np.ascontiguousarray(tensor.transpose(axes))
    leaf = {"running_mean": "mean", "running_var": "var"}.get(leaf, leaf)
    return f"{scope}.{leaf}" if scope else leaf, tensor


def fill(checkpoint: Checkpoint, model: str, targets: Any, tensors: Tensors) -> Any:
    """Nests dotted `tensors` like `targets`, a tree of arrays or shapes, filling all of it.

    Raises:
      UserError: a tensor that fits nowhere, a target left unfilled, or another shape; all at
        once, by name.
    """
    expected = traverse_util.flatten_dict(targets, sep=".")
    problems = {
        "unknown": sorted(tensors.keys() - expected.keys()),
        "missing": sorted(expected.keys() - tensors.keys()),
        "of another shape": [
            f"{name} {list(tensor.shape)} instead of {list(expected[name].shape)}"
            for name, tensor in sorted(tensors.items())
            if name in expected and tensor.shape != expected[name].shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(
            f"{len(names)} {kind} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            for kind, names in problems.items()
            if names
        )
        raise UserError(f"{checkpoint.name}: these are not the weights of a {model}: {listed}")
    return traverse_util.unflatten_dict({name: tensors[name] for name in expected}, sep=".")


def sha256(checkpoint: Checkpoint) -> str:
    """Hex SHA-256 of the weight file; of all shards, one after the other, if there are many."""
    digest = hashlib.sha256()
    for file in checkpoint.weights:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
