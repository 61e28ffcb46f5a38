"""The first classes of Tiny-ImageNet, from its zip file, as a folder with `train/` and `test/`."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

from ucjax.errors import UserError

_PICTURE = re.compile(r"(?:[\w-]+/)?(train|val)/(?:(n\d{8})/)?(?:images/)?([\w-]+\.JPEG)")
_LARGEST = 10**6  # bytes of a picture; those of 64 px have a few thousand
_SPLITS = {"train": "train", "val": "test"}  # its own test pictures have no labels


def unpack(path: Path, folder: Path, classes: int) -> Path:
    """Unpacks the pictures of the first classes, by the order of their WordNet ids, once.

    The classes of validation pictures are their folders, or in the original file
    (cs231n.stanford.edu/tiny-imagenet-200.zip) the lines of `val_annotations.txt`.

    Args:
      path: of the zip file.
      folder: a new one, which appears when it is complete.
      classes: how many.

    Raises:
      UserError: the file is none, or holds fewer classes.
    """
    if folder.is_dir():
        return folder
    try:
        with zipfile.ZipFile(path) as archive:
            chosen = _chosen(archive, path, classes)
            temporary = folder.with_name(f".{folder.name}")
            shutil.rmtree(temporary, ignore_errors=True)
            for member, target in chosen.items():
                (temporary / target).parent.mkdir(parents=True, exist_ok=True)
                (temporary / target).write_bytes(archive.read(member))
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as a zip file ({error})") from error
    temporary.rename(folder)
    return folder


def _chosen(archive: zipfile.ZipFile, path: Path, classes: int) -> dict[zipfile.ZipInfo, str]:
    """Returns the members to unpack, and where to."""
    listed = _annotations(archive)
    found = []
    for member in archive.infolist():
        match = _PICTURE.fullmatch(member.filename)
        if match and member.file_size <= _LARGEST:
            split, wordnet, name = match.groups()
            if wordnet := wordnet or listed.get(name):
                found.append((member, split, wordnet, name))
    known = sorted({wordnet for _, split, wordnet, _ in found if split == "train"})
    if len(known) < max(classes, 2):
        raise UserError(
            f"{path} has {len(known)} classes of Tiny-ImageNet, and {classes} are asked"
        )
    wanted = {*known[:classes]}
    return {
        member: f"{_SPLITS[split]}/{wordnet}/{name}"
        for member, split, wordnet, name in found
        if wordnet in wanted
    }


def _annotations(archive: zipfile.ZipFile) -> dict[str, str]:
    """Returns the class of each validation picture of the original file, by its name."""
    lists = [name for name in archive.namelist() if name.endswith("val/val_annotations.txt")]
    lines = archive.read(lists[0]).decode("utf-8", "replace").splitlines() if lists else []
    words = [line.split("\t") for line in lines]
    return {w[0]: w[1] for w in words if len(w) > 1 and re.fullmatch(r"n\d{8}", w[1])}
