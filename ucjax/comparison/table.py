"""A filled table, and what it says in numbers: means, spreads, drops and their intervals."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ucjax.comparison import cells
from ucjax.comparison.availability import Availability
from ucjax.comparison.rows import Facts
from ucjax.errors import UserError
from ucjax.runtime import checkpoint
from ucjax.victims.training import VictimResult

FILE = "table.json"
Measure = Literal["last", "peak"]
_Z = 1.96  # standard deviations of a 95 % interval
CSV = (
    "protection", "victim", "seeds", "last_mean", "last_std", "peak_mean", "peak_std", "test_low",
    "test_high", "drop", "drop_low", "drop_high", "chance", "test_images", "train_images",
    "psnr_median", "ssim_median", "max_delta_255", "mean_abs_delta_255", "epsilon_255", "labels",
    "seconds", "image_passes", "availability", "imported",
)  # fmt: skip


@dataclass(frozen=True)
class Line(Facts):
    """What is known of a row before any victim, over its noise seeds.

    Attributes:
      label: what it is called in tables.
      row: as asked for.
      availability: how early its noise is seen; None where that was not measured.
    """

    label: str
    row: str
    availability: Availability | None = None


@dataclass(frozen=True)
class Column:
    """What is known of a column: the victim, its labels and its test.

    Attributes:
      name: as asked for.
      classes: names of the labels it gives.
      test_count: clean test images.
      chance: share of the commonest class among them, which guessing reaches.
      imported: whether its accuracies were measured elsewhere (see `imported.add`).
    """

    name: str
    classes: tuple[str, ...]
    test_count: int
    chance: float
    imported: bool = False

    @property
    def title(self) -> str:
        """What heads it in tables for people."""
        return f"{self.name} (imported)" if self.imported else self.name


@dataclass(frozen=True)
class Entry:
    """The victims of one row and column, by noise seed and victim seed."""

    label: str
    column: str
    results: dict[tuple[int, int], VictimResult]

    def values(self, measure: Measure) -> list[float]:
        """Returns the accuracies on clean test images, in [0, 1]."""
        return [getattr(result, measure) for result in self.results.values()]

    def mean(self, measure: Measure = "last") -> float:
        """Returns the mean over the seeds."""
        return statistics.fmean(self.values(measure))

    def std(self, measure: Measure = "last") -> float:
        """Returns the sample standard deviation over the seeds, 0 for one."""
        values = self.values(measure)
        return statistics.stdev(values) if len(values) > 1 else 0.0

    def train_accuracy(self) -> float | None:
        """Returns the mean accuracy on the training files in the last epoch; None if imported."""
        known = [r.curve[-1].train_accuracy for r in self.results.values() if r.curve]
        return statistics.fmean(known) if known else None


@dataclass(frozen=True)
class Table:
    """Rows × columns × seeds, and where they come from."""

    config: dict[str, Any]
    environment: dict[str, Any]
    train_count: int
    lines: tuple[Line, ...]
    columns: tuple[Column, ...]
    entries: tuple[Entry, ...]

    def entry(self, label: str, column: str) -> Entry | None:
        """Returns a cell's victims, None where none was trained."""
        for entry in self.entries:
            if (entry.label, entry.column) == (label, column):
                return entry
        return None

    def line(self, label: str) -> Line:
        """Returns what is known of a row."""
        return next(line for line in self.lines if line.label == label)

    def column(self, name: str) -> Column:
        """Returns what is known of a column."""
        return next(column for column in self.columns if column.name == name)

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain JSON; an infinite PSNR becomes null."""
        return {
            "config": self.config,
            "environment": self.environment,
            "train_count": self.train_count,
            "rows": [
                {**asdict(line), "psnr_median": finite(line.psnr_median)} for line in self.lines
            ],
            "columns": [asdict(column) for column in self.columns],
            "entries": [
                {
                    "label": entry.label,
                    "column": entry.column,
                    "victims": [
                        {"noise_seed": n, "seed": s, **cells.result_json(result)}
                        for (n, s), result in entry.results.items()
                    ],
                }
                for entry in self.entries
            ],
        }

    def csv(self) -> str:
        """Returns one line per row and column, accuracies as shares of 1."""
        text = io.StringIO()
        writer = csv.DictWriter(text, CSV, lineterminator="\n")
        writer.writeheader()
        for entry in self.entries:
            writer.writerow(self._csv_line(entry))
        return text.getvalue()

    def _csv_line(self, entry: Entry) -> dict[str, Any]:
        line, column = self.line(entry.label), self.column(entry.column)
        low, high = binomial(entry.mean(), column.test_count)
        fell = drop(self, entry)
        values: dict[str, Any] = {
            "protection": entry.label,
            "victim": entry.column,
            "seeds": len(entry.results),
            "last_mean": entry.mean("last"),
            "last_std": entry.std("last"),
            "peak_mean": entry.mean("peak"),
            "peak_std": entry.std("peak"),
            "test_low": low,
            "test_high": high,
            "drop": fell[0] if fell else "",
            "drop_low": fell[1] if fell else "",
            "drop_high": fell[2] if fell else "",
            "chance": column.chance,
            "test_images": column.test_count,
            "imported": int(column.imported),
            "train_images": self.train_count,
            "epsilon_255": "" if line.epsilon_255 is None else line.epsilon_255,
            "availability": line.availability.gain if line.availability else "",
            "seconds": "" if line.seconds is None else round(line.seconds, 1),
            **{
                key: getattr(line, key)
                for key in (
                    "psnr_median", "ssim_median", "max_delta_255", "mean_abs_delta_255", "labels",
                    "image_passes",
                )
            },
        }  # fmt: skip
        return {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}


def binomial(accuracy: float, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of an accuracy measured on `count` images (Wilson 1927)."""
    z2 = _Z * _Z
    center = (accuracy + z2 / (2 * count)) / (1 + z2 / count)
    spread = accuracy * (1 - accuracy) / count + z2 / (4 * count * count)
    half = _Z / (1 + z2 / count) * math.sqrt(spread)
    return max(0.0, center - half), min(1.0, center + half)


