"""The paper's data sets through TensorFlow Datasets, read from ArrayRecord without TensorFlow."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ucjax.data import decode, images
from ucjax.errors import UserError


@dataclass(frozen=True)
class _Set:
    builder: str  # TFDS's name, with the configuration
    train: str
    test: str
    classes: int | None = None  # the first ones only
    manual: str = ""  # files that TFDS cannot download itself


SETS = {
    "oxford_iiit_pet": _Set("oxford_iiit_pet", "train", "test"),
    "cars196": _Set("cars196", "train", "test"),
    # 10 + 10 train and validation pictures a class are customarily joined.
    "oxford_flowers102": _Set("oxford_flowers102", "train+validation", "test"),
    "food101": _Set("food101", "train", "validation"),
    "sun397": _Set("sun397/tfds", "train", "test"),
    "imagenet100": _Set(
        "imagenet2012", "train", "validation", classes=100,
        manual="ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar",
    ),
    "cifar10": _Set("cifar10", "train", "test"),
}  # fmt: skip


def listing(
    name: str,
    root: str,
    *,
    cache_dir: Path,
    progress: Callable[[str, int], images.Progress] | None = None,
) -> images.Listing:
    """Lists a data set of `SETS`, preparing it first if TensorFlow is there to do so.

    Args:
      name: key of `SETS`.
      root: TFDS's `data_dir`; "" is `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
      cache_dir: keeps the labels, which else take reading every record at every start.
      progress: as in `images.build`.

    Raises:
      UserError: unknown name; not prepared, and cannot be; not in ArrayRecord format; damaged;
        a package is missing.
    """
    if name not in SETS:
        raise UserError(f"unknown data.name {name!r}: choose one of {', '.join(SETS)}")
    for package in ("tensorflow_datasets", "array_record"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"data.name {name!r} needs {package}: pip install 'ucjax[tfds]'")
    chosen, data_dir = SETS[name], _data_dir(root)
    folder = _prepared(data_dir / chosen.builder)
    if folder is None:
        with images.locked(cache_dir / f".{name}.lock"):
            folder = _prepared(data_dir / chosen.builder) or _prepare(chosen, data_dir)
    builder = _open(folder)
    class_names = tuple(builder.info.features["label"].names[: chosen.classes])
    train, test = (
        _items(builder, name, split, class_names, cache_dir, progress)
        for split in (chosen.train, chosen.test)
    )
    return images.Listing(train, test, class_names)


def is_prepared(name: str, root: str) -> bool:
    """Whether a data set of `SETS` is here already, so that `listing` only opens it."""
    return name in SETS and _prepared(_data_dir(root) / SETS[name].builder) is not None


def _data_dir(root: str) -> Path:
    place = root or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return Path(place).expanduser()


def _prepared(folder: Path) -> Path | None:
    """Returns the folder of the newest prepared version."""
    versions = [x.parent for x in folder.glob("*/dataset_info.json") if _version(x.parent)]
    return max(versions, key=_version, default=None)


def _version(folder: Path) -> tuple[int, ...]:
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", folder.name)
    return tuple(int(part) for part in match.groups()) if match else ()


def _prepare(chosen: _Set, data_dir: Path) -> Path:
    manual = f" (after putting {chosen.manual} into {data_dir}/downloads/manual)"
    cure = (
        f"run again{manual if chosen.manual else ''}, or use your own copy with data.source=folder"
    )
    what = f"{chosen.builder} is not prepared in {data_dir}"
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"{what} and TensorFlow is missing: pip install 'ucjax[prepare]' and {cure}"
        )
    import tensorflow_datasets

    try:
        builder = tensorflow_datasets.builder(
            chosen.builder, data_dir=data_dir, file_format="array_record"
        )
        builder.download_and_prepare()
    except Exception as error:  # network, disk, checksums, missing packages, archives
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{what} and preparing it failed ({reason}): {cure}") from error
    return Path(builder.data_dir)


def _open(folder: Path) -> Any:
    import tensorflow_datasets

    try:
        return tensorflow_datasets.builder_from_directory(folder, file_format="array_record")
    except ValueError as error:
        raise UserError(
            f"{folder} is not in the array_record format ({error}): prepare it with "
            "file_format='array_record' in another data.root"
        ) from error


def _items(
    builder: Any,
    name: str,
    split: str,
    class_names: Sequence[str],
    cache_dir: Path,
    progress: Callable[[str, int], images.Progress] | None,
) -> list[images.Item]:
    """Lists the records of a split that belong to the given classes."""
    import tensorflow_datasets

    features = builder.info.features
    skip = tensorflow_datasets.decode.SkipDecoding()
    records = builder.as_data_source(split, decoders=dict.fromkeys(features, skip))
    key = _content_key(builder, split)
    labels = _labels(records, cache_dir / f"{name}-{split}-{key}.labels.npy", progress)
    suffix = ".png" if features["image"].encoding_format == "png" else ".jpg"
    folders = [re.sub(r"[^\w.-]+", "_", class_name).strip("_") for class_name in class_names]
    return [
        images.Item(
            name=f"{folders[label]}/{index:06d}{suffix}",
            open=partial(_open_record, records, index),
            label=label,
            key=f"{key}/{index}",
        )
        for index, label in enumerate(labels.tolist())
        if label < len(class_names)
    ]


def _content_key(builder: Any, split: str) -> str:
    digest = hashlib.sha256(builder.info.full_name.encode())
    for part in builder.info.splits[split].file_instructions:
        shard = Path(part.filename)
        digest.update(f"{shard.name} {part.skip} {part.take} {images.file_key(shard)}\n".encode())
    return digest.hexdigest()[:16]


def _labels(
    records: Sequence[Any],
    path: Path,
    progress: Callable[[str, int], images.Progress] | None,
) -> np.ndarray:
    """Returns int32 `[n]`, from the file at `path` or by reading all records once."""
    if path.exists():
        return np.load(path)
    labels = np.empty(len(records), np.int32)
    bar = progress("reading labels", len(records)) if progress else None
    for index in range(len(records)):
        labels[index] = records[index]["label"]
        if bar:
            bar.update(index + 1)
    if bar:
        bar.close(len(records))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npy")
    np.save(temporary, labels)
    temporary.replace(path)
    return labels


def _open_record(records: Sequence[Any], index: int) -> Image.Image:
    return decode.open_picture(records[index]["image"])
