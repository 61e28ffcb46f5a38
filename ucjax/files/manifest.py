"""A folder of written images: `images/`, `manifest.jsonl`, and `summary.json` once it is finished.

The manifest has one JSON object an image: name and output (relative to the source and to
`images/`), source_sha256 (of the file, or of the crop's bytes), noise_sha256, output_sha256,
class (a name, null where unknown), cluster, sizes in bytes, what `fidelity` measured on the
written file (psnr null: nothing changed), of JPEG files the cue that is left, and where 8-bit RGB
could not hold the picture what was converted. A folder that is ours holds `.ucjax.json`, with an
id of its own.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from statistics import fmean, median

from PIL import Image

from ucjax.data import decode
from ucjax.data.images import Item
from ucjax.errors import UserError
from ucjax.files.fidelity import SEEN
from ucjax.files.records import Record, folded, job_fault, parse, unsafe
from ucjax.runtime import disk

IMAGES, MANIFEST, SUMMARY = "images", "manifest.jsonl", "summary.json"

Failure = tuple[str, str]  # a picture's name, and why it could not be protected


@dataclass(frozen=True)
class ProtectedSet:
    """A finished folder; all numbers were measured on the written files."""

    folder: Path
    count: int
    class_names: tuple[str, ...]
    max_delta_255: int
    max_rms_delta_255: float  # what norm "rms" bounds
    mean_abs_delta_over_eps: float
    psnr_min: float  # dB, infinite where nothing changed
    psnr_median: float
    ssim_min: float
    ssim_median: float
    seen: Mapping[str, tuple[float, float]]  # median and worst of each of `fidelity.SEEN`
    source_bytes: int  # of all pictures together
    output_bytes: int
    failures: tuple[Failure, ...] = ()  # pictures without a protected copy
    removed: tuple[str, ...] = ()  # names of pictures that are gone, and so are their copies
    # Of JPEG files, the share of the noise's amplitude that they hold: median, least.
    cue: tuple[float, float] | None = None


def summarize(
    folder: Path,
    records: Sequence[Record],
    class_names: tuple[str, ...],
    epsilon_255: int,
    failures: Sequence[Failure],
    removed: Sequence[str] = (),
) -> ProtectedSet:
    """Reduces a manifest's records to the folder's summary.

    Raises:
      UserError: there are none, all pictures failed.
    """
    if not records:
        name, reason = failures[0]
        raise UserError(
            f"none of {len(failures)} pictures can be protected, first {name}: {reason}"
        )
    psnr = [math.inf if r["psnr"] is None else r["psnr"] for r in records]
    ssim = [r["ssim"] for r in records]
    mean = fmean(r["mean_abs_delta_255"] for r in records)
    cues = [r["cue"] for r in records if "cue" in r]
    return ProtectedSet(
        folder=folder,
        count=len(records),
        class_names=class_names,
        max_delta_255=max(r["max_delta_255"] for r in records),
        max_rms_delta_255=max(r["rms_delta_255"] for r in records),
        mean_abs_delta_over_eps=mean / epsilon_255 if epsilon_255 else 0.0,
        psnr_min=min(psnr),
        psnr_median=median(psnr),
        ssim_min=min(ssim),
        ssim_median=median(ssim),
        seen={key: _median_and_worst([r[key] for r in records], SEEN[key]) for key in SEEN},
        source_bytes=sum(r["source_bytes"] for r in records),
        output_bytes=sum(r["output_bytes"] for r in records),
        failures=tuple(failures),
        removed=tuple(removed),
        cue=(median(cues), min(cues)) if cues else None,
    )


def _median_and_worst(values: Sequence[float], more_is_worse: bool) -> tuple[float, float]:
    return median(values), max(values) if more_is_worse else min(values)


def summary_json(summary: ProtectedSet, job: Record) -> bytes:
    """Returns the content of `summary.json`; `job` says what the folder was made from."""
    values = asdict(summary)
    del values["folder"], values["removed"]
    for key in ("psnr_min", "psnr_median"):  # JSON knows no infinity
        values[key] = values[key] if math.isfinite(values[key]) else None
    return (json.dumps({"job": job, **values}, indent=2) + "\n").encode()


def load(folder: Path) -> ProtectedSet:
    """Returns a finished folder's summary.

    Raises:
      UserError: the folder is not finished, or its summary is damaged.
    """
    values = read_summary(folder)
    if values is None:
        raise UserError(f"{folder} holds no finished images: run again")
    try:
        del values["job"]
        values["class_names"] = tuple(str(name) for name in values["class_names"])
        values["seen"] = {key: tuple(map(float, values["seen"][key])) for key in SEEN}
        values["failures"] = tuple((str(name), str(why)) for name, why in values["failures"])
        if values.get("cue") is not None:
            values["cue"] = (float(values["cue"][0]), float(values["cue"][1]))
        for key in ("psnr_min", "psnr_median"):
            values[key] = math.inf if values[key] is None else values[key]
        for key in ("count", "max_delta_255", "source_bytes", "output_bytes"):
            values[key] = int(values[key])
        for key in ("psnr_min", "psnr_median", "ssim_min", "ssim_median"):
            values[key] = float(values[key])
        return ProtectedSet(folder, **values)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{folder / SUMMARY} is damaged: delete {folder} and run again") from error


def read_summary(folder: Path) -> Record | None:
    """Returns the object in `summary.json`, None if there is no such file.

    Raises:
      UserError: the file is no JSON object.
    """
    path = folder / SUMMARY
    try:
        values = json.loads(disk.read_regular(path, folder))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path} ({error}): delete {folder} and run again") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: delete {folder} and run again")
    if "job" in values and (fault := job_fault(values["job"])):
        raise UserError(f"{path}: {fault}: restore it, or delete {folder} and protect again")
    return values


def read_manifest(folder: Path) -> list[Record]:
    """Returns the manifest's objects, in the order of the images; `records.parse` checks them.

    Raises:
      UserError: it is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        data = disk.read_regular(path, folder)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot read {path} ({reason}): delete {folder} and run again") from error
    return parse(data, path)


