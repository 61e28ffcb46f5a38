"""How much of their cue is left in files taken back from a platform that resized or cut them.

Every file is laid over the published one it comes from; what the protection changed is then looked
for in it by a matched filter, at the smaller of both sizes.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from ucjax.data import decode
from ucjax.data.decode import RefusedError, without_warnings
from ucjax.data.folder import walk
from ucjax.errors import UserError
from ucjax.files import cue, picture, registration
from ucjax.files.manifest import IMAGES, read_manifest
from ucjax.files.picture import UnreadableError
from ucjax.files.records import Record
from ucjax.files.registration import Place
from ucjax.protections.noise import Patterns
from ucjax.runtime import disk

# Correlation of luminance below which two files show different pictures. The hardest pipelines of
# the tests leave 0.96; photographs of other things reach 0.6.
_ALIKE = 0.9
# A small copy tells pictures apart; the most alike are then laid over the file, so many of them.
_SIGNATURE, _CANDIDATES = 24, 8


@dataclass(frozen=True)
class Left:
    """What a file that was taken back holds of the cue.

    Attributes:
      file: its name in the folder it was taken back to.
      photo: the original's name in the manifest.
      matched: how the two were found to belong together: "mapping", "name" or "picture".
      width: pixels.
      height: pixels.
      scale: pixels a pixel of the published file.
      kept: share of the published file's area that it shows.
      likeness: correlation with the published file in luminance.
      cue: amplitude of the protection's change, as a share of that in the published file.
    """

    file: str
    photo: str
    matched: str
    width: int
    height: int
    scale: float
    kept: float
    likeness: float
    cue: float


@dataclass(frozen=True)
class Survival:
    """One entry a file that was recognised, and the others' names with the reason."""

    files: tuple[Left, ...]
    unmatched: tuple[tuple[str, str], ...]

    def sentence(self) -> str:
        """Returns what it comes to, in one sentence."""
        shares, many = [left.cue for left in self.files], len(self.files)
        worst = min(self.files, key=lambda left: left.cue)
        others = f"; {len(self.unmatched)} others were not measured" if self.unmatched else ""
        return (
            f"{median(shares):.0%} of the cue is left in {many} file{'s' * (many > 1)} taken back "
            f"(median; least {worst.cue:.0%}, {worst.file}){others}"
        )

    def csv(self) -> bytes:
        """Returns a table of the files as CSV in UTF-8, those not recognised last."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = [field.name for field in fields(Left)]
        writer.writerow([*names, "reason"])
        writer.writerows([*astuple(left), ""] for left in self.files)
        writer.writerows(
            [name, *[""] * (len(names) - 1), reason] for name, reason in self.unmatched
        )
        return text.getvalue().encode("utf-8", "surrogateescape")


def survives(
    out: Path,
    downloaded: Path,
    *,
    photos: Path | None = None,
    patterns: Patterns | None = None,
    mapping: Mapping[str, str] | None = None,
    threads: int | None = None,
) -> Survival:
    """Measures the files in `downloaded` that show a picture of `out`.

    A file belongs to the picture that `mapping` says, else to the one of its name without
    extension, else to the one it shows. All of them are hostile input.

    Args:
      out: what `ucjax protect` wrote.
      downloaded: folder of the files that were taken back.
      photos: the originals; None to take the published files less their pattern for them.
      patterns: of the protector, where there are no `photos`.
      mapping: names in `downloaded` -> names of photos or of their protected files.
      threads: None for one a processor.

    Raises:
      UserError: one of the folders is not what it should be, or no file was recognised.
    """
    for folder, what in ((downloaded, "files that were taken back"), (photos, "originals")):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{folder} is not a folder: give the folder of the {what}")
    names = walk(downloaded)
    if not names:
        raise UserError(f"no pictures under {downloaded}: give the folder of those taken back")
    look = _Look(out, read_manifest(out), photos, patterns)
    given = _given(look.records, mapping or {}, names)
    with without_warnings(), ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        found = list(
            pool.map(lambda n: _measured(look, downloaded, n, *given.get(n, (None, ""))), names)
        )
        if unknown := [name for name, result in zip(names, found, strict=True) if result is None]:
            signatures = list(pool.map(look.signature, look.records))
            matched = dict(
                zip(
                    unknown,
                    pool.map(lambda name: _recognised(look, downloaded, name, signatures), unknown),
                    strict=True,
                )
            )
            found = [
                matched[name] if result is None else result
                for name, result in zip(names, found, strict=True)
            ]
    left = tuple(result for result in found if isinstance(result, Left))
    unmatched = tuple(
        (name, result) for name, result in zip(names, found, strict=True) if isinstance(result, str)
    )
    if not left:
        name, reason = unmatched[0]
        raise UserError(
            f"none of {len(names)} files in {downloaded} can be measured, first {name}: {reason}"
        )
    return Survival(left, unmatched)


def read_mapping(path: Path) -> dict[str, str]:
    """Reads names of files that were taken back and of photos from two columns of CSV.

    Raises:
      UserError: it cannot be read, is of another form, or gives a file twice.
    """
    try:
        text = disk.read_regular(path).decode("utf-8-sig")
        rows = [row for row in csv.reader(text.splitlines()) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read the mapping {path} ({error})") from error
    found: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or not all(row):
            raise UserError(f"{path}, row {number}: {len(row)} columns, not 2: file,photo")
        if found.setdefault(row[0], row[1]) != row[1]:
            raise UserError(f"{path}, row {number}: {row[0]!r} is {found[row[0]]!r} above")
    return found


def _given(
    records: Sequence[Record], mapping: Mapping[str, str], names: Sequence[str]
) -> dict[str, tuple[Record, str]]:
    """Returns the record of each file that the mapping or its name tells, and which of them."""
    known = {record["output"]: record for record in records}
    known |= {record["name"]: record for record in records}
    stems = {_stem(record["output"]): record for record in records}
    given = {name: (stems[_stem(name)], "name") for name in names if _stem(name) in stems}
    there = {*names}
    for name, photo in mapping.items():
        if photo not in known:
            raise UserError(f"the mapping says {name!r} is {photo!r}, which the manifest lacks")
        if name in there:
            given[name] = (known[photo], "mapping")
    return given


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


class _Look:
    """The published files with what they were made from."""

    def __init__(
        self, out: Path, records: list[Record], photos: Path | None, patterns: Patterns | None
    ):
        self.records = records
        self._images, self._photos, self._patterns = out / IMAGES, photos, patterns

    def published(self, record: Record) -> np.ndarray:
        """Returns the published picture, uint8 `[h, w, 3]`."""
        try:
            return _shown(disk.read_regular(self._images / record["output"], self._images))
        except (UnreadableError, OSError) as error:
            raise UnreadableError(f"{record['output']} cannot be read: {error}") from error

    def clean(self, record: Record, published: np.ndarray) -> np.ndarray:
        """Returns the original, or what of the published picture is not its pattern."""
        if self._photos is not None:
            try:
                clean = _shown(decode.read_file(self._photos / record["name"])[0])
            except (UnreadableError, RefusedError, OSError) as error:
                raise UnreadableError(f"{record['name']} cannot be read: {error}") from error
            if clean.shape != published.shape:
                raise UnreadableError(f"{record['name']} has another size than {record['output']}")
            return clean
        if self._patterns is None or record.get("cluster") is None:
            raise UnreadableError("neither the original nor its pattern is known")
        try:
            grey = np.full_like(published, 128)
            put = self._patterns.on(record["cluster"], published.shape[:2])
            pattern = put(0, grey).astype(np.int16)
        except IndexError as error:
            raise UnreadableError(f"the protector has no cluster {record['cluster']}") from error
        pattern -= 128
        return np.subtract(published, pattern, out=pattern).clip(0, 255).astype(np.uint8)

    def signature(self, record: Record) -> np.ndarray | None:
        """Returns two rows to recognise it by: the whole picture, and its middle."""
        try:
            image = registration.luminance(self.published(record))
        except UnreadableError:
            return None
        width, height = image.size
        middle = (0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height)
        return np.stack([_row(image, None), _row(image, middle)])


def _row(image: Image.Image, box: tuple[float, float, float, float] | None) -> np.ndarray:
    small = image.resize((_SIGNATURE, _SIGNATURE), Image.Resampling.BOX, box)
    values = np.asarray(small, np.float32).ravel()
    values = values - values.mean()
    return values / max(float(np.linalg.norm(values)), 1.0)


def _shown(data: bytes) -> np.ndarray:
    """Returns what a page shows of a file."""
    return np.asarray(picture.read(data).on_white())


def _measured(
    look: _Look, folder: Path, name: str, record: Record | None, matched: str
) -> Left | str | None:
    """Returns what a file holds, or why that is not known; None to look for what it shows."""
    if record is None:
        return None
    try:
        found, published = _taken_back(folder, name), look.published(record)
        place = registration.locate(found, published)
        if place.likeness < _ALIKE:
            if matched == "name":
                return None
            return f"does not show {record['name']} (correlation {place.likeness:.2f})"
        return _left(look, name, found, record, published, place, matched)
    except UnreadableError as error:
        return str(error)


def _recognised(
    look: _Look, folder: Path, name: str, signatures: Sequence[np.ndarray | None]
) -> Left | str:
    """Returns what a file holds of the picture that it is found to show."""
    try:
        found = _taken_back(folder, name)
        own = _row(registration.luminance(found), None)
        likeness = [-1.0 if rows is None else float((rows @ own).max()) for rows in signatures]
        best: tuple[Place, Record, np.ndarray] | None = None
        for index in np.argsort(likeness)[::-1][:_CANDIDATES]:
            if signatures[index] is None:
                continue
            published = look.published(look.records[index])
            place = registration.locate(found, published)
            if best is None or place.likeness > best[0].likeness:
                best = place, look.records[index], published
        if best is None or best[0].likeness < _ALIKE:
            return "shows none of the published pictures"
        place, record, published = best
        return _left(look, name, found, record, published, place, "picture")
    except UnreadableError as error:
        return str(error)


def _taken_back(folder: Path, name: str) -> np.ndarray:
    try:
        return _shown(decode.read_file(folder / name)[0])
    except (RefusedError, OSError) as error:
        raise UnreadableError(str(error)) from error


def _left(
    look: _Look,
    name: str,
    found: np.ndarray,
    record: Record,
    published: np.ndarray,
    place: Place,
    matched: str,
) -> Left:
    height, width, _ = published.shape
    left, top, right, bottom = box = place.box((width, height))
    scale = (found.shape[1] / (right - left), found.shape[0] / (bottom - top))
    size = tuple(
        min(side, max(1, round(edge)))
        for side, edge in zip(found.shape[1::-1], (right - left, bottom - top), strict=True)
    )
    clean = look.clean(record, published)

    def cut(whole: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BICUBIC, box))

    small = np.asarray(Image.fromarray(found).resize(size, Image.Resampling.BICUBIC))
    piece = (slice(int(top), math.ceil(bottom)), slice(int(left), math.ceil(right)))
    try:
        share = cue.share_of_resized(
            clean[piece], published[piece], (cut(clean), cut(published), small)
        )
    except ValueError as error:
        raise UnreadableError(f"{record['output']} holds no cue: {error}") from error
    return Left(
        name,
        record["name"],
        matched,
        found.shape[1],
        found.shape[0],
        round((scale[0] * scale[1]) ** 0.5, 4),
        round((right - left) * (bottom - top) / (width * height), 4),
        round(place.likeness, 4),
        round(share, 4),
    )
