"""Sets of pictures, decoded once into a memory-mapped cache.

A cache is a folder with `rows.npy`, `starts.npy`, `wide.npy`, `labels.npy` (see `ImageSet`) and
`index.json` (names, class names, pictures left out): numpy and json are enough to read it.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from PIL import Image

from ucjax.data import decode
from ucjax.data.decode import load, without_warnings
from ucjax.errors import UserError, printable
from ucjax.runtime import disk

# Part of every cache key: raise it when `decode`, `resize` or the layout changes.
FORMAT = 1


@dataclass(frozen=True)
class Item:
    """One picture of a source, not yet opened."""

    name: str  # unique, posix, with its extension: "cat/001.jpg"
    open: Callable[[], Image.Image]
    label: int  # -1 where unknown
    key: str | Callable[[], str]  # `content_key`, or what finds it out

    @functools.cached_property
    def content_key(self) -> str:
        """A text that changes whenever the pixels may have changed; of a file by reading it."""
        return self.key if isinstance(self.key, str) else self.key()


@dataclass(frozen=True)
class ImageSet:
    """Decoded images whose short side is `short_side` pixels, stacked along their long side.

    Landscape images are stored transposed, so that image i is `rows[starts[i]:starts[i + 1]]` of
    shape `[long_i, short_side, 3]` whatever its orientation: the exact aspect without padding, and
    any square crop is a slice of rows (swapped back if `wide`).
    """

    rows: np.ndarray  # uint8 [sum of long sides, short_side, 3], usually a read-only memory map
    starts: np.ndarray  # int64 [n + 1]
    wide: np.ndarray  # bool [n], stored transposed
    labels: np.ndarray  # int32 [n], -1 where unknown
    names: tuple[str, ...]  # unique
    class_names: tuple[str, ...]

    @property
    def short_side(self) -> int:
        """The common short side in pixels."""
        return self.rows.shape[1]

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> np.ndarray:
        """Returns one image, uint8 `[h, w, 3]`, in its own orientation."""
        stored = self.rows[self.starts[index] : self.starts[index + 1]]
        return stored.swapaxes(0, 1) if self.wide[index] else stored

    def center_crops(self, size: int, indices: Sequence[int] | None = None) -> np.ndarray:
        """Returns the centre squares, uint8 `[n, size, size, 3]`, of all or the given images.

        The offsets are those of torchvision's CenterCrop: `round((side - size) / 2)`.

        Raises:
          ValueError: `size` is larger than the short side.
        """
        if size > self.short_side:
            raise ValueError(f"size (={size}) is larger than the short side (={self.short_side})")
        chosen = range(len(self)) if indices is None else indices
        crops = np.empty((len(chosen), size, size, 3), np.uint8)
        for crop, index in zip(crops, chosen, strict=True):
            image = self.image(index)
            top, left = (round((side - size) / 2) for side in image.shape[:2])
            crop[:] = image[top : top + size, left : left + size]
        return crops


class Listing(NamedTuple):
    """What a source holds, before anything is decoded."""

    train: list[Item]
    test: list[Item]
    class_names: tuple[str, ...]
    root: Path | None = None  # the folder that the names of `train` are relative to


class Progress(Protocol):
    """What `build` tells about its progress; `metrics.Progress` is one."""

    def update(self, done: int) -> None:
        """Says how many pictures are done."""

    def close(self, done: int) -> None:
        """Says that all are."""


def file_key(path: Path) -> str:
    """Returns the hex SHA-256 of a file, or the reason why it cannot be read.

    Sizes and times would be found faster, and believed wrongly: a file can be replaced by another
    of its size and time.
    """
    try:
        return disk.sha256_regular(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"  # opening it will give the reason


def file_keys(paths: Sequence[Path], threads: int | None = None) -> list[str]:
    """Returns the keys of files, hashed in threads."""
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        return list(pool.map(file_key, paths))


def file_item(path: Path, name: str, label: int) -> Item:
    """Returns the item of a picture file, which is not looked at yet."""
    return Item(name, partial(decode.open_file, path), label, partial(file_key, path))


def build(
    items: Sequence[Item],
    *,
    short_side: int,
    cache_dir: Path,
    label: str,
    class_names: Sequence[str] = (),
    threads: int | None = None,
    say: Callable[[str], None] = print,
    progress: Callable[[str, int], Progress] | None = None,
) -> ImageSet:
    """Decodes the items into a cache under `cache_dir`, or opens the one that is there.

    The cache's folder is named by `label` and a hash of everything that decides its content. It
    appears by one rename, so nothing that a killed build leaves is taken for a cache; processes
    that want the same cache at the same time wait for the first. Pictures that cannot be read are
    left out and reported through `say`, one line each and a count; the cache remembers them, so
    that a later run says the same.

    Args:
      items: the pictures in order, with distinct names.
      short_side: pixels.
      cache_dir: created if missing.
      label: a word for the folder, the reports and the progress, such as "train".
      class_names: what the labels mean.
      threads: decoding threads (None: one a processor).
      say: receives the reports.
      progress: receives (label, number of items), returns what is updated (None: silence).

    Raises:
      UserError: the cache is damaged.
    """
    threads = threads or os.cpu_count() or 1
    folder = cache_dir / f"{label}-{_key(items, short_side, class_names, threads)[:16]}"
    if not folder.exists():
        with locked(cache_dir / f".{folder.name}.lock"):
            if not folder.exists():
                bar = progress(f"decoding {label}", len(items)) if progress else None
                with _published(folder) as temporary, without_warnings():
                    _write(temporary, items, short_side, class_names, threads, bar)
    images, skipped = _read(folder)
    for name, reason in skipped:
        say(f"{label}: skipped {printable(name)}: {printable(reason)}")
    if skipped:
        say(f"{label}: {len(skipped)} of {len(items)} pictures cannot be read and are left out")
    return images


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock file, whose folder is created; death releases the lock."""
    # Not on Windows, where JAX itself runs under Linux (WSL2) only for accelerators.
    import fcntl

    with disk.saying(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115 - what happens under the lock is not about its file
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _published(folder: Path) -> Iterator[Path]:
    """Gives an empty folder that takes the name `folder` if the block ends well."""
    # Under the lock, a folder of this name is what a killed build left. Some shared file systems
    # lock within one host only, hence the host's name.
    temporary = folder.with_name(f".{folder.name}.{platform.node()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with disk.saying(folder):
        temporary.mkdir(mode=0o700)  # decoded photographs are nobody else's
    try:
        yield temporary
        with disk.saying(folder):
            for file in temporary.iterdir():
                file.chmod(0o600)
                _sync(file)
            disk.sync_folder(temporary)
            try:
                temporary.rename(folder)
            except OSError:
                if not folder.exists():  # else another host was faster
                    raise
            disk.sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _key(items: Sequence[Item], short_side: int, class_names: Sequence[str], threads: int) -> str:
    digest = hashlib.sha256()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda item: item.content_key, items))
    settings = [FORMAT, short_side, list(class_names)]
    for part in (settings, *([item.name, item.label, item.content_key] for item in items)):
        digest.update(json.dumps(part).encode())
    return digest.hexdigest()


