"""An independent check of a folder of written images: believes the files and nothing else.

Shares only the decoder with the code that wrote them, and needs no JAX.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from ucjax.data.decode import split, without_warnings
from ucjax.data.folder import walk
from ucjax.data.images import ImageSet
from ucjax.errors import UserError


@dataclass(frozen=True)
class Verification:
    """The number of files in the manifest, one line a failure, and the largest change."""

    files: int
    failures: tuple[str, ...]
    max_delta_255: int
    notes: tuple[str, ...] = ()  # what the writer had already said


class Budget(NamedTuple):
    """What files are held to: their change, and what must not be in them."""

    epsilon_255: int
    norm: str  # "linf": of any pixel; "rms": of the root mean square, plus half a level of rounding
    lossy: bool = False  # JPEG: the change is what the manifest states
    strip_gps: bool = False


class Clean(NamedTuple):
    """A clean image: uint8 `[h, w, 3]`, and the hash of the bytes it was decoded from."""

    pixels: np.ndarray
    sha256: str
    alpha: np.ndarray | None = None  # uint8 [h, w]
    icc: bytes | None = None


def verify(
    folder: Path,
    clean: Mapping[str, Callable[[], Clean]],
    budget: Budget,
    *,
    failed: Container[str] = (),
    threads: int | None = None,
) -> Verification:
    """Compares every file of a finished folder with its manifest and its clean source.

    Found are: files that are missing, not listed, changed, of another size than their source, or
    over the budget; sources that were changed, or have no file; wrong statements of the manifest.

    Args:
      folder: with `images/` and `manifest.jsonl`.
      clean: the clean images by name: `clean_crops` or `clean_files`.
      budget: what every file must keep.
      failed: names of clean images that the writer itself counted as failures.
      threads: None for one a processor.
    """
    try:
        lines = (folder / "manifest.jsonl").read_bytes().splitlines()
        records = [_parse(line) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Verification(0, (f"manifest.jsonl cannot be read: {_reason(error)}",), 0)
    with without_warnings(), ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        results = list(pool.map(lambda r: _check(folder, r, clean, budget), records))
    failures = [*_check_listing(folder, records, clean, failed)]
    failures += [line for lines_of_file, _ in results for line in lines_of_file]
    return Verification(len(records), tuple(failures), max((top for _, top in results), default=0))


def verify_folder(folder: Path, photos: Path, *, threads: int | None = None) -> Verification:
    """Checks what `ucjax protect` wrote against the folder of the originals.

    Raises:
      UserError: one of the folders is not what it should be.
    """
    if not photos.is_dir():
        raise UserError(f"{photos} is not a folder: give the folder of the originals")
    try:
        summary = json.loads((folder / "summary.json").read_bytes())
        job = summary["job"]
        budget = Budget(
            job["epsilon_255"],
            job["norm"],
            job.get("format") == "jpeg",
            job.get("strip_gps", False),
        )
        failed = dict(summary["failures"])
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no finished protected files: protect first") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'summary.json'} is damaged ({_reason(error)})") from error
    if job["geometry"] != "native":
        raise UserError(f"{folder} holds centre crops: files of a run are verified by the run")
    clean = clean_files(photos, walk(photos))
    found = verify(folder, clean, budget, failed=failed, threads=threads)
    notes = (f"{name}: not protected: {reason}" for name, reason in failed.items())
    return replace(found, notes=tuple(notes))


def clean_crops(images: ImageSet, crop: int) -> dict[str, Callable[[], Clean]]:
    """Gives the centre squares, `[crop, crop, 3]`, that files of geometry "crop" were made from."""

    def load(index: int) -> Clean:
        image = images.image(index)
        top, left = (round((side - crop) / 2) for side in image.shape[:2])
        pixels = np.ascontiguousarray(image[top : top + crop, left : left + crop])
        return Clean(pixels, hashlib.sha256(pixels.tobytes()).hexdigest())

    return {name: partial(load, index) for index, name in enumerate(images.names)}


def clean_files(root: Path, names: Iterable[str]) -> dict[str, Callable[[], Clean]]:
    """Gives the original pictures that files of geometry "native" were made from."""

    def load(name: str) -> Clean:
        data = (root / name).read_bytes()
        found = _open(data)
        return Clean(found.pixels, hashlib.sha256(data).hexdigest(), found.alpha, found.icc)

    return {name: partial(load, name) for name in names}


class _Record(NamedTuple):
    name: str
    output: str
    source_sha256: str
    output_sha256: str
    max_delta_255: int


def _parse(line: bytes) -> _Record:
    record: dict[str, Any] = json.loads(line)
    return _Record(
        name=str(record["name"]),
        output=str(record["output"]),
        source_sha256=str(record["source_sha256"]),
        output_sha256=str(record["output_sha256"]),
        max_delta_255=int(record["max_delta_255"]),
    )


def _check_listing(
    folder: Path, records: list[_Record], clean: Mapping[str, object], failed: Container[str]
) -> Iterable[str]:
    for kind in ("name", "output"):
        counts = Counter(getattr(record, kind) for record in records)
        yield from (f"{kind} {x}: {n} times in the manifest" for x, n in counts.items() if n > 1)
    images = folder / "images"
    found = {path.relative_to(images).as_posix() for path in images.rglob("*") if not path.is_dir()}
    unlisted = sorted(found - {record.output for record in records})
    yield from (f"{output}: is not in the manifest" for output in unlisted)
    unprotected = sorted(clean.keys() - {record.name for record in records})
    yield from (f"{name}: has no protected file" for name in unprotected if name not in failed)


def _check(
    folder: Path,
    record: _Record,
    clean: Mapping[str, Callable[[], Clean]],
    budget: Budget,
) -> tuple[list[str], int]:
    """Returns what is wrong with one file, and its largest change."""
    if record.name not in clean:
        return [f"{record.output}: there is no clean image {record.name!r}"], 0
    if ".." in Path(record.output).parts or Path(record.output).is_absolute():
        return [f"{record.output}: leads out of the folder"], 0
    failures = []
    try:
        data = (folder / "images" / record.output).read_bytes()
        if hashlib.sha256(data).hexdigest() != record.output_sha256:
            failures.append(f"{record.output}: is not the file that was written (sha256)")
        protected = _open(data)
    except Exception as error:  # decoders raise nearly anything on damaged files
        return [*failures, f"{record.output}: cannot be read: {_reason(error)}"], 0
    try:
        source = clean[record.name]()
    except Exception as error:
        return [*failures, f"{record.name}: the clean image cannot be read: {_reason(error)}"], 0
    if source.sha256 != record.source_sha256:
        failures.append(f"{record.name}: the clean image was changed since (sha256)")
    if source.pixels.shape != protected.pixels.shape:
        sizes = [
            f"{width} x {height}"
            for height, width, _ in (protected.pixels.shape, source.pixels.shape)
        ]
        return [*failures, f"{record.output}: is {sizes[0]} pixels, its source {sizes[1]}"], 0
    failures += [f"{record.output}: {what}" for what in _beside_pixels(protected, source, budget)]
    highest, rms = _change(protected.pixels, source.pixels)
    return failures + _check_change(record, highest, rms, budget), highest


def _beside_pixels(protected: _File, source: Clean, budget: Budget) -> Iterable[str]:
    """Says what is wrong with the transparency and the metadata."""
    alphas = [x for x in (protected.alpha, source.alpha) if x is not None]
    if len(alphas) == 1 or (alphas and (alphas[0] != alphas[1]).any()):
        yield "has another transparency than its source"
    if protected.icc != source.icc:
        yield "has another colour profile than its source"
    if protected.oriented:
        yield "asks to be rotated, but its pixels are upright"
    if protected.thumbnail:
        yield "holds a thumbnail or maker note, which may be a clean copy"
    if protected.gps and budget.strip_gps:
        yield "states a place (GPS), which was to be left out"


def _change(protected: np.ndarray, clean: np.ndarray) -> tuple[int, float]:
    """Returns the largest change and its root mean square, a few rows at a time, in levels."""
    highest, squares = 0, 0
    for top in range(0, len(clean), 64):
        rows = slice(top, top + 64)
        delta = np.abs(protected[rows].astype(np.int32) - clean[rows])
        highest = max(highest, int(delta.max()))
        squares += int(np.square(delta).sum(dtype=np.int64))
    return highest, math.sqrt(squares / clean.size)


def _check_change(record: _Record, highest: int, rms: float, budget: Budget) -> list[str]:
    failures = []
    used, allowed = {
        "linf": (highest, budget.epsilon_255),
        "rms": (rms, budget.epsilon_255 + 0.5),
    }[budget.norm]
    if used > allowed and not budget.lossy:
        failures.append(
            f"{record.output}: changed by {used:g} levels ({budget.norm}), over {allowed}"
        )
    if highest != record.max_delta_255:
        stated = record.max_delta_255
        failures.append(f"{record.output}: changed by {highest}, the manifest says {stated}")
    return failures


class _File(NamedTuple):
    pixels: np.ndarray  # uint8 [h, w, 3]
    alpha: np.ndarray | None  # uint8 [h, w]
    icc: bytes | None  # of RGB values
    oriented: bool
    thumbnail: bool
    gps: bool


def _open(data: bytes) -> _File:
    with Image.open(io.BytesIO(data)) as image:
        color, alpha = split(image)
        exif, icc = image.getexif(), image.info.get("icc_profile")
        note = ExifTags.IFD.MakerNote in exif.get_ifd(ExifTags.IFD.Exif)
        return _File(
            pixels=np.asarray(color),
            alpha=None if alpha is None else np.asarray(alpha),
            icc=icc if icc and icc[16:20] == b"RGB " else None,
            oriented=exif.get(ExifTags.Base.Orientation, 1) != 1,
            thumbnail=note or bool(exif.get_ifd(ExifTags.IFD.IFD1)),
            gps=bool(exif.get_ifd(ExifTags.IFD.GPSInfo)),
        )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
