"""Writes a folder of pictures in threads, so that a run killed at any moment can be continued.

A finished picture is renamed into place and then recorded in a journal. The next run believes a
record only if source, noise and file still have the hashes it states, so that both runs together
leave the bytes that one undisturbed run would.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ucjax.data.decode import StretchedError, without_warnings
from ucjax.data.images import Progress
from ucjax.errors import UserError
from ucjax.files import picture
from ucjax.files.fidelity import SEEN, Fidelity, compare
from ucjax.files.manifest import (
    IMAGES,
    MANIFEST,
    SUMMARY,
    Failure,
    ProtectedSet,
    Record,
    load,
    output_names,
    read_manifest,
    read_summary,
    summarize,
    summary_json,
)
from ucjax.files.picture import SUFFIXES, Encoding, Picture, UnreadableError

# What a killed run leaves beside the finished pictures: its job, their records, temporary files.
_UNFINISHED, _JOB, _JOURNAL = ".unfinished", "job.json", "records.jsonl"


class Source(NamedTuple):
    """A clean picture: the hash and number of its bytes, and what decodes it when called."""

    sha256: str
    size: int
    picture: Callable[[], Picture]


class Noised(NamedTuple):
    """A picture's pixels with noise, uint8 `[h, w, 3]`, and which noise it was."""

    pixels: np.ndarray
    cluster: int | None
    noise_sha256: str


@dataclass(frozen=True)
class Task:
    """What is written where. The functions take a picture's index and are called from threads."""

    names: Sequence[str]
    path: Callable[[int], Path] | None  # of the source; None: not a file
    labels: Sequence[int]
    class_names: tuple[str, ...]
    read: Callable[[int], Source]
    add: Callable[[int, Picture], Noised]
    job: Record  # what decides the content of the folder
    encoding: Encoding
    epsilon_255: int
    norm: str
    folder: Path
    noise_sha256: Callable[[int], str] | None = None  # None: the job decides the noise
    keep_going: bool = False  # pictures that cannot be protected are counted, else they raise


def run(
    task: Task, label: str, threads: int | None, progress: Callable[[str, int], Progress] | None
) -> ProtectedSet:
    """Writes the task's files, its manifest and last its summary, or what is missing of them.

    Raises:
      UserError: the folder is another task's, or cannot be written.
      ValueError: noise of a wrong shape, or a written file over the budget.
    """
    if not len(task.names):
        raise UserError(f"{label}: there are no images to write to {task.folder}")
    finished, unfinished = _claim(task.folder, task.job), task.folder / _UNFINISHED
    earlier = {r["name"]: r for r in read_manifest(task.folder)} if finished else {}
    settled = {name for i, name in enumerate(task.names) if _settled(task, i, earlier.get(name))}
    if len(settled) < len(task.names):
        unfinished.mkdir(exist_ok=True)
        earlier |= _read_journal(unfinished / _JOURNAL)
        bar = progress(label, len(task.names)) if progress else None
        threads = threads or os.cpu_count() or 1
        with without_warnings():
            written, failures = _write_images(task, earlier, settled, threads, bar)
        # Pictures that left the source meanwhile have their protected copies still.
        kept = {name: record for name, record in earlier.items() if name not in {*task.names}}
        _finish(task, [*kept.values(), *written], failures)
    shutil.rmtree(unfinished, ignore_errors=True)
    return load(task.folder)


def _settled(task: Task, index: int, record: Record | None) -> bool:
    """Whether a finished record needs no second look: nothing was touched since, by the clock."""
    if record is None:
        return False
    if task.path is None:
        return True  # the job says which pictures they are
    try:
        source = task.path(index).stat()
        output = (task.folder / IMAGES / record["output"]).stat()
        finished = (task.folder / SUMMARY).stat().st_mtime_ns
    except OSError:
        return False
    found = (source.st_size, output.st_size)
    recorded = (record["source_bytes"], record["output_bytes"])
    return found == recorded and max(source.st_mtime_ns, output.st_mtime_ns) <= finished


def _finish(task: Task, records: list[Record], failures: list[Failure]) -> None:
    manifest = "".join(json.dumps(record) + "\n" for record in records)
    summary = summarize(task.folder, records, task.class_names, task.epsilon_255, failures)
    unfinished = task.folder / _UNFINISHED
    _write(task.folder / MANIFEST, manifest.encode(), unfinished / MANIFEST)
    _write(task.folder / SUMMARY, summary_json(summary, task.job), unfinished / SUMMARY)


def _claim(folder: Path, job: Record) -> bool:
    """Whether the job was finished before; if it is new, marks the folder as this job's.

    Raises:
      UserError: the folder is another job's.
    """
    summary, mark = read_summary(folder), folder / _UNFINISHED / _JOB
    if summary is None and not mark.exists():
        _write(mark, json.dumps(job).encode(), mark.with_suffix(".tmp"))
        return False
    claimed = json.loads(mark.read_bytes()) if summary is None else summary.get("job", {})
    for key, value in job.items():
        if claimed.get(key) != value:
            raise UserError(
                f"{folder} holds images with {key} = {claimed.get(key)!r}, now it is {value!r}: "
                "delete that folder, or use another"
            )
    return summary is not None


