"""Writes a folder of pictures in threads, so that a run killed at any moment can be continued.

A finished picture is noted in a journal, synced and renamed into place. The next run believes a
record only if source, noise and file still have the hashes it states, so that both runs together
leave the bytes that one undisturbed run would. No time or size is believed.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ucjax.data.decode import RefusedError, without_warnings
from ucjax.data.images import Progress
from ucjax.data.rows import holding
from ucjax.errors import DiskError, UserError
from ucjax.files import claim, copies
from ucjax.files.claim import UNFINISHED
from ucjax.files.copies import Noised, Source
from ucjax.files.fidelity import SEEN, Fidelity
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
from ucjax.files.records import parse, unsafe
from ucjax.runtime import disk

_JOURNAL = "records.jsonl"


@dataclass(frozen=True)
class Task:
    """What is written where. The functions take a picture's index and are called from threads."""

    names: Sequence[str]
    labels: Sequence[int]
    class_names: tuple[str, ...]
    read: Callable[[int], Source]
    add: Callable[[int, Picture], Noised]
    job: Record  # what decides the content of the folder
    encoding: Encoding
    epsilon_255: int
    norm: str
    folder: Path
    # None, of all or of one: the job decides the noise.
    noise_sha256: Callable[[int], str | None] | None = None
    keep_going: bool = False  # pictures that cannot be protected are counted, else they raise
    photos: Path | None = None  # the folder that the names are relative to
    unlisted: Collection[str] = ()  # folders in it that could not be searched

    def class_of(self, index: int) -> str | None:
        """The name of a picture's class."""
        label = int(self.labels[index])
        return self.class_names[label] if label >= 0 else None


