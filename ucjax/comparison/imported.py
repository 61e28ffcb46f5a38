"""Accuracies that were measured elsewhere, such as by a training service, as cells of a table.

They come as CSV with the columns `protection` (a row of the table, by its label), `victim` (any
name that is no model of ours) and `accuracy` (a share of 1, on the clean test images), and if
wanted `seed`, `noise_seed` and `test_images` (their number, else all).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from pathlib import Path

import numpy as np

from ucjax import names
from ucjax.comparison.table import Column, Entry, Table
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.victims.table import MODELS
from ucjax.victims.training import VictimResult

_NEEDED, _OPTIONAL = ("protection", "victim", "accuracy"), ("seed", "noise_seed", "test_images")
_MOST_BYTES = 10**7
_NAME = re.compile(r"[A-Za-z_][\w.-]*")


def add(table: Table, path: Path, test: ImageSet) -> Table:
    """Returns the table with the columns and cells of a file, marked as imported.

    Args:
      table: finished.
      path: of the CSV file.
      test: the clean test images, with the classes that guessing is measured by.

    Raises:
      UserError: the file cannot be read, or a line of it is wrong; naming file, line and cure.
    """
    if not len(test) or (test.labels < 0).any():
        raise UserError(f"{path}: accuracies need clean test images with a class, as in this run's")
    counts = np.bincount(test.labels, minlength=len(test.class_names))
    chance = float(counts.max() / counts.sum())
    columns: dict[str, Column] = {}
    entries: dict[tuple[str, str], dict[tuple[int, int], VictimResult]] = {}
    labels = [line.label for line in table.lines]
    for number, line in read(path):
        where = f"{path}, line {number}"
        label = names.known(line["protection"], labels, f"protection in {where}")
        column = _column(line, where, len(test), test.class_names, chance)
        if columns.setdefault(column.name, column) != column:
            raise UserError(f"{where}: {column.name} has another number of test_images before")
        seeds = (_whole(line, "noise_seed", 0, where), _whole(line, "seed", 0, where))
        victims = entries.setdefault((label, column.name), {})
        if seeds in victims:
            raise UserError(
                f"{where}: {label}, {column.name} with these seeds is given twice: number them in "
                "a column seed"
            )
        accuracy = _share(line["accuracy"], where)
        victims[seeds] = VictimResult(accuracy, accuracy, ())
    if not entries:
        raise UserError(f"{path} has no line below its header")
    return dataclasses.replace(
        table,
        columns=(*table.columns, *columns.values()),
        entries=(*table.entries, *(Entry(*key, found) for key, found in entries.items())),
    )


def read(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Returns the lines of a file by their columns, with their numbers; empty ones are left out.

    Raises:
      UserError: it cannot be read, or has other columns.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path} has more than {_MOST_BYTES:,} bytes: it is no list of results")
        text = path.read_text(encoding="utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    header = [name.strip() for name in rows[0]] if rows else []
    missing = [name for name in _NEEDED if name not in header]
    strange = [name for name in header if name not in (*_NEEDED, *_OPTIONAL)]
    if missing or strange or len(set(header)) < len(header):
        raise UserError(
            f"{path} has the columns {', '.join(header) or 'none'}: give {', '.join(_NEEDED)} and, "
            f"if wanted, {', '.join(_OPTIONAL)}"
        )
    found = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) not in (0, len(header)):
            raise UserError(f"{path}, line {number} has {len(row)} values, not {len(header)}")
        if row:
            found.append((number, dict(zip(header, map(str.strip, row), strict=True))))
    return found


def _column(
    line: dict[str, str], where: str, count: int, classes: tuple[str, ...], chance: float
) -> Column:
    name = line["victim"]
    if not _NAME.fullmatch(name) or name in MODELS:
        what = "is a model of ucjax" if name in MODELS else "is no plain word"
        raise UserError(f"{where}: victim {name!r} {what}: name the service, such as azure")
    tested = _whole(line, "test_images", count, where)
    if not 1 <= tested <= count:
        raise UserError(f"{where}: test_images is {tested}, of {count} clean test images")
    return Column(name, classes, tested, chance, imported=True)


def _whole(line: dict[str, str], key: str, default: int, where: str) -> int:
    text = line.get(key, "")
    if not text:
        return default
    value = int(names.typed(text, 0, f"{key} in {where}"))
    if not 0 <= value < 2**31:
        raise UserError(f"{where}: {key} is {value}: give 0 to {2**31 - 1}")
    return value


def _share(text: str, where: str) -> float:
    value = float(names.typed(text, 0.0, f"accuracy in {where}"))
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise UserError(f"{where}: accuracy is {text}: give a share of 1, such as 0.731")
    return value
