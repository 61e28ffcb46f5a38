"""Anybody's protected files: matched to the clean images by name, and checked before training.

A wrong folder must be an error and not a result: counts, sizes and changes are compared first.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from statistics import fmean, median
from typing import NamedTuple

import numpy as np

from ucjax.comparison.ground import LONGEST, Ground
from ucjax.data import folder as folders
from ucjax.data.decode import without_warnings
from ucjax.data.images import file_keys
from ucjax.data.sources import Splits
from ucjax.errors import UserError, printable
from ucjax.files import fidelity, manifest, picture
from ucjax.files.picture import UnreadableError
from ucjax.runtime import checkpoint, parallel
from ucjax.runtime.progress import say

# Files that lack a counterpart are left out of every row up to this share: what a protection
# could not protect. More are taken for a wrong folder.
_MAY_LACK = 0.05
# Mean change per pixel, in levels, past which two files of one name are taken for different
# pictures: JPEG 10 and a budget of 32 stay below, unrelated photographs differ by 60 to 80.
_DIFFERENT = 40.0


class Matched(NamedTuple):
    """The protected file of each clean image, by the clean image's name."""

    folder: Path
    paths: dict[str, Path]


@dataclass(frozen=True)
class Measured:
    """Changes over all files, in levels where the name says so."""

    max_delta_255: int
    mean_abs_delta_255: float
    psnr_median: float  # infinite where nothing changed
    ssim_median: float


def match(folder: Path, names: Sequence[str]) -> Matched:
    """Finds the protected file of every name; those of no clean image are passed over.

    What `ucjax protect` wrote is matched by its manifest, other folders by the names of their
    files: the same name, or the same without extension, below the folder or its `train/`.

    Raises:
      UserError: the folder is none, or lacks more than a few of the names.
    """
    found, lacking = available(folder, names)
    if lacking:
        raise UserError(
            f"{folder} has no file for {len(lacking)} of {len(names)} images to train on, first "
            f"{printable(lacking[0])}: give the folder that mirrors the clean one"
        )
    return Matched(folder, found)


def available(folder: Path, names: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Returns the files of those names that have one, and the names that have none.

    Raises:
      UserError: it is no folder, or so few have one that it must be a wrong one.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of the protected files")
    if (folder / manifest.MANIFEST).is_file():
        records = manifest.read_manifest(folder)
        listed = {r["name"]: folder / manifest.IMAGES / r["output"] for r in records}
        # Of a tree with train/ and test/, what is protected is named from train/ on.
        paths = {name.removeprefix("train/"): path for name, path in listed.items()} | listed
    else:
        paths = _by_name(folder, names)
    lacking = [name for name in names if name not in paths or not paths[name].is_file()]
    if len(lacking) > _MAY_LACK * len(names):
        raise UserError(
            f"{folder} has no file for {len(lacking)} of {len(names)} images, first "
            f"{printable(lacking[0])}: give the folder that mirrors the clean one"
        )
    return {name: paths[name] for name in names if name in paths}, lacking


def _by_name(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    files = folders.walk(folder)
    stems = Counter(_stem(file) for file in files)
    exact = set(files)
    by_stem = {_stem(file): file for file in files if stems[_stem(file)] == 1}
    paths = {}
    for name in names:
        for candidate in (name, f"train/{name}"):
            if candidate in exact:
                paths[name] = folder / candidate
            elif _stem(candidate) in by_stem:
                paths[name] = folder / by_stem[_stem(candidate)]
            else:
                continue
            break
    return paths


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def measure(matched: Matched, splits: Splits, label: str, ground: Ground) -> Measured:
    """Compares every file with its clean picture; a second call with the same files is free.

    Raises:
      UserError: a file cannot be read, has another size than its clean picture, or shows
        another picture.
    """
    names = splits.train.names
    keys = file_keys([matched.paths[name] for name in names])
    question = [ground.images_sha256, *(list(pair) for pair in zip(names, keys, strict=True))]
    answer = ground.folder / "foreign" / f"{_safe(label)}.json"
    if answer.exists():
        known = checkpoint.read_json(answer)
        if known["files"] == question:
            psnr = known["measured"]["psnr_median"]
            return Measured(
                **{**known["measured"], "psnr_median": math.inf if psnr is None else psnr}
            )
    found = _compare_all(matched, splits, ground)
    say(
        f"{label}: {len(names)} files matched, largest change {found.max_delta_255} of 255, "
        f"mean {found.mean_abs_delta_255:.1f}"
    )
    if parallel.is_main():
        finite = math.isfinite(found.psnr_median)  # JSON knows no infinity
        shown = {**asdict(found), "psnr_median": found.psnr_median if finite else None}
        checkpoint.write_json(answer, {"files": question, "measured": shown})
    parallel.barrier("foreign")
    return found


def _compare_all(matched: Matched, splits: Splits, ground: Ground) -> Measured:
    names = splits.train.names
    with without_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = list(
            pool.map(
                lambda i: _compare(matched.paths[names[i]], i, splits, ground), range(len(names))
            )
        )
    strange = [name for name, r in zip(names, results, strict=True) if isinstance(r, str)]
    if strange:
        reason = next(r for r in results if isinstance(r, str))
        raise UserError(
            f"{matched.folder}: {len(strange)} of {len(names)} files cannot be compared, first "
            f"{printable(strange[0])}: {reason}"
        )
    good = [r for r in results if not isinstance(r, str)]
    mean = fmean(r.mean_abs_delta_255 for r in good)
    if median(r.mean_abs_delta_255 for r in good) > _DIFFERENT:
        raise UserError(
            f"{matched.folder} shows other pictures than {splits.root or 'the clean images'}: the "
            f"files differ by {mean:.0f} of 255 levels on average, and protections by less than "
            f"{_DIFFERENT:.0f}; give the folder that mirrors the clean one"
        )
    return Measured(
        max_delta_255=max(r.max_delta_255 for r in good),
        mean_abs_delta_255=mean,
        psnr_median=median(r.psnr for r in good),
        ssim_median=median(r.ssim for r in good),
    )


def _compare(path: Path, index: int, splits: Splits, ground: Ground) -> fidelity.Fidelity | str:
    """Returns the differences of a file and its clean picture, or why they cannot be compared."""
    try:
        protected = picture.read(path.read_bytes()).pixels
        if ground.native and splits.root is not None:
            clean = picture.read((splits.root / splits.train.names[index]).read_bytes()).pixels
        else:
            clean = splits.train.center_crops(ground.config.data.crop, [index])[0]
    except UnreadableError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    if protected.shape != clean.shape:
        ours, theirs = (f"{x.shape[1]} x {x.shape[0]}" for x in (protected, clean))
        return f"it has {ours} pixels, the clean picture {theirs}"
    return fidelity.compare(clean, np.ascontiguousarray(protected))


def _safe(label: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in label)[-LONGEST:]