def _write(
    folder: Path,
    items: Sequence[Item],
    short_side: int,
    class_names: Sequence[str],
    threads: int,
    progress: Progress | None,
) -> None:
    kept: list[Item] = []
    sides: list[int] = []
    wide: list[bool] = []
    skipped: list[tuple[str, str]] = []
    with open(folder / "rows.npy", "wb") as file:
        _write_header(file, 0, short_side)
        decoded = _decode_all(items, short_side, threads)
        for done, (item, result) in enumerate(zip(items, decoded, strict=True), start=1):
            if isinstance(result, str):
                skipped.append((item.name, result))
            else:
                kept.append(item)
                wide.append(result.shape[1] > result.shape[0])
                stored = result.swapaxes(0, 1) if wide[-1] else result
                sides.append(len(stored))
                file.write(stored.tobytes())
            if progress:
                progress.update(done)
        file.seek(0)
        _write_header(file, sum(sides), short_side)
    np.save(folder / "starts.npy", np.cumsum([0, *sides], dtype=np.int64))
    np.save(folder / "wide.npy", np.array(wide, bool))
    np.save(folder / "labels.npy", np.array([item.label for item in kept], np.int32))
    index = {
        "format": FORMAT,
        "class_names": list(class_names),
        "names": [item.name for item in kept],
        "skipped": skipped,
    }
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    if progress:
        progress.close(len(items))


def _write_header(file: BinaryIO, rows: int, short_side: int) -> None:
    # numpy leaves room for axis 0 to grow, so the final header has the length of the first.
    header = {"descr": "|u1", "fortran_order": False, "shape": (rows, short_side, 3)}
    np.lib.format.write_array_header_1_0(file, header)


def _decode_all(items: Sequence[Item], short_side: int, threads: int) -> Iterator[np.ndarray | str]:
    """Yields uint8 `[h, w, 3]`, or the reason why there is none, for each item in order."""
    waiting: collections.deque[Future[np.ndarray | str]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(load, item.name, item.open, short_side))
            if len(waiting) == 4 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(folder: Path) -> tuple[ImageSet, list[tuple[str, str]]]:
    try:
        index = json.loads((folder / "index.json").read_text())
        rows = np.load(folder / "rows.npy", mmap_mode="r")
        starts, wide, labels = (np.load(folder / f"{x}.npy") for x in ("starts", "wide", "labels"))
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{folder} is damaged ({error}): delete it and run again") from error
    names = tuple(index["names"])
    images = ImageSet(rows, starts, wide, labels, names, tuple(index["class_names"]))
    return images, [tuple(pair) for pair in index["skipped"]]
