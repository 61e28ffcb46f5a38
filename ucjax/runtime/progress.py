"""What a run says while it runs: a JSONL file and one progress line, both from process 0."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from ucjax.runtime import parallel


class MetricsFile:
    """Appends one JSON object a line; does nothing on processes other than 0."""

    def __init__(self, path: Path):
        self._path = path

    def write(self, stage: str, step: int, **values: float | str) -> None:
        """Appends `{"stage": …, "step": …, **values}`."""
        if parallel.is_main():
            line = {"stage": stage, "step": step, **values}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a") as file:
                file.write(json.dumps(line, default=float) + "\n")


def say(message: str) -> None:
    """Prints one line from process 0."""
    if parallel.is_main():
        print(message, flush=True)


class Outlook:
    """How long the stages of a job will take that follow the present one.

    Only the ratios of the stages are known beforehand; their scale, which is the machine's speed,
    is learnt while they run.
    """

    def __init__(self, work: Mapping[str, float]):
        """Takes the stages' labels in their order, with their work in a unit of any size."""
        self._work = work
        self._done = self._seconds = 0.0

    def progress(self, label: str, total: int, *, unit: str = "images", done: int = 0) -> Progress:
        """Returns a stage's progress line, which also tells of the stages after it."""
        return Progress(label, total, unit=unit, done=done, outlook=self)

    def later(self, label: str, seconds: float, share: float) -> float:
        """Returns the seconds of all stages after one that takes `seconds` for its `share`."""
        labels = list(self._work)
        if label not in labels:
            return 0.0
        following = labels[labels.index(label) + 1 :]
        done = self._done + share * self._work[label]
        return (self._seconds + seconds) / done * sum(self._work[x] for x in following)

    def finish(self, label: str, seconds: float, share: float) -> None:
        """Learns from a stage that took `seconds` for its `share`, the rest being done before."""
        if label in self._work:
            self._done += share * self._work[label]
            self._seconds += seconds


class Progress:
    """A line `label 120/480 · loss 0.0123 · 350 images/s · 0:12 left, 3:40 with what follows`.

    Redrawn in place on a terminal; elsewhere printed every 20 seconds, so that logs stay short.
    """

    def __init__(
        self, label: str, total: int, *, unit: str = "images", done: int = 0,
        stream: TextIO | None = None, outlook: Outlook | None = None,
    ):  # fmt: skip
        """Starts the clock; `total` and `done` count `unit`s, `done` those of an earlier run."""
        self._label, self._total, self._unit = label, total, unit
        self._outlook = outlook
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._first, self._start = done, time.monotonic()
        self._last = -math.inf if self._terminal else self._start

    def update(self, done: int, **fields: float) -> None:
        """Shows that `done` units are finished, with further values such as the loss."""
        now = time.monotonic()
        interval = 0.2 if self._terminal else 20.0
        if parallel.is_main() and now - self._last >= interval:
            self._last = now
            self._show(self._line(done, now, fields), end="" if self._terminal else "\n")

    def close(self, done: int, **fields: float) -> None:
        """Shows the last state and ends the line."""
        now = time.monotonic()
        if parallel.is_main():
            self._show(self._line(done, now, fields), end="\n")
        if self._outlook and done > self._first:
            self._outlook.finish(self._label, now - self._start, self._share())

    def _share(self) -> float:
        return (self._total - self._first) / self._total

    def _line(self, done: int, now: float, fields: dict[str, float]) -> str:
        seconds = now - self._start
        rate = (done - self._first) / max(seconds, 1e-9)
        parts = [f"{self._label} {done}/{self._total}"]
        parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in fields.items()]
        parts.append(f"{rate:.{0 if rate >= 100 else 2}f} {self._unit}/s")
        if done < self._total:
            left = (self._total - done) / rate if rate > 0 else math.nan
            later = (
                self._outlook.later(self._label, seconds + left, self._share())
                if self._outlook
                else 0
            )
            follows = f", {_clock(left + later)} with what follows" if later > 0 else ""
            parts.append(f"{_clock(left)} left{follows}")
        else:
            parts.append(_clock(seconds))
        return " · ".join(parts)

    def _show(self, line: str, end: str) -> None:
        if self._terminal:
            # A line that wraps could not be redrawn in place.
            line = f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}"
        self._stream.write(line + end)
        self._stream.flush()


def _clock(seconds: float) -> str:
    if seconds != seconds:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