class _Journal:
    """What is written and is about to be: appended from threads, a line before its file appears."""

    def __init__(self, path: Path, ours: Collection[str]):
        # A buffer's rest would be written on a full disk once more when it is closed.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by `close`
        self._lock = threading.Lock()
        self._write(b"\n")  # after what may be half a line
        self.ours = {*ours}  # outputs that may be replaced

    def note(self, record: Record) -> None:
        with self._lock:
            self.ours.add(record["output"])
            self._write(json.dumps(record).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        while data:
            data = data[self._file.write(data) :]

    def close(self) -> None:
        self._file.close()


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
    threads = threads or os.cpu_count() or 1
    claim.claim(task.folder)
    finished = claim.same_job(task.folder, task.job, _summary(task.folder))
    lines = _lines(task.folder)
    earlier = {record["name"]: record for record in lines}
    with without_warnings(), ThreadPoolExecutor(threads) as pool:
        records = map(earlier.get, task.names)
        same = list(pool.map(lambda i, r: _same(task, i, r), range(len(task.names)), records))
    _check_photos(task, earlier, sum(same))
    settled = {name for name, is_same in zip(task.names, same, strict=True) if finished and is_same}
    gone = _gone(task, earlier)
    removed: list[str] = []
    if len(settled) < len(task.names) or gone:
        removed = _go_on(task, lines, earlier, settled, gone, label, threads, progress)
    shutil.rmtree(task.folder / UNFINISHED, ignore_errors=True)
    return dataclasses.replace(load(task.folder), removed=tuple(removed))


def _go_on(
    task: Task,
    lines: list[Record],
    earlier: dict[str, Record],
    settled: set[str],
    gone: list[Record],
    label: str,
    threads: int,
    progress: Callable[[str, int], Progress] | None,
) -> list[str]:
    """Writes what is missing and finishes the folder; returns the pictures whose copies left it."""
    unfinished = task.folder / UNFINISHED
    with disk.saying(unfinished):
        unfinished.mkdir(exist_ok=True)
        journal = _Journal(unfinished / _JOURNAL, {record["output"] for record in lines})
    bar = progress(label, len(task.names)) if progress else None
    with without_warnings(), contextlib.closing(journal):
        written, failures = _write_images(task, earlier, settled, journal, threads, bar)
    # Pictures in folders that cannot be searched today have their protected copies still.
    there = {*task.names}
    kept = [r for name, r in earlier.items() if name not in there and r not in gone]
    done = {record["name"] for record in written}
    stale = [record for record in lines if record["name"] not in done and record not in kept]
    failures += _remove(task.folder, stale, {record["output"] for record in [*kept, *written]})
    _finish(task, [*kept, *written], failures)
    return [record["name"] for record in gone]


def _summary(folder: Path) -> Record | None:
    """Returns the summary of a folder of ours; a damaged one is made again."""
    try:
        return read_summary(folder)
    except UserError:
        return None


def _lines(folder: Path) -> list[Record]:
    """Returns all that manifest and journal tell, the newest last; damaged lines tell nothing."""
    lines: list[Record] = []
    with contextlib.suppress(UserError):
        lines += read_manifest(folder)
    journal = folder / UNFINISHED / _JOURNAL
    with contextlib.suppress(OSError):
        for line in disk.read_regular(journal, folder).splitlines():
            with contextlib.suppress(UserError):
                lines += parse(line, journal) if line else []
    return lines


def _same(task: Task, index: int, record: Record | None) -> bool:
    """Whether source and copy are, byte for byte, those that a finished record states."""
    if record is None or record.get("class") != task.class_of(index):
        return False
    try:
        source = task.read(index)
    except (UnreadableError, RefusedError):
        return False
    identity = {"source_sha256": source.sha256, "source_bytes": source.size}
    return identity.items() <= record.items() and _holds(task.folder, record)


def _holds(folder: Path, record: Record) -> bool:
    images = folder / IMAGES
    try:
        return disk.sha256_regular(images / record["output"], images) == record["output_sha256"]
    except OSError:
        return False


def _check_photos(task: Task, earlier: dict[str, Record], same: int) -> None:
    """Refuses a folder that holds the copies of other pictures.

    Raises:
      UserError: it does.
    """
    if task.photos is None:
        return
    place, before = claim.hash_of(task.photos), claim.photos_of(task.folder)
    if before in ("", place):
        if not before:
            claim.remember(task.folder, place)
        return
    if 2 * same < len(earlier):
        raise UserError(
            f"{task.folder} holds the copies of {len(earlier)} pictures of another folder, of "
            f"which {task.photos} holds {same}: use another OUT, or delete that one"
        )
    claim.remember(task.folder, place)  # they were moved


def _gone(task: Task, earlier: dict[str, Record]) -> list[Record]:
    """Returns the records of pictures that are no longer there."""
    there = {*task.names}
    return [
        record
        for name, record in earlier.items()
        if name not in there and not any(name.startswith(f"{x}/") for x in task.unlisted)
    ]


def _remove(folder: Path, stale: list[Record], outputs: Collection[str]) -> list[Failure]:
    """Deletes copies whose pictures are gone or damaged, unless somebody changed them since."""
    failures = []
    for record in stale:
        path = folder / IMAGES / record["output"]
        if record["output"] in outputs or not os.path.lexists(path):
            continue
        if not _holds(folder, record):
            reason = f"{path} was changed since it was written: look at it, then delete it"
            failures.append((record["name"], reason))
            continue
        with disk.saying(path):
            path.unlink()
            for parent in path.parents:
                if parent == folder / IMAGES or any(parent.iterdir()):
                    break
                parent.rmdir()
    return failures


def _finish(task: Task, records: list[Record], failures: list[Failure]) -> None:
    manifest = "".join(json.dumps(record) + "\n" for record in records)
    summary = summarize(task.folder, records, task.class_names, task.epsilon_255, failures)
    unfinished = task.folder / UNFINISHED
    for name, data in (
        (MANIFEST, manifest.encode()),
        (SUMMARY, summary_json(summary, task.job)),
    ):
        disk.write_through(task.folder / name, data, unfinished / name)


def _write_images(
    task: Task,
    earlier: dict[str, Record],
    settled: set[str],
    journal: _Journal,
    threads: int,
    bar: Progress | None,
) -> tuple[list[Record], list[Failure]]:
    """Writes what is missing; returns the records in the order of the pictures, and failures."""
    records: list[Record] = []
    failures: list[Failure] = []
    results = _records(task, earlier, settled, journal, threads)
    for done, (name, result) in enumerate(zip(task.names, results, strict=True), start=1):
        if isinstance(result, str):
            failures.append((name, result))
        else:
            records.append(result)
        if bar:
            bar.update(done)
    if bar:
        bar.close(len(task.names))
    return records, failures


def _records(
    task: Task,
    earlier: dict[str, Record],
    settled: set[str],
    journal: _Journal,
    threads: int,
) -> Iterator[Record | str]:
    """Yields every picture's record, or why there is none, in order, a few ahead in threads."""
    gone = {record["name"] for record in _gone(task, earlier)}
    known = {name: record["output"] for name, record in earlier.items() if name not in gone}
    named = [name for name in task.names if not (task.keep_going and unsafe(name))]
    outputs = output_names(named, lambda name: SUFFIXES[task.encoding.of(name).format], known)
    waiting: collections.deque[Future[Record | str]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        for index, name in enumerate(task.names):
            if name in settled:
                future: Future[Record | str] = Future()
                future.set_result(earlier[name])
            else:
                output = outputs.get(name, "")
                future = pool.submit(_make, task, index, output, earlier.get(name), journal)
            waiting.append(future)
            if len(waiting) == 4 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _make(
    task: Task, index: int, output: str, earlier: Record | None, journal: _Journal
) -> Record | str:
    """Writes one picture, unless the earlier record proves that its file is there.

    Returns the reason instead where a picture cannot be protected and the task may go on.
    """
    name = task.names[index]
    try:
        if reason := unsafe(name):
            raise UnreadableError(f"its name {reason}: rename it")
        return _made(task, index, output, earlier, journal)
    except (UnreadableError, RefusedError) as error:
        if not task.keep_going:
            raise UserError(f"cannot protect {name}: {error}; remove it and run again") from error
        return str(error)


def _made(task: Task, index: int, output: str, earlier: Record | None, journal: _Journal) -> Record:
    source = task.read(index)
    identity = {
        "name": task.names[index],
        "output": output,
        "source_sha256": source.sha256,
        "source_bytes": source.size,
    }
    if task.noise_sha256 and (digest := task.noise_sha256(index)):
        identity["noise_sha256"] = digest
    if earlier and identity.items() <= earlier.items() and _holds(task.folder, earlier):
        return earlier | {"class": task.class_of(index)}
    record = identity | _written(task, index, output, source)
    _place(task.folder, record, index, journal)
    return record


def _written(task: Task, index: int, output: str, source: Source) -> Record:
    """Writes a picture's copy to its temporary place; returns what there is to say of it."""
    encoding = task.encoding.of(task.names[index])
    path, temporary = task.folder / IMAGES / output, _temporary(task.folder, index)
    with holding(source.decoded_bytes, temporary.parent) as (hold, see):
        clean = source.picture(hold)
        noised = task.add(index, clean)
        with disk.saying(path):
            copy = copies.write(clean, noised, encoding, temporary, source.mode, see)
    measured = copy.measured
    added = copy.cue if encoding.format == "jpeg" else measured.max_delta_255
    if task.keep_going and not added:
        raise UnreadableError(
            "black and white alone, which leaves a wave no room: choose --protection uc"
        )
    if encoding.format != "jpeg":  # which nobody can hold to a budget: it is measured
        _check_budget(measured, task.epsilon_255, task.norm, path)
    record = {
        "noise_sha256": noised.noise_sha256,
        "output_sha256": copy.sha256,
        "output_bytes": copy.size,
        "class": task.class_of(index),
        "cluster": noised.cluster,
        "max_delta_255": measured.max_delta_255,
        "mean_abs_delta_255": round(measured.mean_abs_delta_255, 4),
        "rms_delta_255": round(measured.rms_delta_255, 4),
        "psnr": round(measured.psnr, 3) if math.isfinite(measured.psnr) else None,
        "ssim": round(measured.ssim, 5),
        **{key: round(getattr(measured, key), 5) for key in SEEN},
    }
    if copy.cue is not None:
        record["cue"] = round(copy.cue, 4)
    if clean.converted:
        record["converted"] = ", ".join(clean.converted)
    return record


def _temporary(folder: Path, index: int) -> Path:
    # The temporary names are no part of the result, and the next run reuses them.
    return folder / UNFINISHED / str(index)


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


def _place(folder: Path, record: Record, index: int, journal: _Journal) -> None:
    """Puts a written picture where its record says, without replacing what is not ours."""
    images = folder / IMAGES
    path = images / record["output"]
    try:
        with disk.saying(path):
            for parent in path.parents:
                if parent.is_symlink():
                    raise UnreadableError(f"{parent} is a link: nothing is written through it")
                if parent == images:
                    break
            if record["output"] not in journal.ours and os.path.lexists(path):
                if not _holds(folder, record):
                    raise UnreadableError(f"{path} is there already, and not ours: move it away")
                return  # the journal of a killed run was lost
            journal.note(record)
            path.parent.mkdir(parents=True, exist_ok=True)
            disk.publish(_temporary(folder, index), path)
        if not _holds(folder, record):
            raise DiskError(f"{path} is not what was written to it: check the disk")
    except DiskError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENAMETOOLONG, errno.EILSEQ):
            raise UnreadableError(f"cannot write {path.name}: {cause.strerror}") from error
        raise


def sha256(data: bytes | memoryview) -> str:
    """Returns the hex SHA-256 of bytes: a file's, or those of a contiguous array's `data`."""
    return hashlib.sha256(data).hexdigest()
