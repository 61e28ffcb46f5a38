"""Reads the tensors of a legacy PyTorch file (before 1.6, not a zip) in numpy, without torch.

Such a file is five pickles (magic number, version, platform, the state dict, storage keys) and
then the raw storages. A pickle may name any function to be called; this reader knows four names,
none of which can do anything but describe a tensor, and refuses all others. It does not look
into a file at all unless its checksum is the expected one.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ucjax.errors import UserError

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


class _Storage(NamedTuple):
    """Elements that tensors are views of; the file holds them after the pickles."""

    dtype: str
    key: str
    length: int


class _Tensor(NamedTuple):
    """A strided view of a storage; offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Reads a state dict: the arrays by their names.

    Args:
      path: the `.pth` file.
      sha256: hex checksum the file must have.

    Raises:
      UserError: another checksum, a pickle that asks for anything but tensors, or damage.
    """
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise UserError(
            f"{path} has SHA-256 {found}, expected {sha256}: not the published weights, install "
            "or download them again"
        )
    try:
        return _parse(io.BytesIO(data))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle may fail in any way
        raise UserError(
            f"{path} is no state dict of a legacy PyTorch file ({type(error).__name__}: {error}): "
            "convert it with safetensors.torch.save_file"
        ) from error


def _parse(file: io.BytesIO) -> dict[str, np.ndarray]:
    magic, version, platform, tensors, keys = (_Unpickler(file).load() for _ in range(5))
    if (magic, version) != (_MAGIC, _VERSION) or not platform["little_endian"]:
        raise ValueError(f"magic number {magic}, version {version}, platform {platform}")
    if not isinstance(tensors, Mapping):
        raise ValueError(f"holds a {type(tensors).__name__}, not a dict of tensors")
    for name, tensor in tensors.items():
        if not (isinstance(name, str) and isinstance(tensor, _Tensor)):
            raise ValueError(f"entry {name!r} is a {type(tensor).__name__}, not a tensor")
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    data = {key: _read_storage(file, storages[key]) for key in keys}
    return {name: _view(data[tensor.storage.key], tensor) for name, tensor in tensors.items()}


def _read_storage(file: io.BytesIO, storage: _Storage) -> np.ndarray:
    dtype = np.dtype(storage.dtype)
    length = int.from_bytes(file.read(8), "little")
    if length != storage.length:
        raise ValueError(f"storage of {length} elements instead of {storage.length}")
    return np.frombuffer(file.read(length * dtype.itemsize), dtype, length)


def _view(data: np.ndarray, tensor: _Tensor) -> np.ndarray:
    _, offset, shape, strides = tensor
    if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
        raise ValueError(f"tensor of shape {shape}, strides {strides}, offset {offset}")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if min(shape, default=1) > 0 and last >= len(data):
        raise ValueError(f"tensor ends at element {last} of a storage of {len(data)}")
    steps = [stride * data.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(data[offset:], shape, steps).copy()


class _Unpickler(pickle.Unpickler):
    """Knows dicts of tensors and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Resolves the four names a state dict needs; `_Storage` types become their dtype."""
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise UserError(
            f"refused: its pickle asks for {module}.{name}, and only tensors are read; it may be "
            "malicious"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """Describes `("storage", type, key, location, length, view)`."""
        kind, dtype, key, _, length, view = pid
        if kind != "storage" or dtype not in _DTYPES.values() or view is not None:
            raise ValueError(f"persistent object {pid}")
        return _Storage(dtype, key, length)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise ValueError(f"tensor of a {type(storage).__name__}, not of a storage")
        return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))
