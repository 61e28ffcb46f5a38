"""Where pictures come from: a folder, a prepared TFDS data set, or procedural textures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ucjax.data import folder, images, textures, tfds
from ucjax.errors import UserError


@dataclass(frozen=True)
class Splits:
    """The two halves of a data set."""

    train: images.ImageSet  # what the owner publishes and protects
    test: images.ImageSet  # clean test pictures; may be empty
    root: Path | None  # the folder that the names of `train` are relative to; None: no files
    train_items: tuple[images.Item, ...] = ()  # of both sets, to be decoded in another way
    test_items: tuple[images.Item, ...] = ()


def load(
    *,
    source: str,
    cache_dir: Path,
    name: str = "",
    root: str = "",
    short_side: int = 256,
    test_fraction: float = 0.1,
    add_validation: bool = True,
    seed: int = 0,
    train_count: int = 0,
    test_count: int = 0,
    split_unlabelled: bool = False,
    keep: Callable[[str], bool] = lambda name: True,
    threads: int | None = None,
    say: Callable[[str], None] = print,
    progress: Callable[[str, int], images.Progress] | None = None,
) -> Splits:
    """Decodes a source into image sets (see `images.build`), or opens their caches.

    Args:
      source: "folder", "tfds" or "textures".
      cache_dir: where decoded pictures are kept.
      name: the TFDS data set, a key of `tfds.SETS`.
      root: the folder of pictures (see `folder.listing`), or TFDS's data folder ("" its default).
      short_side: pixels.
      test_fraction: share of test pictures in a folder without splits of its own.
      add_validation: whether a folder's `val/` counts as test.
      seed: of the split, of samples and of the textures.
      train_count: number of textures, or at most so many pictures (a seeded sample; 0: all).
      test_count: the same for the test set.
      split_unlabelled: see `folder.listing`.
      keep: which pictures to protect are kept, by their names.
      threads: decoding threads (None: one a processor).
      say: receives the report of unreadable pictures.
      progress: makes progress lines, such as `metrics.Progress`.

    Raises:
      UserError: the source does not exist or holds no readable picture.
    """
    if min(train_count, test_count) < 0:
        raise UserError(f"data.train_count and test_count are {train_count}, {test_count}: below 0")
    label = {"folder": Path(root).expanduser().resolve().name, "tfds": name}.get(source, source)
    if source == "folder":
        listing = folder.listing(
            Path(root).expanduser(), test_fraction=test_fraction, seed=seed,
            add_validation=add_validation, split_unlabelled=split_unlabelled,
        )  # fmt: skip
    elif source == "tfds":
        listing = tfds.listing(name, root, cache_dir=cache_dir, progress=progress)
    elif source == "textures":
        listing = _textures(train_count, test_count, short_side, seed)
    else:
        raise UserError(f"unknown data.source {source!r}: choose folder, tfds or textures")

    def build(split: str, items: list[images.Item], count: int) -> images.ImageSet:
        return images.build(
            _sample(items, count, seed), short_side=short_side, cache_dir=cache_dir,
            label=f"{label}-{split}", class_names=listing.class_names, threads=threads, say=say,
            progress=progress,
        )  # fmt: skip

    train_items = [item for item in listing.train if keep(item.name)]
    train = build("train", train_items, train_count)
    if not len(train):
        raise UserError(f"none of the {len(listing.train)} pictures in {root or name} can be read")
    test = build("test", listing.test, test_count)
    return Splits(
        train, test, listing.root, _readable(train_items, train), _readable(listing.test, test)
    )


def _readable(items: list[images.Item], found: images.ImageSet) -> tuple[images.Item, ...]:
    by_name = {item.name: item for item in items}
    return tuple(by_name[name] for name in found.names)


def _textures(train_count: int, test_count: int, size: int, seed: int) -> images.Listing:
    if not train_count:
        raise UserError("data.train_count is 0: set it to the number of textures to make")
    train = textures.items("train", train_count, size, seed)
    test = textures.items("test", test_count, size, seed)
    return images.Listing(train, test, textures.FAMILIES)


def _sample(items: list[images.Item], count: int, seed: int) -> list[images.Item]:
    if not 0 < count < len(items):
        return items
    chosen = np.random.default_rng(seed).choice(len(items), count, replace=False)
    return [items[index] for index in np.sort(chosen)]
