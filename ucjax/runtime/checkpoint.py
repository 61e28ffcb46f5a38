"""Atomic files: JSON and pytrees of arrays (safetensors). A killed write leaves the old file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization, traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ucjax.errors import UserError
from ucjax.runtime.disk import write_bytes

__all__ = [
    "load_arrays",
    "load_tree",
    "read_json",
    "save_tree",
    "sha256",
    "write_bytes",
    "write_json",
]


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
      UserError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): delete it and run again") from error


def save_tree(path: Path, tree: Any) -> None:
    """Writes a pytree of host arrays (flax state-dict structure) as safetensors, atomically."""
    # safetensors stores the buffer as it lies in memory, whatever the strides say.
    arrays = {key: np.asarray(value, order="C") for key, value in _arrays(_flatten(tree))}
    write_bytes(path, save(arrays))


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads what `save_tree` wrote as a flat dictionary, nested names joined by "/".

    Raises:
      UserError: the file is damaged or missing.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {path} ({error}): delete it and run again") from error


def load_tree(path: Path, like: Any) -> Any:
    """Reads what `save_tree` wrote into the structure of `like`.

    Raises:
      UserError: the file is damaged, or its names, shapes or types differ from those of `like`.
    """
    arrays, template = load_arrays(path), _flatten(like)
    found = {key: (value.shape, value.dtype) for key, value in arrays.items()}
    expected = {key: (np.shape(value), np.asarray(value).dtype) for key, value in _arrays(template)}
    keys = sorted(found.keys() | expected.keys())
    wrong = [key for key in keys if found.get(key) != expected.get(key)]
    if wrong:
        raise UserError(
            f"{path} does not fit this configuration: {len(wrong)} of {len(keys)} arrays differ, "
            f"first {wrong[0]!r} ({_spelled(found.get(wrong[0]))} in the file, "
            f"{_spelled(expected.get(wrong[0]))} here); delete it or use another --workdir"
        )
    state = traverse_util.unflatten_dict({**template, **arrays}, sep="/")
    return serialization.from_state_dict(like, state)


def _flatten(tree: Any) -> dict[str, Any]:
    # Empty nodes are part of the structure: optax's states are full of them.
    state = serialization.to_state_dict(tree)
    return traverse_util.flatten_dict(state, keep_empty_nodes=True, sep="/")


def _arrays(flat: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (key, value)
        for key, value in flat.items()
        if value is not None and value is not traverse_util.empty_node
    ]


def _spelled(array: tuple[tuple[int, ...], np.dtype] | None) -> str:
    return f"{array[1]} {list(array[0])}" if array else "none"


def sha256(path: Path) -> str:
    """Returns the hex SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
