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
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ucjax.data.decode import decode
from ucjax.data.images import ImageSet


@dataclass(frozen=True)
class Verification:
    """The number of files that the manifest lists, one line a failure, and the largest change."""

    files: int
    failures: tuple[str, ...]
    max_delta_255: int


class Clean(NamedTuple):
    """A clean image: uint8 `[h, w, 3]`, and the hash of the bytes it was decoded from."""

    pixels: np.ndarray
    sha256: str


def verify(
    folder: Path,
    clean: Mapping[str, Callable[[], Clean]],
    *,
    epsilon_255: int,
    norm: str,
    threads: int | None = None,
) -> Verification:
    """Compares every file of a finished folder with its manifest and its clean source.

    Found are: files that are missing, not listed, changed, of another size than their source, or
    over the budget; sources that were changed, or have no file; wrong statements of the manifest.

    Args:
      folder: with `images/` and `manifest.jsonl`.
      clean: the clean images by name: `clean_crops` or `clean_files`.
      epsilon_255: the budget: for norm "linf" of any pixel, for "l2" of the root mean square over
        an image (plus half a level for the rounding to 8 bits).
      norm: "linf" or "l2".
      threads: None for one a processor.
    """
    try:
        lines = (folder / "manifest.jsonl").read_bytes().splitlines()
        records = [_parse(line) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Verification(0, (f"manifest.jsonl cannot be read: {_reason(error)}",), 0)
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        results = list(pool.map(lambda r: _check(folder, r, clean, epsilon_255, norm), records))
    failures = [*_check_listing(folder, records, clean)]
    failures += [line for lines_of_file, _ in results for line in lines_of_file]
    return Verification(len(records), tuple(failures), max((top for _, top in results), default=0))


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
        return Clean(_pixels(data), hashlib.sha256(data).hexdigest())

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
    folder: Path, records: list[_Record], clean: Mapping[str, object]
) -> Iterable[str]:
    for kind in ("name", "output"):
        counts = Counter(getattr(record, kind) for record in records)
        yield from (f"{kind} {x}: {n} times in the manifest" for x, n in counts.items() if n > 1)
    images = folder / "images"
    found = {path.relative_to(images).as_posix() for path in images.rglob("*") if not path.is_dir()}
    unlisted = sorted(found - {record.output for record in records})
    yield from (f"{output}: is not in the manifest" for output in unlisted)
    unprotected = sorted(clean.keys() - {record.name for record in records})
    yield from (f"{name}: has no protected file" for name in unprotected)


def _check(
    folder: Path,
    record: _Record,
    clean: Mapping[str, Callable[[], Clean]],
    epsilon_255: int,
    norm: str,
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
        protected = _pixels(data)
    except Exception as error:  # decoders raise nearly anything on damaged files
        return [*failures, f"{record.output}: cannot be read: {_reason(error)}"], 0
    try:
        source = clean[record.name]()
    except Exception as error:
        return [*failures, f"{record.name}: the clean image cannot be read: {_reason(error)}"], 0
    if source.sha256 != record.source_sha256:
        failures.append(f"{record.name}: the clean image was changed since (sha256)")
    if source.pixels.shape != protected.shape:
        sizes = [
            f"{width} x {height}" for height, width, _ in (protected.shape, source.pixels.shape)
        ]
        return [*failures, f"{record.output}: is {sizes[0]} pixels, its source {sizes[1]}"], 0
    delta = np.abs(protected.astype(np.int16) - source.pixels)
    return failures + _check_delta(record, delta, epsilon_255, norm), int(delta.max())


def _check_delta(record: _Record, delta: np.ndarray, epsilon_255: int, norm: str) -> list[str]:
    failures = []
    highest, rms = int(delta.max()), math.sqrt(np.square(delta, dtype=np.float64).mean())
    used, allowed = {"linf": (highest, epsilon_255), "l2": (rms, epsilon_255 + 0.5)}[norm]
    if used > allowed:
        failures.append(f"{record.output}: changed by {used:g} levels ({norm}), over {allowed}")
    if highest != record.max_delta_255:
        stated = record.max_delta_255
        failures.append(f"{record.output}: changed by {highest}, the manifest says {stated}")
    return failures


def _pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(decode(image))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
