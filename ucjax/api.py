"""The tool from Python: `ucjax.preview`, `protect`, `verify`, `evaluate`, `compare`.

Arrays are of NumPy, JAX, PyTorch or whatever else has `__array__`. They travel through PNG files in
a temporary folder: what is returned was written and decoded. `ucjax.load` opens what was written.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from ucjax import config
from ucjax.comparison import run, verdict
from ucjax.comparison import table as tabled
from ucjax.data.folder import walk
from ucjax.errors import UserError
from ucjax.files import manifest as protected
from ucjax.files import verification
from ucjax.files.verification import Verification
from ucjax.names import Name
from ucjax.photos import evaluate as owner_evaluation
from ucjax.photos import preview as look
from ucjax.photos import protect as owner
from ucjax.protections import protector as protectors
from ucjax.protections.protector import Protector
from ucjax.report import owner as owner_page
from ucjax.report import previews
from ucjax.report.finish import finish
from ucjax.results import (
    Comparison,
    Pictures,
    ProtectedFolder,
    ProtectedImages,
    pixels_of,
    read,
)


def preview(
    photos: str | Path | Pictures,
    page: str | Path = "preview.html",
    *,
    count: int = look.COUNT,
    rows: Sequence[str] = look.ROWS,
) -> Path:
    """Writes a page of some photos at several budgets (as `ucjax preview`), and returns its path.

    Args:
      photos: a folder, or uint8 `[n, h, w, 3]`, or a sequence of uint8 `[h, w, 3]`.
      page: where to; a page of an earlier preview is replaced, nothing else.
      count: photos to show, spread over all.
      rows: up to three rows of gratings.

    Raises:
      UserError: bad input, in one line.
    """
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(photos) if isinstance(photos, str | Path) else Path(scratch)
        if not isinstance(photos, str | Path):
            _write(photos, root)
        found = look.preview(root, count=count, rows=rows)
        typed = root if isinstance(photos, str | Path) else Path("PHOTOS")
        previews.write(found, typed, Path(page))
    return Path(page)


@overload
def protect(
    photos: str | Path,
    out: str | Path,
    *,
    protector: str | Path | Protector | None = None,
    protection: str = config.OWNERS_ROW,
    format: str = "auto",
    keep_metadata: Sequence[str] = (),
    opt_out: bool = False,
    threads: int | None = None,
    **settings: Any,
) -> ProtectedFolder: ...


@overload
def protect(
    photos: Pictures,
    out: None = None,
    *,
    protector: str | Path | Protector | None = None,
    protection: str = config.OWNERS_ROW,
    threads: int | None = None,
    **settings: Any,
) -> ProtectedImages: ...


def protect(
    photos: str | Path | Pictures,
    out: str | Path | None = None,
    *,
    protector: str | Path | Protector | None = None,
    protection: str = config.OWNERS_ROW,
    format: str = "auto",
    keep_metadata: Sequence[str] = (),
    opt_out: bool = False,
    threads: int | None = None,
    **settings: Any,
) -> ProtectedFolder | ProtectedImages:
    """Protects a folder of photos into `out` (as `ucjax protect`), or arrays into arrays.

    Args:
      photos: a folder, or uint8 `[n, h, w, 3]`, or a sequence of uint8 `[h, w, 3]`.
      out: a folder for the copies of a folder's photos.
      protector: the noise to use, as returned or its folder; None learns one from these photos.
      protection: the row of the table to learn, one noise per cluster.
      format: "png", "webp", "jpeg" or "same" (see `picture.Encoding`); "auto" is "same" for
        gratings and else "png". Arrays are never compressed with loss.
      keep_metadata: what to keep beyond rights, descriptions and dates: "camera", "gps".
      opt_out: adds the machine-readable reservation against training.
      threads: None for one a processor.
      settings: keys of `config.photos` with "__" for dots, such as `noise__epsilon_255=8`.

    Raises:
      UserError: bad input, in one line.
    """
    with tempfile.TemporaryDirectory() as scratch:
        typed = None if protector is None or isinstance(protector, Protector) else Path(protector)
        if isinstance(protector, Protector):
            protectors.save(protector, Path(scratch) / "protector")
            protector = Path(scratch) / "protector"
        options: dict[str, Any] = {
            "published": None if protector is None else Path(protector),
            "protection": protection,
            "threads": threads,
        }
        if isinstance(photos, str | Path):
            if out is None:
                raise UserError("a folder of photos needs a folder for the copies: give out=")
            chosen = config.with_settings(
                config.photos(len(walk(Path(photos))), protection), settings
            )
            options |= {"format": format, "opt_out": opt_out, "keep": tuple(keep_metadata)}
            owner_page.check(Path(out))
            done = owner.protect_folder(Path(photos), Path(out), chosen, **options)
            owner_page.write(Path(photos), Path(out), protector=typed, unlisted=done.unlisted)
            return ProtectedFolder(*done)
        root, copies = Path(scratch) / "photos", Path(scratch) / "out"
        names = _write(photos, root)
        chosen = config.with_settings(config.photos(len(names), protection), settings)
        done = owner.protect_folder(root, copies, chosen, format="png", **options)
        if done.written.failures:
            name, reason = done.written.failures[0]
            raise UserError(f"image {int(Path(name).stem)} cannot be protected: {reason}")
        records = {record["name"]: record for record in protected.read_manifest(copies)}
        outputs = [copies / protected.IMAGES / records[name]["output"] for name in names]
        clusters = np.array([records[name]["cluster"] for name in names], np.int32)
        return ProtectedImages([read(path) for path in outputs], clusters, done.protector)


@overload
def verify(
    out: str | Path, photos: str | Path, *, protector_folder: str | Path | None = None
) -> Verification: ...


@overload
def verify(out: Pictures, photos: Pictures, *, epsilon_255: int = 16) -> Verification: ...


def verify(
    out: str | Path | Pictures,
    photos: str | Path | Pictures,
    *,
    epsilon_255: int = 16,
    protector_folder: str | Path | None = None,
) -> Verification:
    """Checks protected files against their originals (as `ucjax verify`), or arrays.

    Args:
      out: what `protect` wrote, or protected pictures, uint8 `[h, w, 3]` each.
      photos: the originals' folder, or the clean pictures in the same order.
      epsilon_255: the budget of arrays; that of files is in their protector.
      protector_folder: of files, None for the one in `out`.

    Raises:
      UserError: bad input, in one line.
    """
    if isinstance(out, str | Path) and isinstance(photos, str | Path):
        place = None if protector_folder is None else Path(protector_folder)
        return verification.verify_folder(Path(out), Path(photos), protector=place)
    if isinstance(out, str | Path) or isinstance(photos, str | Path):
        raise UserError("a folder and an array cannot be compared: give two of a kind")
    if len(out) != len(photos):
        raise UserError(f"{len(out)} protected images, {len(photos)} clean ones: give as many")
    failures, highest = [], 0
    for number, given in enumerate(zip(out, photos, strict=True)):
        ours, clean = (pixels_of(picture, number) for picture in given)
        if ours.shape != clean.shape or ours.dtype != np.uint8 or clean.dtype != np.uint8:
            failures.append(
                f"image {number}: {ours.dtype} {ours.shape}, its source {clean.dtype} {clean.shape}"
            )
            continue
        change = int((np.maximum(ours, clean) - np.minimum(ours, clean)).max(initial=0))
        highest = max(highest, change)
        if change > epsilon_255:
            failures.append(f"image {number}: changed by {change} levels, over {epsilon_255}")
    return Verification(len(out), tuple(failures), highest)


def compare(
    clean: str | Path | Pictures,
    rows: Mapping[str, str | Path | Pictures] | None = None,
    *,
    protections: Sequence[str] = ("clean",),
    victims: Sequence[str] = ("resnet18",),
    labels: Sequence[int] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    noise_seeds: Sequence[int] = (0,),
    workdir: str | Path | None = None,
    reuse: Sequence[str | Path] = (),
    **settings: Any,
) -> Comparison:
    """Fills a table of protections × victims (as `ucjax compare`), on folders or arrays.

    Args:
      clean: a folder of clean images, or uint8 `[n, h, w, 3]`, or a sequence of `[h, w, 3]`.
      rows: anybody's protected versions by label, folders or arrays in the order of `clean`.
      protections: rows to make and measure.
      victims: columns.
      labels: of arrays, `[n]`; folders have them by their sub-folders, or by a label rule.
      seeds: of victims.
      noise_seeds: of what is drawn for the rows.
      workdir: keeps the results; None for a temporary folder.
      reuse: folders of other runs whose cells may be taken.
      settings: keys of `config.photos` with "__" for dots, such as `victim__epochs=10`.

    Raises:
      UserError: bad input, in one line.
    """
    rows = rows or {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(clean) if isinstance(clean, str | Path) else Path(scratch) / "clean"
        if not isinstance(clean, str | Path):
            _write(clean, root, labels)
        found = [
            str(Name("folder", str(folder), (), (("label", label),)))
            for label, folder in _folders(rows, clean, labels, Path(scratch)).items()
        ]
        # Every victim needs its like on clean files to be compared with.
        clean_row = () if {"clean", "clean_original"} & {*protections} else ("clean",)
        asked: dict[str, Any] = {
            "data__source": "folder",
            "data__root": str(root),
            "data__split_unlabelled": True,
            "protections": tuple(dict.fromkeys((*clean_row, *protections, *found))),
            "victims": tuple(victims),
            "seeds": tuple(seeds),
            "noise_seeds": tuple(noise_seeds),
            **settings,
        }
        chosen = config.with_settings(config.photos(len(walk(root))), asked)
        filled = run.run(
            chosen,
            Path(workdir) if workdir is not None else Path(scratch) / "work",
            command=("ucjax.compare",),
            reuse=[Path(folder) for folder in reuse],
        )
        return Comparison(filled.table, verdict.judge(filled.table))


def _folders(
    rows: Mapping[str, str | Path | Pictures],
    clean: str | Path | Pictures,
    labels: Sequence[int] | None,
    scratch: Path,
) -> dict[str, Path]:
    """Returns the folder of every labelled row; arrays are written as PNG files first."""
    found = {}
    for number, (label, given) in enumerate(rows.items()):
        if isinstance(given, str | Path):
            found[label] = Path(given)
            continue
        if isinstance(clean, str | Path) or len(given) != len(clean):
            raise UserError(
                f"row {label!r} holds {len(given)} images: give them for as many clean images, as "
                "arrays too"
            )
        found[label] = scratch / f"row{number}"
        _write(given, found[label], labels)
    return found


def evaluate(
    photos: str | Path | Pictures,
    out: str | Path | Pictures,
    *,
    labels: Sequence[int] | None = None,
    epsilon_255: int = 16,
    **options: Any,
) -> Comparison:
    """Measures with victims whether the protection works (as `ucjax evaluate`).

    Args:
      photos: the originals' folder, or clean pictures, uint8 `[h, w, 3]` each.
      out: what `protect` wrote, or the protected pictures in the same order.
      labels: of the pictures, `[n]`, at least two kinds.
      epsilon_255: of the random noise that arrays are compared with.
      options: for folders those of `photos.evaluate.evaluate` (rows, columns, labels, minutes),
        for arrays those of `compare`; and keys of `config.photos` with "__" for dots.

    Raises:
      UserError: bad input, in one line.
    """
    if isinstance(photos, str | Path) and isinstance(out, str | Path):
        chosen = config.photos(len(walk(Path(photos))))
        keys = [key for key in options if key.partition("__")[0] in chosen]
        chosen = config.with_settings(chosen, {key: options.pop(key) for key in keys})
        owner_page.check(Path(out))
        filled = owner_evaluation.evaluate(Path(photos), Path(out), chosen, **options)
        finish(filled)
        owner_page.write(Path(photos), Path(out), evaluated=True)
        return Comparison(filled.table, verdict.judge(filled.table))
    if isinstance(photos, str | Path) or isinstance(out, str | Path) or labels is None:
        raise UserError("give two folders, or two sets of arrays and labels=")
    if not len(photos) == len(out) == len(labels):
        counts = f"{len(photos)} clean images, {len(out)} protected ones, {len(labels)} labels"
        raise UserError(f"{counts}: give as many of each")
    options.setdefault("protections", ("clean", "random", "cluster_random"))
    options["noise__epsilon_255"] = epsilon_255
    return compare(photos, {"protected": out}, labels=labels, **options)


def load(folder: str | Path) -> Comparison | ProtectedFolder | Protector:
    """Opens what a command or a call wrote.

    Args:
      folder: a run's (with `table.json`), OUT of `protect`, or a protector's.

    Raises:
      UserError: it holds none of them, or something damaged.
    """
    place = Path(folder)
    if (place / tabled.FILE).exists():
        table = tabled.load(place)
        return Comparison(table, verdict.judge(table))
    if (place / protectors.DESCRIPTION).exists():
        return protectors.load(place)
    if (place / protected.SUMMARY).exists():
        where = place / owner.PROTECTOR
        written, used = protected.load(place), protectors.load(where)
        return ProtectedFolder(written, used, where, (), owner.converted(place), math.nan)
    raise UserError(
        f"{place} holds no table, no protector and no finished protected files: give the folder "
        "of one of them"
    )


def _write(pictures: Pictures, root: Path, labels: Sequence[int] | None = None) -> list[str]:
    """Writes pictures as PNG files, in a folder a label; returns their names."""
    names = []
    for number, given in enumerate(pictures):
        pixels = pixels_of(given, number)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
            raise UserError(
                f"image {number} is {pixels.dtype} {pixels.shape}: give uint8 [height, width, 3]"
            )
        name = f"{number:08}.png" if labels is None else f"{int(labels[number])}/{number:08}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name, compress_level=1)
        names.append(name)
    return names
