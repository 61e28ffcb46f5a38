"""An independent check of a folder of written images: believes the files and nothing else.

Shares with the code that wrote them the decoder and the list of allowed metadata, and needs no JAX.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from ucjax.data import decode
from ucjax.data.decode import without_warnings
from ucjax.data.folder import walk
from ucjax.data.images import ImageSet
from ucjax.data.rows import BAND, Hold, Rows, holding
from ucjax.errors import DiskError, UserError
from ucjax.files import cue, inspection, picture
from ucjax.files.inspection import File
from ucjax.files.manifest import IMAGES, read_manifest, read_summary
from ucjax.files.picture import LOSSY
from ucjax.files.records import Record
from ucjax.protections.noise import on_whole
from ucjax.protections.waves import Gratings
from ucjax.runtime import disk

_JPEG = (".jpg", ".jpeg")
# Lossy files with gratings are held to `cue.ENOUGH` of the wave's amplitude, but for 1 in 100.
_MAY_HOLD_LESS = 0.01


class Cue(NamedTuple):
    """How much of the wave's amplitude lossy files hold, as shares of what was put on them."""

    files: int
    held: int  # of these, with `cue.ENOUGH` or more
    median: float
    least: float


@dataclass(frozen=True)
class Verification:
    """The number of files in the manifest, one line a failure, and the largest change."""

    files: int
    failures: tuple[str, ...]
    max_delta_255: int
    notes: tuple[str, ...] = ()  # what is known, or could not be checked
    cue: Cue | None = None  # of lossy files, where a protector tells the wave

    def __repr__(self) -> str:
        first = f", first {self.failures[0]}" if self.failures else ""
        return (
            f"<Verification: {self.files} files, {len(self.failures)} faults{first}; largest "
            f"change {self.max_delta_255}/255>"
        )


class Budget(NamedTuple):
    """What files are held to: their change, and what must not be in them."""

    epsilon_255: int
    norm: str  # "linf": of any pixel; "rms": of the root mean square, plus half a level of rounding
    lossy: bool = False  # of JPEG files the change is what the manifest states, whatever the budget
    waves: Gratings | None = None  # whose amplitude JPEG files are held to, if `lossy`
    keep: tuple[str, ...] = ()  # metadata beyond the list
    changed: bool = False  # whether a file that equals its source is a failure


class Clean(NamedTuple):
    """A clean image: uint8 `[h, w, 3]`, and the hash of the bytes it was decoded from."""

    pixels: Rows
    sha256: str
    alpha: np.ndarray | None = None  # uint8 [h, w]
    icc: bytes | None = None
    color: Mapping[str, bytes] | None = None  # PNG's cICP, gAMA and cHRM


