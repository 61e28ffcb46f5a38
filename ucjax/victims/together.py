"""Which victims are trained at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, NamedTuple

from jax.sharding import Mesh

from ucjax.runtime.platforms import on_cpu
from ucjax.runtime.progress import Outlook, Progress
from ucjax.victims.contract import VictimSpec

_PAPER_NUMBERS = 512 * 224**2 * 64
_MOST_IN_A_STACK = 8

# Receives the maker of the victim's progress line, as `victims.train.train` takes it.
Training = Callable[[Callable[..., Progress]], None]


def at_once(mesh: Mesh) -> int:
    """Returns how many victims are trained at the same time on these devices.

    A step is hundreds of operations, between which a CPU's cores wait for each other; two victims
    side by side take three quarters of the time they take in turn. Each has the programs and the
    numbers it would have alone. Several devices share the work of one victim instead.
    """
    return 2 if on_cpu() and mesh.size == 1 else 1


def stacks(cells: Mapping[str, tuple[VictimSpec, int, int]], mesh: Mesh) -> list[list[str]]:
    """Groups victims that `training.train_stack` is to train as one program.

    On a CPU none are: there `run` has two side by side, which is faster (benchmarks/together.py).
    Elsewhere victims of equal shapes share a program as long as they need no more memory than the
    paper's victim alone, by the numbers in their first stage, and are at most eight.

    Args:
      cells: each victim's spec and its numbers of training images and classes, by label.
      mesh: the devices.
    """
    groups: list[list[str]] = []
    for label, shape in cells.items():
        spec = shape[0]
        numbers = spec.batch_size * spec.crop**2 * spec.width
        size = 1 if on_cpu() else max(1, min(_MOST_IN_A_STACK, _PAPER_NUMBERS // numbers))
        for group in groups:
            if cells[group[0]] == shape and len(group) < size:
                group.append(label)
                break
        else:
            groups.append([label])
    return groups


def run(trainings: Mapping[str, Training], mesh: Mesh) -> None:
    """Calls all trainings, by label and in their order, `at_once` of them at a time.

    Only the first of those shows how far it is; all show how they ended. When one fails, or the
    user interrupts, the others stop at their next step, and the first error is raised.
    """
    labels, size = list(trainings), at_once(mesh)
    groups = [labels[i : i + size] for i in range(0, len(labels), size)]
    outlook = Outlook({group[0]: float(len(group)) for group in groups})
    messages = _Messages(threading.Event(), threading.Event())
    for first, *others in groups:
        with ThreadPoolExecutor(size) as pool:
            try:
                shown = partial(_Line, messages=messages, shown=True, outlook=outlook)
                futures = [pool.submit(trainings[first], shown)]
                # Two that begin together would both compile the programs, which they share.
                while not messages.compiled.wait(0.1) and not futures[0].done():
                    pass
                hidden = partial(_Line, messages=messages, shown=False)
                futures += [pool.submit(trainings[label], hidden) for label in others]
                finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
            except BaseException:
                messages.stop.set()
                raise


class _Messages(NamedTuple):
    compiled: threading.Event
    stop: threading.Event


class _Stopped(Exception):
    """Ends a victim beside one that failed."""


class _Line(Progress):
    """A progress line that also carries messages between the threads."""

    def __init__(self, *args: Any, messages: _Messages, **options: Any):
        super().__init__(*args, **options)
        self._messages = messages

    def update(self, done: int, **fields: float) -> None:
        if self._messages.stop.is_set():
            raise _Stopped
        if fields:  # known after the first epoch
            self._messages.compiled.set()
        super().update(done, **fields)
