"""A folder of pictures as a source: labelled by class sub-folders, or flat and unlabelled."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ucjax.data import images
from ucjax.errors import UserError

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".avif", ".heic", ".heif"),
)
_VALIDATION = ("val", "valid", "validation")
_HELD_OUT = ("test", *_VALIDATION)


def listing(
    root: Path,
    *,
    test_fraction: float,
    seed: int,
    add_validation: bool = True,
    split_unlabelled: bool = False,
) -> images.Listing:
    """Lists the pictures under `root`, at any depth.

    A picture's class is its first sub-folder; without one its label is -1. Hidden files,
    `__MACOSX` and files of other types are passed over; links are followed, each folder once.

    With `train/` and `test/` in `root`, these are the splits, and `val/` (or `valid/`,
    `validation/`) is added to the test pictures. Otherwise the split is seeded and stratified by
    class. Pictures without a label then all go to train, since they cannot test a classifier and
    held out they would be left unprotected, unless `split_unlabelled`.

    Args:
      root: names are relative to it, those of train to `root/train` if there is one.
      test_fraction: share of the test pictures in a seeded split, 0 to 0.5.
      seed: of the split.
      add_validation: False leaves the pictures in `val/` out.
      split_unlabelled: splits pictures without a label as if they were a class.

    Raises:
      UserError: no folder, no picture, or a tree that contradicts itself.
    """
    if not 0 <= test_fraction <= 0.5:
        raise UserError(f"data.test_fraction is {test_fraction}: choose one from 0 to 0.5")
    if not root.name:
        raise UserError("data.root is empty: set it to the folder of your pictures")
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: set data.root to the folder of your pictures")
    names = walk(root)
    if not names:
        types = " ".join(extension[1:] for extension in EXTENSIONS)
        raise UserError(f"no pictures under {root} (looked for {types}): check data.root")
    tops = {_top(name) for name in names}
    splits = {top.lower(): top for top in sorted(tops) if top.lower() in ("train", *_HELD_OUT)}
    if splits.keys() == {"train"} and len(tops) == 1:
        root, names = root / splits["train"], _below(splits["train"], names)
        return _seeded(root, names, test_fraction, seed, split_unlabelled)
    # A class may be called "train": only beside held-out pictures is it the split.
    if ("train" in splits and len(splits) > 1) or tops == set(splits.values()):
        return _given(root, names, splits, add_validation)
    return _seeded(root, names, test_fraction, seed, split_unlabelled)


def stratified(labels: Sequence[int], test_fraction: float, seed: int) -> np.ndarray:
    """Returns which pictures are the test set, bool `[n]`.

    `round(test_fraction * n)` of the labelled ones, each class in proportion to less than one
    picture. A class of one picture stays in train, as do those without a label (-1).
    """
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    groups = (np.flatnonzero(np.equal(labels, label)) for label in sorted({*labels} - {-1}))
    order = [index for group in groups if len(group) > 1 for index in rng.permutation(group)]
    # Every 1/test_fraction-th of all, class after class.
    marks = np.floor(np.arange(len(order) + 1) * test_fraction + 0.5)
    held_out[np.array(order, np.int64)[np.diff(marks) > 0]] = True
    return held_out


def walk(root: Path, unreadable: Callable[[OSError], None] | None = None) -> list[str]:
    """Returns the names of all picture files relative to `root`, posix and sorted.

    Hidden files, `__MACOSX` and files of other types are passed over; links are followed, each
    folder once. `unreadable` is told of folders that cannot be listed.
    """
    names, seen = [], set()
    for folder, subfolders, files in os.walk(root, onerror=unreadable, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(x for x in subfolders if not x.startswith(".") and x != "__MACOSX")
        for file in files:
            if file.lower().endswith(EXTENSIONS) and not file.startswith("."):
                names.append((Path(folder) / file).relative_to(root).as_posix())
    return sorted(names)


def labels(names: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    """Returns a label for each picture, by its first sub-folder, and what the labels mean.

    In a tree of `train/`, `test/` and the like, the classes are the folders in these. Pictures
    outside every class have -1.
    """
    tops = [_top(name) for name in names]
    if {top.lower() for top in tops} <= {"train", *_HELD_OUT}:
        tops = [_top(name.partition("/")[2]) for name in names]
    classes = sorted({*tops} - {""})
    return [classes.index(top) if top else -1 for top in tops], tuple(classes)


def _top(name: str) -> str:
    """Returns the first sub-folder of a name, "" if it has none."""
    top, separator, _ = name.partition("/")
    return top if separator else ""


def _below(folder: str, names: list[str]) -> list[str]:
    """Returns the names that lie in `folder`, relative to it."""
    return [name.removeprefix(f"{folder}/") for name in names if _top(name) == folder]


def _seeded(
    root: Path, names: list[str], test_fraction: float, seed: int, split_unlabelled: bool
) -> images.Listing:
    classes = sorted({_top(name) for name in names} - {""})
    items = _items(root, names, classes)
    groups = [item.label + split_unlabelled for item in items]
    held_out = stratified(groups, test_fraction, seed)
    train = [item for item, out in zip(items, held_out, strict=True) if not out]
    test = [item for item, out in zip(items, held_out, strict=True) if out]
    return images.Listing(train, test, tuple(classes), root)


def _given(
    root: Path, names: list[str], splits: dict[str, str], add_validation: bool
) -> images.Listing:
    strangers = sorted({_top(name) for name in names} - set(splits.values()))
    if strangers:
        raise UserError(
            f"{root} has {' and '.join(sorted(splits.values()))}, but also pictures in "
            f"{strangers[0] or 'itself'!r}: move those into a split or elsewhere"
        )
    if "train" not in splits:
        raise UserError(
            f"{root} has pictures in {' and '.join(sorted(splits.values()))} but none in 'train': "
            "add them, or set data.root to the folder that holds the classes"
        )
    inside = _below(splits["train"], names)
    classes = sorted({_top(name) for name in inside} - {""})
    train_root = root / splits["train"]
    train = _items(train_root, inside, classes)
    test: list[images.Item] = []
    for split in _HELD_OUT if add_validation else ("test",):
        if split in splits:
            held_out = _below(splits[split], names)
            test += _items(root, held_out, classes, prefix=f"{splits[split]}/")
    return images.Listing(train, test, tuple(classes), train_root)


def _items(root: Path, names: list[str], classes: list[str], prefix: str = "") -> list[images.Item]:
    """Lists `root/prefix/name`; the prefix is part of the item's name but not of its class."""
    labels = {"": -1} | {name: label for label, name in enumerate(classes)}
    unknown = sorted({_top(name) for name in names} - labels.keys())
    if unknown:
        raise UserError(
            f"{root / prefix} has {len(unknown)} classes that train lacks, first {unknown[0]!r}: "
            "give both the same class folders"
        )
    return [
        images.file_item(root / (prefix + name), prefix + name, labels[_top(name)])
        for name in names
    ]
