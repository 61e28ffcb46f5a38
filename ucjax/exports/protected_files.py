"""The protected files of a finished folder, checked against the manifest while they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ucjax.data.images import Progress
from ucjax.errors import UserError
from ucjax.files import manifest as protected
from ucjax.runtime import disk

# Of the pictures in one file of an export: what the Hugging Face Hub splits at.
SHARD_BYTES = 500_000_000


class Picture(NamedTuple):
    """One protected file."""

    output: str  # relative to `images/`, posix; need not be valid Unicode
    sha256: str
    label: int  # -1 where unknown
    size: int  # bytes

    @property
    def name(self) -> str:
        """The output as valid Unicode."""
        return printable(self.output)

    @property
    def suffix(self) -> str:
        """The extension in lower case, such as ".png"."""
        return PurePosixPath(self.output).suffix.lower()


Contents = Iterator[tuple[Picture, bytes]]


@dataclass(frozen=True)
class ProtectedFiles:
    """All pictures in the manifest's order."""

    folder: Path  # `images/`
    pictures: tuple[Picture, ...]
    class_names: tuple[str, ...]  # empty: no picture has a label

    @property
    def size(self) -> int:
        """Bytes of all pictures."""
        return sum(picture.size for picture in self.pictures)

    def contents(self, bar: Progress | None = None) -> Contents:
        """Yields every picture with its bytes, one at a time.

        Raises:
          UserError: a file cannot be read, or is not the one that was written.
        """
        for done, picture in enumerate(self.pictures, start=1):
            yield picture, self._read(picture)
            if bar:
                bar.update(done)
        if bar:
            bar.close(len(self.pictures))

    def shards(self) -> list[int]:
        """Returns how many pictures each file of an export gets, at most `SHARD_BYTES` or one."""
        counts, filled = [0], 0
        for picture in self.pictures:
            if counts[-1] and filled + picture.size > SHARD_BYTES:
                counts.append(0)
                filled = 0
            counts[-1] += 1
            filled += picture.size
        return counts

    def _read(self, picture: Picture) -> bytes:
        path = self.folder / picture.output
        try:
            data = disk.read_regular(path, self.folder)
        except OSError as error:
            raise _unreadable(path, error) from error
        if (found := hashlib.sha256(data).hexdigest()) != picture.sha256:
            raise UserError(
                f"{printable(str(path))} has changed since it was written (SHA-256 {found[:12]}…, "
                f"{picture.sha256[:12]}… in the manifest): restore it, or delete the folder and "
                "protect again"
            )
        return data


def load(folder: Path) -> ProtectedFiles:
    """Lists a finished folder, all of whose files must be there.

    Raises:
      UserError: the folder is missing or not finished, a file is missing, or the manifest is
        damaged.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give the one that ucjax protect wrote")
    summary = protected.load(folder)
    records = protected.read_manifest(folder)
    if len(records) != summary.count:
        raise _damaged(folder, f"{len(records)} of {summary.count} images")
    class_names = tuple(printable(name) for name in summary.class_names)
    images = folder / protected.IMAGES
    labels: dict[str | None, int] = {x: i for i, x in enumerate(summary.class_names)}
    pictures = tuple(_picture(record, images, labels) for record in records)
    labelled = any(picture.label >= 0 for picture in pictures)
    return ProtectedFiles(images, pictures, class_names if labelled else ())


def _picture(record: protected.Record, images: Path, labels: dict[str | None, int]) -> Picture:
    output, known = record["output"], record.get("class")
    if known is not None and known not in labels:
        raise _damaged(images.parent, f"class {known!r}, which is not among the {len(labels)}")
    path = images / output
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    return Picture(output, record["output_sha256"], labels.get(known, -1), size)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot read {printable(str(path))}: {error.strerror}; restore it, or delete the folder "
        "and protect again"
    )


def _damaged(folder: Path, what: str) -> UserError:
    path = folder / protected.MANIFEST
    return UserError(f"{path} is damaged ({what}): delete {folder} and protect again")


def printable(text: str) -> str:
    """Returns valid Unicode, which names of files need not be and every format insists on."""
    return text.encode("utf-8", "backslashreplace").decode()
