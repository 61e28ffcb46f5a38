"""What files cost: a few of them are written, checked and read again, in a temporary folder."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ml_collections import ConfigDict

from ucjax.comparison.ground import cache_folder
from ucjax.data import folder, images, textures, tfds
from ucjax.data.images import ImageSet, Item, Listing
from ucjax.errors import UserError
from ucjax.files import manifest, protect, verification
from ucjax.files.picture import LOSSY, Encoding
from ucjax.protections import controls
from ucjax.protections.noise import Noise, Pixels

T = TypeVar("T")


@dataclass(frozen=True)
class FileCost:
    """Means over a sample of `files` images: seconds and bytes an image, on all threads.

    The files carry random noise of the whole budget, which a lossless format compresses least.
    """

    files: int
    decode_seconds: float
    write_seconds: float
    check_seconds: float
    reread_seconds: float
    source_bytes: float  # 0 if the images are no files of a folder
    written_bytes: float
    cache_bytes: float


def listing(config: ConfigDict) -> Listing | None:
    """Lists the images of a run without decoding them; None if they are not on this machine.

    Raises:
      UserError: the folder does not exist, or holds no picture.
    """
    data, seed = config.data, config.seed
    if data.source == "folder":
        place = Path(data.root).expanduser()
        return folder.listing(
            place,
            test_fraction=data.test_fraction,
            seed=seed,
            split_unlabelled=data.split_unlabelled,
        )
    if data.source == "textures":
        train, test = (
            textures.items(split, count, data.short_side, seed)
            for split, count in (("train", data.train_count), ("test", data.test_count))
        )
        return Listing(train, test, textures.FAMILIES)
    if tfds.is_prepared(data.name, data.root):
        return tfds.listing(data.name, data.root, cache_dir=cache_folder(config))
    return None


def photos(root: Path) -> Listing:
    """Lists all pictures of a folder, which is what `ucjax protect` protects.

    Raises:
      UserError: there are none.
    """
    names = folder.walk(root)
    if not names:
        raise UserError(f"no pictures under {root}: give the folder that holds your photos")
    labels, class_names = folder.labels(names)
    items = [images.file_item(root / x, x, label) for x, label in zip(names, labels, strict=True)]
    return Listing(items, [], class_names, root)


def measure(config: ConfigDict, listed: Listing, *, files: int) -> FileCost | None:
    """Sends about `files` images, spread evenly over those to protect, through the stages.

    Returns None if none of them can be read.
    """
    chosen = np.unique(np.linspace(0, len(listed.train) - 1, files).astype(int))
    items = [listed.train[index] for index in chosen]
    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(io.StringIO()):
        return _through_the_stages(config, items, listed, Path(temporary))


def _through_the_stages(
    config: ConfigDict, items: list[Item], listed: Listing, place: Path
) -> FileCost | None:
    def decode(items: list[Item], label: str) -> ImageSet:
        return images.build(
            items,
            short_side=config.data.short_side,
            cache_dir=place / "cache",
            label=label,
            class_names=listed.class_names,
        )

    decoded, decode_seconds = _timed(lambda: decode(items, "sample"))
    n = len(decoded)
    if not n:
        return None
    out = place / "files"
    write, check = _writing(config, decoded, listed.root, out)
    _, write_seconds = _timed(write)
    _, check_seconds = _timed(check)
    written = manifest.items_of(out)
    _, reread_seconds = _timed(lambda: decode(written, "written"))
    sources = [] if listed.root is None else [listed.root / name for name in decoded.names]
    outputs = [path for path in (out / "images").rglob("*") if path.is_file()]
    return FileCost(
        files=n,
        decode_seconds=decode_seconds / len(items),
        write_seconds=write_seconds / n,
        check_seconds=check_seconds / n,
        reread_seconds=reread_seconds / n,
        source_bytes=sum(map(_size, sources)) / n,
        written_bytes=sum(map(_size, outputs)) / n,
        cache_bytes=decoded.rows.nbytes / n,
    )


def _writing(
    config: ConfigDict, decoded: ImageSet, root: Path | None, out: Path
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns what writes the images with noise into `out`, and what checks these files."""
    crop, form = config.data.crop, config.files.format
    budget = verification.Budget(config.noise.epsilon_255, "linf", form in LOSSY)
    if config.files.geometry == "crop" or root is None:
        root = None
        clean = verification.clean_crops(decoded, crop)
    else:
        clean = verification.clean_files(root, decoded.names)
    write = partial(
        protect.protect_images,
        decoded,
        root=root,
        noise=_signs(config, len(decoded)),
        crop=crop,
        folder=out,
        label="sample",
        encoding=Encoding(form),
    )
    return write, lambda: verification.verify(out, clean, budget)


def _signs(config: ConfigDict, count: int) -> Noise:
    data, spec = config.data, config.noise

    def signs(row: int) -> np.ndarray:
        return controls.image_signs(0, row, data.crop, spec.epsilon_255, grain=spec.grain)

    patterns = Pixels(signs, data.crop, data.short_side, spec.epsilon_255)
    return Noise(patterns, np.arange(count, dtype=np.int32), spec.epsilon_255)


def _size(path: Path) -> int:
    return path.stat().st_size


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    value = work()
    return value, time.perf_counter() - start
