"""What a run says while it runs: a JSONL file and how far it is, both from process 0."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

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
    """How far a stage is: tqdm's bar on a terminal and in a notebook, lines elsewhere.

    A line is `label 120/480 · loss 0.0123 · 350 images/s · 0:12 left, 3:40 with what follows`. The
    first is there at once, since what follows may have to be compiled, and then one every five
    seconds, later every twenty.
    """

    def __init__(
        self, label: str, total: int, *, unit: str = "images", done: int = 0,
        stream: TextIO | None = None, outlook: Outlook | None = None, shown: bool = True,
    ):  # fmt: skip
        """Starts the clock.

        Args:
          label: of the stage.
          total: `unit`s of the whole stage.
          unit: what is counted.
          done: `unit`s that an earlier run did.
          stream: where to, None for the standard output.
          outlook: of the job that the stage is one of.
          shown: False shows only how the stage ended.
        """
        self.total = total
        self._label, self._unit = label, unit
        self._outlook, self._shown = outlook, shown and parallel.is_main()
        self._stream = stream or sys.stdout
        self._interactive = self._stream.isatty() or (stream is None and "ipykernel" in sys.modules)
        self._first, self._start = done, time.monotonic()
        self._paced: tuple[int, float] | None = None
        self._last = self._start
        self._bar = _bar(label, total, done, self._stream) if self._drawn() else None
        if self._shown and self._bar is None:
            self._print(f"{label} {min(done, total)}/{total} · starting")

    def update(self, done: int, **fields: float) -> None:
        """Shows that `done` units are finished, with further values such as the loss."""
        now, done = time.monotonic(), min(done, self.total)
        late = 0.2 if self._interactive else min(20.0, max(5.0, (now - self._start) / 20))
        if self._shown and done < self.total and now - self._last >= late:  # the end is close's
            self._last = now
            parts = self._parts(done, now, fields)
            if self._bar is None:
                self._print(" · ".join([f"{self._label} {done}/{self.total}", *parts]))
            else:
                self._draw(done, parts)
        if self._paced is None and done > self._first:
            self._paced = done, now

    def close(self, done: int, **fields: float) -> None:
        """Shows the last state and ends the line."""
        now, done = time.monotonic(), min(done, self.total)
        parts = self._parts(done, now, fields)
        if self._bar is not None:
            self._draw(done, parts)
            self._bar.close()
        elif parallel.is_main():
            self._print(" · ".join([f"{self._label} {done}/{self.total}", *parts]))
        if self._outlook and done > self._first:
            self._outlook.finish(self._label, now - self._start, self._share())

    def _drawn(self) -> bool:
        return self._shown and self._interactive

    def _share(self) -> float:
        return (self.total - self._first) / max(1, self.total)

    def _parts(self, done: int, now: float, fields: dict[str, float]) -> list[str]:
        """Returns what follows the count: values, pace and time."""
        parts = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in fields.items()]
        since, begin = self._first, self._start
        if done < self.total:
            if self._paced is None or done <= self._paced[0]:
                return [*parts, "? left"]
            # What came before the first update was mostly compiled, and tells nothing of the pace.
            since, begin = self._paced
        rate = (done - since) / max(now - begin, 1e-9)
        parts.append(f"{rate:.{0 if rate >= 100 else 2}f} {self._unit}/s")
        if done >= self.total:
            return [*parts, _clock(now - self._start)]
        left, later = (self.total - done) / rate, 0.0
        if self._outlook:
            later = self._outlook.later(self._label, now - self._start + left, self._share())
        follows = f", {_clock(left + later)} with what follows" if later > 0 else ""
        return [*parts, f"{_clock(left)} left{follows}"]

    def _draw(self, done: int, parts: list[str]) -> None:
        assert self._bar is not None
        self._bar.n = done
        self._bar.set_postfix_str(" · ".join(parts), refresh=False)
        self._bar.refresh()

    def _print(self, line: str) -> None:
        if self._interactive:
            tqdm.write(line, file=self._stream)  # above the bars that are drawn
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def _bar(label: str, total: int, done: int, stream: TextIO) -> tqdm:
    widgets = "ipykernel" in sys.modules and importlib.util.find_spec("ipywidgets")
    kind = importlib.import_module("tqdm.notebook" if widgets else "tqdm").tqdm
    return kind(
        desc=label, total=total, initial=min(done, total), file=stream, dynamic_ncols=True,
        bar_format="{desc} {n_fmt}/{total_fmt} |{bar}|{postfix}",
    )  # fmt: skip


def _clock(seconds: float) -> str:
    if seconds != seconds:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
