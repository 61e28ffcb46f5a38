"""Tiny-ImageNet from its zip: `train/<wnid>/`, `val/<wnid>/` and `classes.tsv` (wnid, names)."""

from __future__ import annotations

import io
import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ucjax.data import images
from ucjax.data.images import ImageSet, Item
from ucjax.errors import UserError
from ucjax.runtime.progress import Progress, say

IMAGE_SIZE = 64  # pixels, of the set and of the model


class LabelledPictures(NamedTuple):
    """Both splits, square pictures of `IMAGE_SIZE`, and what their classes are called."""

    train: ImageSet
    val: ImageSet
    names: tuple[tuple[str, ...], ...]  # of each class, its synonyms; at least one


def load(archive: Path, cache_dir: Path) -> LabelledPictures:
    """Decodes the zip into caches under `cache_dir`, or opens those that are there.

    Raises:
      UserError: no such zip, no picture in one of its splits, or classes without a name.
    """
    if not zipfile.is_zipfile(archive):
        raise UserError(f"--data {archive} is not a zip file here: pass tiny-imagenet.zip")
    opened = zipfile.ZipFile(archive)  # stays open: the items read from it
    names = _class_names(opened, archive)
    classes = sorted({name.split("/")[1] for name in _pictures(opened, "train")})
    if nameless := [wnid for wnid in classes if not names.get(wnid)]:
        raise UserError(
            f"{archive}: {len(nameless)} of {len(classes)} classes, such as {nameless[0]}, have no "
            "name in classes.tsv: add lines of wnid, tab, names separated by commas"
        )

    def build(split: str) -> ImageSet:
        items = [
            Item(
                name,
                partial(_open, opened, name),
                classes.index(name.split("/")[1]),
                f"{opened.getinfo(name).CRC:08x}",
            )
            for name in _pictures(opened, split)
            if name.split("/")[1] in classes
        ]
        if not items:
            raise UserError(f"{archive}: no pictures under {split}/<wnid>/: pass tiny-imagenet.zip")
        return images.build(
            items, short_side=IMAGE_SIZE, cache_dir=cache_dir, label=split, class_names=classes,
            say=say, progress=Progress,
        )  # fmt: skip

    return LabelledPictures(build("train"), build("val"), tuple(names[wnid] for wnid in classes))


def _pictures(opened: zipfile.ZipFile, split: str) -> list[str]:
    names = (name for name in opened.namelist() if name.startswith(f"{split}/"))
    return sorted(name for name in names if name.count("/") == 2 and not name.endswith("/"))


def _class_names(opened: zipfile.ZipFile, archive: Path) -> dict[str, tuple[str, ...]]:
    try:
        lines = opened.read("classes.tsv").decode().splitlines()
    except KeyError as error:
        raise UserError(f"{archive} holds no classes.tsv: pass the prepared zip") from error
    pairs = (line.partition("\t") for line in lines)
    return {
        wnid: tuple(name.strip() for name in names.split(",") if name.strip())
        for wnid, _, names in pairs
    }


def _open(opened: zipfile.ZipFile, name: str) -> Image.Image:
    return Image.open(io.BytesIO(opened.read(name)))
