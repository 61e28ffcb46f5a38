"""What lies in an OUT, for the page at its end: counted and measured on the files themselves."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ucjax import names
from ucjax.comparison import table as tables
from ucjax.comparison.table import Table
from ucjax.data import decode
from ucjax.data.rows import as_decoded, one_large
from ucjax.errors import UserError
from ucjax.files import manifest, metadata, picture
from ucjax.files.manifest import ProtectedSet
from ucjax.files.picture import UnreadableError
from ucjax.files.records import Record
from ucjax.photos import regions
from ucjax.photos.evaluate import FOLDER
from ucjax.photos.preview import read
from ucjax.photos.protect import PROTECTOR, SETTINGS
from ucjax.runtime import disk

# Of the manifest that an evaluation was made with: after photos were added it is another.
_EVALUATED = f"{FOLDER}/evaluated.json"
_WORST, CROP = 4, 208
_LOOKED_INTO = 24  # files whose metadata are counted: a look into a PNG file decodes it
WORST_BY = "delta_e_mean_screen"


class Pair(NamedTuple):
    """A part of a photograph and of its copy."""

    record: Record
    clean: np.ndarray  # uint8 [side, side, 3], the flattest part
    protected: np.ndarray
    icc: bytes | None


class Account(NamedTuple):
    """What is on the page beside numbers of the manifest's summary."""

    summary: ProtectedSet
    job: Record
    row: str  # of the table of protections, "" where it is not known
    clusters: int
    converted: tuple[tuple[str, str], ...]
    metadata: dict[str, tuple[int, int]]  # kind -> files that hold it, of the originals and copies
    looked_into: int
    worst: tuple[Pair, ...]
    table: Table | None  # of the evaluation of these copies
    outdated: bool  # there is one of other copies


def of(photos: Path, out: Path) -> Account:
    """Looks into a finished OUT of `ucjax protect` and its originals.

    Raises:
      UserError: it is not finished, or damaged.
    """
    summary, read = manifest.load(out), manifest.read_summary(out)
    assert read is not None, "it was loaded"
    job, records = read.get("job", {}), manifest.read_manifest(out)
    counted, looked_into = _metadata(photos, out, records)
    table, outdated = _table(out)
    return Account(
        summary=summary,
        job=job,
        row=_row(out, job),
        clusters=len({record.get("cluster") for record in records}),
        converted=tuple((r["name"], r["converted"]) for r in records if "converted" in r),
        metadata=counted,
        looked_into=looked_into,
        worst=tuple(_worst(photos, out, records)),
        table=table,
        outdated=outdated,
    )


def digest(out: Path, *others: str) -> str:
    """Returns the SHA-256 of all that `of` depends on, and of more; cheap."""
    found = hashlib.sha256(json.dumps(others).encode())
    for name in (manifest.MANIFEST, manifest.SUMMARY, f"{FOLDER}/{tables.FILE}", _EVALUATED):
        with contextlib.suppress(OSError):
            found.update(disk.sha256_regular(out / name).encode())
        found.update(b"\n")
    return found.hexdigest()


def note_evaluation(out: Path) -> None:
    """Keeps of which copies the evaluation in `out` is."""
    noted = {"sha256": disk.sha256_regular(out / manifest.MANIFEST)}
    disk.write_bytes(out / _EVALUATED, json.dumps(noted).encode())


def _table(out: Path) -> tuple[Table | None, bool]:
    """Returns the evaluation of these copies, and whether there is one of other copies."""
    try:
        noted = json.loads(disk.read_regular(out / _EVALUATED))
        found = tables.load(out / FOLDER)
        current = noted == {"sha256": disk.sha256_regular(out / manifest.MANIFEST)}
    except (OSError, ValueError, RecursionError, UserError):
        return None, False
    return (found, False) if current else (None, True)


def _row(out: Path, job: Record) -> str:
    """Returns the row that the noise is of, if it was learnt in this OUT."""
    try:
        (row,) = json.loads(disk.read_regular(out / PROTECTOR / SETTINGS))["protections"]
        return str(names.parse(str(row), "row"))
    except (OSError, ValueError, TypeError, KeyError, RecursionError, UserError):
        return "gratings" if job.get("kind") == "gratings" else ""


def _worst(photos: Path, out: Path, records: Sequence[Record]) -> list[Pair]:
    """Returns those whose copies differ most to the eye, the worst first."""
    needed = {"psnr", "ssim_luma", "delta_e_mean", WORST_BY}
    measured = [record for record in records if needed <= record.keys()]
    ranked = sorted(measured, key=lambda record: (-record[WORST_BY], record["name"]))
    pairs = (_pair(photos, out, record) for record in ranked[:_WORST])
    return [pair for pair in pairs if pair is not None]


def _pair(photos: Path, out: Path, record: Record) -> Pair | None:
    """Returns the part of a photograph and its copy, None if either has gone or been damaged."""
    with contextlib.suppress(UnreadableError, OSError):
        icc, shape, square, clean = _flattest(photos / record["name"])
        path = out / manifest.IMAGES / record["output"]
        with open(disk.open_regular(path), "rb") as file:
            copy = picture.read_pixels(as_decoded, file)
        if copy.pixels.shape == shape:
            protected = copy.part(*regions.slices(square)).on_white()
            return Pair(record, clean, np.asarray(protected), icc)
    return None


def _flattest(path: Path) -> tuple[bytes | None, tuple[int, ...], regions.Square, np.ndarray]:
    """Returns a photograph's profile, shape, and flattest square: its place and its pixels."""
    # Once this returns the photograph leaves the memory, before its copy is read.
    clean, _ = read(path, as_decoded)
    (square, *_) = regions.squares(clean.pixels, CROP)
    pixels = np.asarray(clean.part(*regions.slices(square)).on_white())
    return clean.icc, clean.pixels.shape, square, pixels


def _metadata(
    photos: Path, out: Path, records: Sequence[Record]
) -> tuple[dict[str, tuple[int, int]], int]:
    """Counts what some originals and their copies hold, and these; spread over the folder."""
    step = -(-len(records) // _LOOKED_INTO) if records else 1
    chosen = records[::step]
    paths = [photos / record["name"] for record in chosen]
    copies = [out / manifest.IMAGES / record["output"] for record in chosen]
    with decode.without_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        before, after = (
            Counter(kind for kinds in pool.map(_kinds, listed) for kind in kinds)
            for listed in (paths, copies)
        )
    counted = {kind: (before[kind], after[kind]) for kind in metadata.KINDS}
    return {kind: counts for kind, counts in counted.items() if any(counts)}, len(chosen)


def _kinds(path: Path) -> set[str]:
    try:
        with (
            open(disk.open_regular(path), "rb") as file,
            decode.open_picture(file) as image,
            one_large(3 * image.width * image.height),
            contextlib.closing(image),  # before the next large one
        ):
            return metadata.kinds(image)
    except Exception:  # decoders raise nearly anything on damaged files
        return set()