def clean_of(table: Table, column: str) -> Entry | None:
    """Returns the column's clean victims."""
    for label in ("clean", "clean_original"):
        if (found := table.entry(label, column)) is not None:
            return found
    return None


def drop(table: Table, entry: Entry) -> tuple[float, float, float] | None:
    """Returns by how much a row's last accuracy lies below the clean one, with its 95 % interval.

    The interval adds the spread over the seeds of both and the error of the test set.
    """
    clean = clean_of(table, entry.column)
    if clean is None:
        return None
    count = table.column(entry.column).test_count
    variance = 0.0
    for one in (clean, entry):
        variance += one.std() ** 2 / len(one.results) + one.mean() * (1 - one.mean()) / count
    fell, half = clean.mean() - entry.mean(), _Z * math.sqrt(variance)
    return fell, fell - half, fell + half


def finite(value: float) -> float | None:
    """Returns a number as JSON knows it: None for infinity, the PSNR of unchanged files."""
    return value if math.isfinite(value) else None


def parse(found: Any) -> Table:
    """Reads what `Table.to_json` gave; whoever reads a file says where it lies.

    Raises:
      KeyError, TypeError, ValueError: it is something else.
    """
    lines = []
    for row in found["rows"]:
        psnr = math.inf if row["psnr_median"] is None else float(row["psnr_median"])
        seen = row["availability"]
        if seen is not None:
            told = {key: tuple(float(x) for x in seen[key]) for key in ("row", "clean")}
            seen = Availability(**told, chance=float(seen["chance"]))
        lines.append(Line(**{**row, "psnr_median": psnr, "availability": seen}))
    columns = [Column(**{**c, "classes": tuple(c["classes"])}) for c in found["columns"]]
    elsewhere = {column.name for column in columns if column.imported is True}
    entries = []
    for entry in found["entries"]:
        results = {
            (int(v["noise_seed"]), int(v["seed"])): cells.parse_result(
                v, trained=entry["column"] not in elsewhere
            )
            for v in entry["victims"]
        }
        entries.append(Entry(str(entry["label"]), str(entry["column"]), results))
    known = {(line.label, column.name) for line in lines for column in columns}
    if not {(entry.label, entry.column) for entry in entries} <= known:
        raise ValueError("an entry of no row or no column")
    return Table(
        dict(found["config"]),
        dict(found["environment"]),
        int(found["train_count"]),
        tuple(lines),
        tuple(columns),
        tuple(entries),
    )


def load(folder: Path) -> Table:
    """Reads the table of a run's folder, trusting nothing in it.

    Raises:
      UserError: it holds none, or a damaged one.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no finished table ({FILE}): give the folder of a run")
    try:
        return parse(checkpoint.read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is no table ({reason}): run the comparison again") from error


def leaderboard(tables: Sequence[Table]) -> list[tuple[Table, Entry]]:
    """Returns the entries of several tables, the largest drop first; those without one last."""
    found = [(table, entry) for table in tables for entry in table.entries]

    def rank(pair: tuple[Table, Entry]) -> float:
        fell = drop(*pair)
        return math.inf if fell is None else -fell[0]

    return sorted(found, key=rank)
