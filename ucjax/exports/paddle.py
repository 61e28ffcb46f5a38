"""For PaddlePaddle: zip files of class folders with `labels.txt` and `train_list.txt`.

The tree in each is what PaddleX calls its ImageNet format (github.com/PaddlePaddle/PaddleX,
docs/data/format/classification.md): line n of `labels.txt` is class n, a line of `train_list.txt` a
path and a class. It asks for paths without spaces or Chinese, so folders and files are numbered; a
folder has its class's name where that is of plain letters. EasyDL takes such zip files too, of 5 GB
and of pictures as small as here (cloud.baidu.com/theme/Z/3566092-11).
"""

from __future__ import annotations

import itertools
import re
import zipfile
from pathlib import Path

from ucjax.errors import UserError
from ucjax.exports.platforms import Limits, checked
from ucjax.exports.protected_files import Contents, ProtectedFiles

LIMITS = Limits(
    service="EasyDL",
    suffixes=(".jpg", ".jpeg", ".png", ".bmp"),
    size=4 * 10**6,
    shortest=31,
    longest=4095,
    ratio=3,
    pictures=10**8,  # what the names of files can number
    classes=1000,  # what those of folders can
)


def write(images: ProtectedFiles, contents: Contents, folder: Path) -> None:
    """Writes `train-000000.zip` and so on.

    Raises:
      UserError: a class name is no line of text, or the service takes no such picture.
    """
    if strange := [name for name in images.class_names if "\n" in name or not name.strip()]:
        raise UserError(f"the class name {strange[0]!r} is no line of text: choose another --to")
    folders = _folders(images.class_names)
    numbered = enumerate(checked(images, contents, LIMITS))
    for shard, count in enumerate(images.shards()):
        lines = []
        with zipfile.ZipFile(folder / _name(shard), "w") as archive:
            for number, (picture, data) in itertools.islice(numbered, count):
                name = f"{number:08d}{picture.suffix}"
                if picture.label >= 0:
                    name = f"{folders[picture.label]}/{name}"
                    lines.append(f"{name} {picture.label}\n")
                _add(archive, name, data)
            if images.class_names:
                _add(archive, "labels.txt", "".join(f"{c}\n" for c in images.class_names).encode())
                _add(archive, "train_list.txt", "".join(lines).encode())


def reading(images: ProtectedFiles, folder: Path) -> str:
    """Returns where an export goes."""
    del images
    return f"PaddleX, after unzip {folder / '*.zip'}; or upload each to EasyDL"


def _folders(class_names: tuple[str, ...]) -> list[str]:
    plain = [name if re.fullmatch(r"[\w-]{1,50}", name, re.ASCII) else "" for name in class_names]
    once = {name.casefold() for name in plain if name}
    if len(once) < len(plain):  # some are odd, or would be one folder
        return [f"class_{number:03d}" for number in range(len(plain))]
    return plain


def _name(shard: int) -> str:
    return f"train-{shard:06d}.zip"


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    header = zipfile.ZipInfo(name)  # the time is 1980; not compressed, as pictures are already
    header.external_attr = 0o644 << 16
    archive.writestr(header, data)
