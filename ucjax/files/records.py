"""The lines of a manifest, which is input like any other: nothing in them is trusted."""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ucjax.errors import UserError
from ucjax.files.fidelity import SEEN
from ucjax.files.picture import FORMATS

Record = dict[str, Any]

_HASH = re.compile(r"[0-9a-f]{64}")
_DRIVE = re.compile(r"[A-Za-z]:")


def unsafe(name: object) -> str:
    """Returns why a name must not be joined to a folder, or nothing."""
    if not isinstance(name, str) or not name:
        return "is no name"
    if "\0" in name:
        return "holds a NUL"
    if name.startswith("/") or (os.name == "nt" and "\\" in name):
        return "is no relative path"
    if _DRIVE.match(name):
        return "begins with a drive letter"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "leads out of its folder"
    try:
        os.fsencode(name)
    except UnicodeError:
        return "is no file name"
    return ""


def folded(name: str) -> str:
    """Returns a name as file systems compare it that know neither case nor composed letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def parse(data: bytes, path: Path) -> list[Record]:
    """Returns the objects of a manifest.

    Args:
      data: its content, a JSON object a line.
      path: of it, for the message.

    Raises:
      UserError: a field holds what we never write; names the line and the field.
    """
    records: list[Record] = []
    names: dict[str, int] = {}
    outputs: dict[str, int] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        where = f"{path} line {number}"
        record = _object(line, where)
        for field, (is_right, what) in _FIELDS.items():
            if field in record and not is_right(record[field]):
                raise _refused(where, field, record[field], what)
        for field in ("name", "output", "source_sha256", "output_sha256"):
            if field not in record:
                raise UserError(f"{where}: an image without {field!r}: {_CURE}")
        for field in ("name", "output"):
            if reason := unsafe(record[field]):
                raise UserError(f"{where}: {field} {record[field]!r} {reason}: {_CURE}")
        for field, value, seen in (
            ("name", record["name"], names),
            ("output", folded(record["output"]), outputs),
        ):
            if value in seen:
                raise UserError(
                    f"{where}: {field} {record[field]!r} is that of line {seen[value]}, but for "
                    f"case or the form of its letters at most: {_CURE}"
                )
            seen[value] = number
        records.append(record)
    return records


_CURE = "restore it, or delete that folder and protect again"


def _object(line: bytes, where: str) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: no JSON ({error}): {_CURE}") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: no object: {_CURE}")
    return record


def _refused(where: str, field: str, value: object, what: str) -> UserError:
    shown = repr(value)
    shown = shown if len(shown) < 80 else f"{shown[:80]}…"
    return UserError(f"{where}: {field} is {shown}, not {what}: {_CURE}")


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and bool(_HASH.fullmatch(value))


def _is_whole(low: int, high: int) -> Callable[[object], bool]:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < 1e9 and math.isfinite(value)  # type: ignore[arg-type]


def _or_null(is_right: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_right(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "name": (_is_text, "a text"),
    "output": (_is_text, "a text"),
    "source_sha256": (_is_hash, "64 hexadecimal digits"),
    "noise_sha256": (_is_hash, "64 hexadecimal digits"),
    "output_sha256": (_is_hash, "64 hexadecimal digits"),
    "class": (_or_null(_is_text), "a text or null"),
    "cluster": (_or_null(_is_whole(0, 2**31)), "a whole number or null"),
    "source_bytes": (_is_whole(0, 2**60), "a number of bytes"),
    "output_bytes": (_is_whole(0, 2**60), "a number of bytes"),
    "max_delta_255": (_is_whole(0, 255), "a whole number from 0 to 255"),
    "mean_abs_delta_255": (_is_number, "a number"),
    "rms_delta_255": (_is_number, "a number"),
    "psnr": (_or_null(_is_number), "a number or null"),
    "ssim": (_is_number, "a number"),
    "converted": (_is_text, "a text"),
    "cue": (_is_number, "a number"),
    **dict.fromkeys(SEEN, (_is_number, "a number")),
}


def job_fault(job: object) -> str:
    """Returns what a summary's `job` says that no job of ours says, or nothing."""
    if not isinstance(job, dict):
        return "job is no object"
    for key, (is_right, what) in _JOB.items():
        if key in job and not is_right(job[key]):
            return f"job.{key} is {job[key]!r}, not {what}"
    return ""


_JOB: dict[str, tuple[Callable[[object], bool], str]] = {
    "epsilon_255": (_is_whole(0, 255), "a whole number from 0 to 255"),
    "norm": (lambda value: value in ("linf", "rms"), "linf or rms"),
    "format": (lambda value: value in FORMATS, f"one of {', '.join(FORMATS)}"),
    "crop": (_is_whole(1, 2**20), "a number of pixels"),
    "short_side": (_is_whole(1, 2**20), "a number of pixels"),
    "grain": (_is_whole(1, 2**20), "a number of pixels"),
    "geometry": (lambda value: value in ("crop", "native"), "crop or native"),
    "surrogate": (_is_text, "a text"),
    "protector_sha256": (_is_hash, "64 hexadecimal digits"),
    "keep": (
        lambda v: isinstance(v, list) and all(x in ("camera", "gps") for x in v),
        "camera and gps",
    ),
}