def items_of(folder: Path) -> list[Item]:
    """Returns the written files with their labels, to be decoded like any other images."""
    names: dict[str | None, int] = {x: i for i, x in enumerate(load(folder).class_names)}
    images = folder / IMAGES

    def item(record: Record) -> Item:
        path = images / record["output"]
        label = names.get(record.get("class"), -1)
        opened = partial(_open_below, path, images)
        return Item(record["output"], opened, label, partial(_key_below, path, images))

    return [item(record) for record in read_manifest(folder)]


def _open_below(path: Path, images: Path) -> Image.Image:
    return decode.open_picture(disk.read_regular(path, images))


def _key_below(path: Path, images: Path) -> str:
    try:
        return disk.sha256_regular(path, images)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def output_names(
    names: Sequence[str],
    suffix: Callable[[str], str] = lambda name: ".png",
    known: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Gives each name an output name of its own in the same folder, whatever the order of names.

    Of several files with one stem, the one with its suffix or else the first by name keeps the
    stem alone, the others add their extension: a.gif, a.jpg and a.png become a_gif.png, a_jpg.png
    and a.png. Names that differ in case or in the form of their letters only count as equal, as
    they are on some file systems. Names in `known` keep their outputs.

    Raises:
      UserError: a name leads out of the folder.
    """
    chosen = dict(known or {})
    taken = {folded(output) for output in chosen.values()}
    for name in sorted(names, key=lambda name: (not name.endswith(suffix(name)), name)):
        if name in chosen:
            continue
        path = PurePosixPath(name)
        if reason := unsafe(name):
            raise UserError(f"the image name {name!r} {reason}: rename the file")
        outputs = (str(path.with_name(f"{stem}{suffix(name)}")) for stem in _stems(path))
        chosen[name] = next(output for output in outputs if folded(output) not in taken)
        taken.add(folded(chosen[name]))
    return chosen


def _stems(path: PurePosixPath) -> Iterator[str]:
    longer = f"{path.stem}_{path.suffix.removeprefix('.')}"
    yield path.stem
    yield longer
    yield from (f"{longer}_{number}" for number in itertools.count(2))