def _write_images(
    task: Task, earlier: dict[str, Record], settled: set[str], threads: int, bar: Progress | None
) -> tuple[list[Record], list[Failure]]:
    """Writes what is missing; returns the records in the order of the pictures, and failures."""
    records: list[Record] = []
    failures: list[Failure] = []
    with open(task.folder / _UNFINISHED / _JOURNAL, "a") as journal:
        results = _records(task, earlier, settled, threads)
        for done, (name, result) in enumerate(zip(task.names, results, strict=True), start=1):
            if isinstance(result, str):
                failures.append((name, result))
            else:
                records.append(result)
                if result is not earlier.get(name):
                    journal.write(json.dumps(result) + "\n")
                    journal.flush()
            if bar:
                bar.update(done)
    if bar:
        bar.close(len(task.names))
    return records, failures


def _read_journal(path: Path) -> dict[str, Record]:
    """Returns the records of a killed run by name, without half-written ones."""
    records = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
            records[record["name"]] = record
        except ValueError:
            continue
    return records


def _records(
    task: Task, earlier: dict[str, Record], settled: set[str], threads: int
) -> Iterator[Record | str]:
    """Yields every picture's record, or why there is none, in order, a few ahead in threads."""
    known = {name: record["output"] for name, record in earlier.items()}
    outputs = output_names(task.names, SUFFIXES[task.encoding.format], known)
    waiting: collections.deque[Future[Record | str]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        for index, name in enumerate(task.names):
            if name in settled:
                future: Future[Record | str] = Future()
                future.set_result(earlier[name])
            else:
                future = pool.submit(_make, task, index, outputs[name], earlier.get(name))
            waiting.append(future)
            if len(waiting) == 4 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _make(task: Task, index: int, output: str, earlier: Record | None) -> Record | str:
    """Writes one picture, unless the earlier record proves that its file is there.

    Returns the reason instead where a picture cannot be protected and the task may go on.
    """
    try:
        return _made(task, index, output, earlier)
    except (UnreadableError, StretchedError) as error:
        if not task.keep_going:
            name = task.names[index]
            raise UserError(f"cannot protect {name}: {error}; remove it and run again") from error
        return str(error)


def _made(task: Task, index: int, output: str, earlier: Record | None) -> Record:
    source, path = task.read(index), task.folder / IMAGES / output
    identity = {
        "name": task.names[index],
        "output": output,
        "source_sha256": source.sha256,
        "source_bytes": source.size,
    }
    if task.noise_sha256:
        identity["noise_sha256"] = task.noise_sha256(index)
    if earlier and identity.items() <= earlier.items() and _holds(path, earlier["output_sha256"]):
        return earlier
    clean = source.picture()
    noised = task.add(index, clean)
    encoded = picture.write(dataclasses.replace(clean, pixels=noised.pixels), task.encoding)
    _write(path, encoded, task.folder / _UNFINISHED / str(index))
    written = path.read_bytes()
    measured = compare(clean.pixels, picture.read(written).pixels)
    if task.encoding.format != "jpeg":  # which nobody can hold to a budget: it is measured
        _check_budget(measured, task.epsilon_255, task.norm, path)
    return {
        **identity,
        "noise_sha256": noised.noise_sha256,
        "output_sha256": sha256(written),
        "output_bytes": len(written),
        "label": int(task.labels[index]),
        "cluster": noised.cluster,
        "max_delta_255": measured.max_delta_255,
        "mean_abs_delta_255": round(measured.mean_abs_delta_255, 4),
        "rms_delta_255": round(measured.rms_delta_255, 4),
        "psnr": round(measured.psnr, 3) if math.isfinite(measured.psnr) else None,
        "ssim": round(measured.ssim, 5),
        **{key: round(getattr(measured, key), 5) for key in SEEN},
    }


def _holds(path: Path, digest: str) -> bool:
    return path.exists() and sha256(path.read_bytes()) == digest


def _check_budget(measured: Fidelity, epsilon_255: int, norm: str, path: Path) -> None:
    # Rounding adds at most half a level to a root mean square, and nothing to a whole maximum.
    used, allowed = {
        "linf": (measured.max_delta_255, epsilon_255),
        "rms": (measured.rms_delta_255, epsilon_255 + 0.5),
    }[norm]
    if used > allowed:
        raise ValueError(
            f"{path} differs from its source by {used:g} levels ({norm}), more than {allowed}: "
            "the noise breaks its budget"
        )


def _write(path: Path, data: bytes, temporary: Path) -> None:
    # The temporary names are no part of the result, and the next run of the task reuses them.
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ):
            raise UnreadableError(f"cannot write {path.name}: {error.strerror}") from error
        raise UserError(
            f"cannot write {path}: {error.strerror}; see to it, then run again to go on"
        ) from error


def sha256(data: bytes | memoryview) -> str:
    """Returns the hex SHA-256 of bytes: a file's, or those of a contiguous array's `data`."""
    return hashlib.sha256(data).hexdigest()