def verify(
    folder: Path,
    clean: Mapping[str, Callable[[Hold], Clean]],
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
        records = read_manifest(folder)
    except UserError as error:
        return Verification(0, (str(error),), 0)
    with without_warnings(), ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        results = list(pool.map(lambda r: _check(folder, r, clean, budget), records))
    failures = [*_check_listing(folder, records, clean, failed)]
    failures += [line for result in results for line in result.failures]
    shares = {
        r["output"]: x.cue for r, x in zip(records, results, strict=True) if x.cue is not None
    }
    left = _summed_up(shares)
    if left and left.held < (1 - _MAY_HOLD_LESS) * left.files:
        worst = min(shares, key=lambda output: shares[output])
        failures.append(
            f"{left.files - left.held} of {left.files} JPEG files hold less than {cue.ENOUGH:.0%} "
            f"of their wave, least {left.least:.0%}, {worst}: use --format png"
        )
    highest = max((result.highest for result in results), default=0)
    return Verification(len(records), tuple(failures), highest, cue=left)


def _summed_up(shares: Mapping[str, float]) -> Cue | None:
    values = list(shares.values())
    if not values:
        return None
    held = sum(value >= cue.ENOUGH for value in values)
    return Cue(len(values), held, round(median(values), 4), round(min(values), 4))


def verify_folder(
    folder: Path, photos: Path, *, protector: Path | None = None, threads: int | None = None
) -> Verification:
    """Checks what `ucjax protect` wrote against the folder of the originals.

    The budget is that of the protector, whose hash the files' summary states. Without the
    protector it is what the summary says, which anybody could have edited, and a note says so.

    Args:
      folder: OUT.
      photos: the originals.
      protector: the folder of the protector, None for `folder/protector` if it is there.
      threads: None for one a processor.

    Raises:
      UserError: one of the folders is not what it should be.
    """
    if not photos.is_dir():
        raise UserError(f"{photos} is not a folder: give the folder of the originals")
    summary = read_summary(folder)
    if summary is None:
        raise UserError(f"{folder} holds no finished protected files: protect first")
    try:
        job = summary["job"]
        stated = Budget(job["epsilon_255"], job["norm"], keep=tuple(job["keep"]), changed=True)
        failed = {str(name): str(reason) for name, reason in summary["failures"]}
        geometry, digest, form = job["geometry"], job["protector_sha256"], job["format"]
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{folder / 'summary.json'} is not of ucjax protect ({reason}): protect again"
        ) from error
    if geometry != "native":
        raise UserError(f"{folder} holds centre crops: files of a run are verified by the run")
    failures, notes = [], [f"{name}: not protected: {why}" for name, why in failed.items()]
    where = protector or folder / "protector"
    if protector or (where / "protector.json").exists():
        found = inspection.budget_of(where)
        notes.insert(0, f"the budget is that of {where}, sha256 {found.sha256}")
        if found.sha256 != digest:
            failures.append(f"summary.json names another protector than {where}: {digest}")
        if (stated.epsilon_255, stated.norm) != (found.epsilon_255, found.norm):
            failures.append(
                f"summary.json states a budget of {stated.epsilon_255} ({stated.norm}), the "
                f"protector one of {found.epsilon_255} ({found.norm})"
            )
        stated = stated._replace(epsilon_255=found.epsilon_255, norm=found.norm)
        if form in LOSSY:
            waves = inspection.waves_of(where)
            stated = stated._replace(lossy=waves is not None, waves=waves)
    else:
        notes.insert(
            0,
            f"no protector at {where}: the budget of {stated.epsilon_255} ({stated.norm}) is what "
            "summary.json says, and was not checked; give the protector with --protector",
        )
    unreadable: list[str] = []
    names = walk(photos, lambda error: unreadable.append(f"{error.filename}: {error.strerror}"))
    failures += [f"a folder cannot be searched: {line}" for line in unreadable]
    checked = verify(folder, clean_files(photos, names), stated, failed=failed, threads=threads)
    return replace(checked, failures=(*failures, *checked.failures), notes=tuple(notes))


def clean_crops(images: ImageSet, crop: int) -> dict[str, Callable[[Hold], Clean]]:
    """Gives the centre squares, `[crop, crop, 3]`, that files of geometry "crop" were made from."""

    def load(index: int, hold: Hold) -> Clean:
        image = images.image(index)
        top, left = (round((side - crop) / 2) for side in image.shape[:2])
        pixels = np.ascontiguousarray(image[top : top + crop, left : left + crop])
        return Clean(pixels, hashlib.sha256(pixels.tobytes()).hexdigest())

    return {name: partial(load, index) for index, name in enumerate(images.names)}


def clean_files(root: Path, names: Iterable[str]) -> dict[str, Callable[[Hold], Clean]]:
    """Gives the original pictures that files of geometry "native" were made from."""

    def load(name: str, hold: Hold) -> Clean:
        data, _ = decode.read_file(root / name)
        found = inspection.look(data, hold=hold)
        digest = hashlib.sha256(data).hexdigest()
        return Clean(found.pixels, digest, found.alpha, found.icc, found.color)

    return {name: partial(load, name) for name in names}


def _check_listing(
    folder: Path, records: list[Record], clean: Mapping[str, object], failed: Container[str]
) -> Iterable[str]:
    images = folder / IMAGES
    if images.is_symlink():
        yield f"{images}: is a link"
    listed = {record["output"] for record in records}
    yield from inspection.strangers(images, listed)
    unprotected = sorted(clean.keys() - {record["name"] for record in records})
    yield from (f"{name}: has no protected file" for name in unprotected if name not in failed)


class _Found(NamedTuple):
    failures: list[str]
    highest: int = 0
    cue: float | None = None


