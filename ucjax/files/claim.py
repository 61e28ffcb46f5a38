"""Whose folder it is: nothing that we did not write is replaced, and no two jobs share a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ucjax.errors import UserError
from ucjax.files.manifest import IMAGES, MANIFEST, SUMMARY
from ucjax.files.records import Record
from ucjax.runtime import disk

MARK = ".ucjax.json"
# What a killed run leaves beside the finished pictures: its job, their records, temporary files.
UNFINISHED, JOB = ".unfinished", "job.json"

_ID = "4f0f1c9e-7f6b-4d0b-9d6c-6a1f0a7c3b52"
_HEAD = f'{{"id": "{_ID}", "format": 1'


def claim(folder: Path, also: Sequence[str] = ()) -> None:
    """Marks a folder as ours, or finds that it is.

    Args:
      folder: created if missing.
      also: names beside those of every written folder that the caller will write.

    Raises:
      UserError: it holds something of one of these names that is not ours, or links.
      DiskError: it cannot be written to.
    """
    names = (IMAGES, MANIFEST, SUMMARY, UNFINISHED, *also)
    for name in (MARK, *names):
        if (folder / name).is_symlink():
            raise UserError(f"{folder / name} is a link: choose a folder without one")
    if is_ours(folder):
        return
    if not _is_torn(folder / MARK):
        for name in (MARK, *names):
            if (folder / name).exists():
                raise UserError(
                    f"{folder} holds {name}, which ucjax did not write: choose another folder for "
                    "the copies, or move it away"
                )
    remember(folder, "")


def is_ours(folder: Path) -> bool:
    """Whether a folder holds our mark."""
    return _read(folder).get("id") == _ID


def photos_of(folder: Path) -> str:
    """Returns the hash of the place whose pictures the folder holds copies of, "" if unknown."""
    return str(_read(folder).get("photos", ""))


def remember(folder: Path, place: str) -> None:
    """Writes the mark, with the hash of the place of the originals."""
    photos = f', "photos": "{place}"' if place else ""
    disk.write_bytes(folder / MARK, f"{_HEAD}{photos}}}\n".encode())


def hash_of(root: Path) -> str:
    """Returns the hash of a folder's place: the mark need not tell where somebody's photos are."""
    return hashlib.sha256(bytes(root.resolve())).hexdigest()


def _read(folder: Path) -> dict[str, Any]:
    try:
        mark = json.loads(disk.read_regular(folder / MARK, folder))
    except (OSError, ValueError, RecursionError):
        return {}
    return mark if isinstance(mark, dict) else {}


def _is_torn(path: Path) -> bool:
    """Whether a mark is what a power cut may leave of it."""
    try:
        return _HEAD.encode().startswith(disk.read_regular(path)[: len(_HEAD)])
    except OSError:
        return False


def same_job(folder: Path, job: Record, summary: Record | None) -> bool:
    """Whether the job was finished before; if it is new, notes it in the folder.

    Args:
      folder: ours.
      job: what decides the folder's content.
      summary: of the folder, None if there is none, or only a damaged one.

    Raises:
      UserError: the folder is another job's.
    """
    path = folder / UNFINISHED / JOB
    claimed = _noted(path) if summary is None else summary.get("job", {})
    if claimed is None:
        disk.write_bytes(path, json.dumps(job).encode())
        return False
    for key, value in json.loads(json.dumps(job)).items():
        if claimed.get(key) != value:
            raise UserError(
                f"{folder} holds images with {key} = {claimed.get(key)!r}, now it is {value!r}: "
                "delete that folder, or use another"
            )
    return summary is not None


def _noted(path: Path) -> Record | None:
    try:
        job = json.loads(disk.read_regular(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return None  # half-written before a power cut: nothing was done yet
    return job if isinstance(job, dict) else None
