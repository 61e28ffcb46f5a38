"""Writes a folder of images in threads, so that a run killed at any moment can be continued.

A finished image is renamed into place and then recorded in a journal. The next run believes a
record only if source, noise and file still have the hashes it states, so that both runs together
leave the bytes that one undisturbed run would.
"""

from __future__ import annotations

import collections
import hashlib
import io
import json
import math
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ucjax.data.decode import decode
from ucjax.data.images import ImageSet, Progress
from ucjax.errors import UserError
from ucjax.fidelity import Fidelity, compare
from ucjax.placement import add
from ucjax.protected import (
    IMAGES,
    MANIFEST,
    SUMMARY,
    ProtectedSet,
    Record,
    load,
    output_names,
    read_summary,
    summarise,
    summary_json,
)

# What a killed run leaves beside the finished images: its job, their records, temporary files.
_UNFINISHED, _JOB, _JOURNAL = ".unfinished", "job.json", "records.jsonl"

# On noise, run lengths alone encode 1.5 times as fast as matches (deflate level 1), and the files
# are no larger.
_COMPRESS_LEVEL, _COMPRESS_TYPE = 1, zlib.Z_RLE


class Source(NamedTuple):
    """A clean image: the hash of its bytes, and its pixels, uint8 `[h, w, 3]`, when called for."""

    sha256: str
    pixels: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Task:
    """What is written where. The functions take an image's index and are called from threads."""

    images: ImageSet
    clusters: np.ndarray | None  # [n]
    read: Callable[[int], Source]
    noise_of: Callable[[int], np.ndarray]  # -> float32 [crop, crop, 3]
    fit: Callable[[int, np.ndarray, tuple[int, int]], np.ndarray]  # -> [h, w, 3], given (h, w)
    geometry: str  # "crop" | "native"
    epsilon_255: int
    norm: str
    crop: int
    folder: Path


def run(
    task: Task, label: str, threads: int | None, progress: Callable[[str, int], Progress] | None
) -> ProtectedSet:
    """Writes the task's files, its manifest and last its summary, or what is missing of them.

    Raises:
      UserError: the folder is another task's, or cannot be written.
      ValueError: noise of a wrong shape, or a written file over the budget.
    """
    if not len(task.images):
        raise UserError(f"{label}: there are no images to write to {task.folder}")
    job, unfinished = _job(task), task.folder / _UNFINISHED
    if not _finished(task.folder, job):
        bar = progress(label, len(task.images)) if progress else None
        records = _write_images(task, threads or os.cpu_count() or 1, bar)
        manifest = "".join(json.dumps(record) + "\n" for record in records)
        class_names = tuple(task.images.class_names)
        summary = summarise(task.folder, records, class_names, task.epsilon_255)
        _write(task.folder / MANIFEST, manifest.encode(), unfinished / MANIFEST)
        _write(task.folder / SUMMARY, summary_json(summary, job), unfinished / SUMMARY)
    shutil.rmtree(unfinished, ignore_errors=True)
    return load(task.folder)


def _job(task: Task) -> Record:
    """Returns what decides the content of the folder."""
    clusters = None if task.clusters is None else task.clusters.tolist()
    images = json.dumps([task.images.names, task.images.labels.tolist(), clusters])
    return {
        "geometry": task.geometry,
        "epsilon_255": task.epsilon_255,
        "norm": task.norm,
        "crop": task.crop,
        "short_side": task.images.short_side,
        "images": len(task.images),
        "images_sha256": sha256(images.encode()),
        "first_noise_sha256": _noise_sha256(task.noise_of(0)),
    }


def _finished(folder: Path, job: Record) -> bool:
    """Whether the job is done; if not, marks the folder as this job's.

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


def _write_images(task: Task, threads: int, bar: Progress | None) -> list[Record]:
    """Writes what is missing; returns all records, in the order of the images."""
    outputs = output_names(task.images.names)
    journal_path = task.folder / _UNFINISHED / _JOURNAL
    earlier = _read_journal(journal_path)
    records: list[Record] = []
    with open(journal_path, "a") as journal:
        for record in _records(task, outputs, earlier, threads):
            records.append(record)
            if record is not earlier.get(record["name"]):
                journal.write(json.dumps(record) + "\n")
                journal.flush()
            if bar:
                bar.update(len(records))
    if bar:
        bar.close(len(records))
    return records


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
    task: Task, outputs: dict[str, str], earlier: dict[str, Record], threads: int
) -> Iterator[Record]:
    """Yields every image's record in order, a few images ahead in threads."""
    waiting: collections.deque[Future[Record]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        for index, name in enumerate(task.images.names):
            waiting.append(pool.submit(_make, task, index, outputs[name], earlier.get(name)))
            if len(waiting) == 4 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _make(task: Task, index: int, output: str, earlier: Record | None) -> Record:
    """Writes one image, unless the earlier record proves that its file is there."""
    source, noise = task.read(index), task.noise_of(index)
    if noise.shape != (task.crop, task.crop, 3):
        raise ValueError(f"noise is {noise.shape}, but crop is {task.crop}")
    path = task.folder / IMAGES / output
    identity = {
        "name": task.images.names[index],
        "output": output,
        "source_sha256": source.sha256,
        "noise_sha256": _noise_sha256(noise),
    }
    if earlier and identity.items() <= earlier.items() and _holds(path, earlier["output_sha256"]):
        return earlier
    clean = source.pixels()
    encoded = io.BytesIO()
    protected = add(clean, task.fit(index, noise, clean.shape[:2]))
    Image.fromarray(protected).save(
        encoded, "PNG", compress_level=_COMPRESS_LEVEL, compress_type=_COMPRESS_TYPE
    )
    _write(path, encoded.getvalue(), task.folder / _UNFINISHED / str(index))
    written = path.read_bytes()
    measured = compare(clean, decoded(written, path))
    _check_budget(measured, task.epsilon_255, task.norm, path)
    return {
        **identity,
        "output_sha256": sha256(written),
        "label": int(task.images.labels[index]),
        "cluster": None if task.clusters is None else int(task.clusters[index]),
        "max_delta_255": measured.max_delta_255,
        "mean_abs_delta_255": round(measured.mean_abs_delta_255, 4),
        "rms_delta_255": round(measured.rms_delta_255, 4),
        "psnr": round(measured.psnr, 3) if math.isfinite(measured.psnr) else None,
        "ssim": round(measured.ssim, 5),
    }


def _noise_sha256(noise: np.ndarray) -> str:
    return sha256(np.ascontiguousarray(noise).data)


def _holds(path: Path, digest: str) -> bool:
    return path.exists() and sha256(path.read_bytes()) == digest


def _check_budget(measured: Fidelity, epsilon_255: int, norm: str, path: Path) -> None:
    # Rounding adds at most half a level to a root mean square, and nothing to a whole maximum.
    used, allowed = {
        "linf": (measured.max_delta_255, epsilon_255),
        "l2": (measured.rms_delta_255, epsilon_255 + 0.5),
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
        raise UserError(f"cannot write {path}: {error.strerror}; then run again") from error


def decoded(data: bytes, path: Path) -> np.ndarray:
    """Decodes a file's content to uint8 `[h, w, 3]`; `path` is for the error message.

    Raises:
      UserError: it is damaged.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(decode(image))
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        raise UserError(f"cannot read {path} ({error}): remove it and run again") from error


def sha256(data: bytes | memoryview) -> str:
    """Returns the hex SHA-256 of bytes: a file's, or those of a contiguous array's `data`."""
    return hashlib.sha256(data).hexdigest()