def _check(
    folder: Path,
    record: Record,
    clean: Mapping[str, Callable[[Hold], Clean]],
    budget: Budget,
) -> _Found:
    """Returns what is wrong with one file, its largest change, and the cue in it."""
    name, output, images = record["name"], record["output"], folder / IMAGES
    if name not in clean:
        return _Found([f"{output}: there is no clean image {name!r}"])
    try:
        data = disk.read_regular(images / output, images)
    except OSError as error:
        return _Found([f"{output}: cannot be read: {_reason(error)}"])
    # Not in `folder`, in which this changes nothing.
    with holding(picture.decoded_bytes(data), None) as (hold, see):
        return _check_content(record, data, lambda: clean[name](see), budget, hold)


def _check_content(
    record: Record, data: bytes, clean: Callable[[], Clean], budget: Budget, hold: Hold
) -> _Found:
    name, output, failures = record["name"], record["output"], []
    if hashlib.sha256(data).hexdigest() != record["output_sha256"]:
        failures.append(f"{output}: is not the file that was written (sha256)")
    try:
        protected = inspection.look(data, budget.keep, hold)
    except DiskError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged files
        return _Found([*failures, f"{output}: cannot be read: {_reason(error)}"])
    try:
        source = clean()
    except DiskError:
        raise
    except Exception as error:
        return _Found([*failures, f"{name}: the clean image cannot be read: {_reason(error)}"])
    if source.sha256 != record["source_sha256"]:
        failures.append(f"{name}: the clean image was changed since (sha256)")
    failures += [f"{output}: {what}" for what in _beside_pixels(protected, source)]
    failures += [f"{output}: holds {what}" for what in inspection.strange(data, protected)]
    if source.pixels.shape != protected.pixels.shape:
        sizes = [
            f"{width} x {height}"
            for height, width, _ in (protected.pixels.shape, source.pixels.shape)
        ]
        return _Found([*failures, f"{output}: is {sizes[0]} pixels, its source {sizes[1]}"])
    highest, rms = _change(protected.pixels, source.pixels)
    lossy = budget.lossy and output.lower().endswith(_JPEG)
    failures += _check_change(record, highest, rms, budget, lossy)
    left = None
    if lossy and budget.waves:
        cluster = record.get("cluster")
        if cluster is None or cluster >= len(budget.waves.carriers):
            failures.append(f"{output}: the protector has no wave {cluster}")
        else:
            target = on_whole(budget.waves, cluster, source.pixels)
            with contextlib.suppress(ValueError):  # black or white, without room for a wave
                left = cue.share(source.pixels, target, protected.pixels)
    return _Found(failures, highest, left)


def _beside_pixels(protected: File, source: Clean) -> Iterable[str]:
    """Says how transparency and colours differ from the source's."""
    alphas = [x for x in (protected.alpha, source.alpha) if x is not None]
    if len({x.shape for x in alphas}) > 1:
        return  # the pixels differ in size as well, which is said
    if len(alphas) == 1 or (alphas and (alphas[0] != alphas[1]).any()):
        yield "has another transparency than its source"
    if protected.icc != source.icc or dict(protected.color) != dict(source.color or {}):
        yield "has another colour profile than its source"


def _change(protected: Rows, clean: Rows) -> tuple[int, float]:
    """Returns the largest change and its root mean square, a few rows at a time, in levels."""
    highest, squares = 0, 0
    for top in range(0, clean.shape[0], BAND):
        rows = slice(top, top + BAND)
        delta = np.abs(protected[rows].astype(np.int32) - clean[rows])
        highest = max(highest, int(delta.max()))
        squares += int(np.square(delta).sum(dtype=np.int64))
    return highest, math.sqrt(squares / math.prod(clean.shape))


def _check_change(
    record: Record, highest: int, rms: float, budget: Budget, lossy: bool
) -> list[str]:
    failures = []
    output, stated = record["output"], record.get("max_delta_255")
    used, allowed = {
        "linf": (highest, budget.epsilon_255),
        "rms": (rms, budget.epsilon_255 + 0.5),
    }[budget.norm]
    if used > allowed and not lossy:
        why = ": JPEG does not keep it" if output.lower().endswith(_JPEG) else ""
        failures.append(
            f"{output}: changed by {used:g} levels ({budget.norm}), over {allowed} by "
            f"{used - allowed:g}{why}"
        )
    if budget.changed and budget.epsilon_255 and not highest:
        failures.append(f"{output}: equals its source: it carries no noise")
    if highest != stated:
        failures.append(f"{output}: changed by {highest}, the manifest says {stated}")
    return failures


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
