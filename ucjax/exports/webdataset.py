"""Tar files of `00000000.png` (or .webp, .jpg), `.cls` and `.json`, for the package webdataset.

The number is the picture's place in the manifest: names with dots or repeated stems would not
survive as keys. `.cls` is the label (-1 where unknown; no such file in an unlabelled set), `.json`
has file_name and class_name. The tar headers are constant, so that equal images give equal files.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from pathlib import Path

from ucjax.exports.protected_files import Contents, ProtectedFiles


def write(images: ProtectedFiles, contents: Contents, folder: Path) -> None:
    """Writes `train-000000.tar` and so on."""
    keys = itertools.count()
    for shard, count in enumerate(images.shards()):
        path = folder / _name(shard)
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for picture, data in itertools.islice(contents, count):
                key = f"{next(keys):08d}"
                _add(tar, key + picture.suffix, data)
                about = {"file_name": picture.name}
                if images.class_names:
                    _add(tar, f"{key}.cls", str(picture.label).encode())
                    if picture.label >= 0:
                        about["class_name"] = images.class_names[picture.label]
                _add(tar, f"{key}.json", json.dumps(about, ensure_ascii=False).encode())


def reading(images: ProtectedFiles, folder: Path) -> str:
    """Returns the line that opens an export."""
    last = len(images.shards()) - 1
    shards = f"train-{{000000..{last:06d}}}.tar" if last else _name(0)
    return f"webdataset.WebDataset({str(folder / shards)!r}, shardshuffle=False).decode('pil')"


def _name(shard: int) -> str:
    return f"train-{shard:06d}.tar"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)  # time, owner and group are 0
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))
