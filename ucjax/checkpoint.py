"""Atomic files: JSON and pytrees of arrays (safetensors). A killed write leaves the old file."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization, traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ucjax.errors import UserError


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file through a temporary neighbour and a rename, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): delete it and run again") from error


def save_tree(path: Path, tree: Any) -> None:
    """Writes a pytree of host arrays (flax state-dict structure) as safetensors, atomically."""
    flat = traverse_util.flatten_dict(serialization.to_state_dict(tree), sep="/")
    # safetensors stores the buffer as it lies in memory, whatever the strides say.
    arrays = {key: np.asarray(value, order="C") for key, value in flat.items()}
    write_bytes(path, save(arrays))


def load_tree(path: Path, like: Any) -> Any:
    """Reads what `save_tree` wrote into the structure of `like`.

    Raises:
      UserError: the file is damaged, or its names or shapes differ from those of `like`.
    """
    try:
        flat = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {path} ({error}): delete it and run again") from error
    expected = traverse_util.flatten_dict(serialization.to_state_dict(like), sep="/")
    wrong = sorted(expected.keys() ^ flat.keys()) or sorted(
        key for key in flat if flat[key].shape != np.shape(expected[key])
    )
    if wrong:
        raise UserError(
            f"{path} does not fit this configuration: {len(wrong)} of {len(expected)} arrays "
            f"differ, first {wrong[0]!r}; delete it or use another --workdir"
        )
    return serialization.from_state_dict(like, traverse_util.unflatten_dict(flat, sep="/"))


def sha256(path: Path) -> str:
    """Returns the hex SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
