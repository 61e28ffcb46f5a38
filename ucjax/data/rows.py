"""Pictures read in parts, a few rows at a time: arrays, decoded images, and files without a name.

A photograph of 100 million pixels takes 300 MB as an array, and 400 MB as Pillow holds it. What is
done to one must not need two of these at a time, so that it is done to parts.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from ucjax.runtime import disk

# Rows that are worked on at once: they and what is made of them stay in a core's cache.
BAND = 64
# Of pictures of more bytes than these, decoded, one at a time is worked on, and in parts.
_LARGE = 75_000_000
_one_large = threading.Lock()


class Rows(Protocol):
    """Pixels, uint8 `[h, w, 3]`: an array, or what gives arrays for slices as an array does.

    Parts are `picture[rows]`, `picture[rows, columns]` for two slices, and `picture[y, x]` for two
    arrays of whole numbers.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, 3."""

    def __getitem__(self, part: Any, /) -> Any:
        """Returns the part as an array."""


P = TypeVar("P", bound=Rows)


class _Parts(ABC):
    """What reads rectangles, as `Rows`."""

    shape: tuple[int, ...]

    @abstractmethod
    def rectangle(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Returns uint8 `[bottom - top, right - left, 3]`, not empty."""

    def __getitem__(self, part: Any, /) -> np.ndarray:
        rows, columns = part if isinstance(part, tuple) else (part, slice(None))
        if not isinstance(rows, slice):
            points = zip(rows.tolist(), columns.tolist(), strict=True)
            return np.concatenate([self.rectangle(y, y + 1, x, x + 1)[0] for y, x in points])
        top, bottom, step = rows.indices(self.shape[0])
        left, right, _ = columns.indices(self.shape[1])
        if step == 1:
            return self.rectangle(top, bottom, left, right)
        single = [self.rectangle(y, y + 1, left, right) for y in range(top, bottom, step)]
        return np.concatenate(single)


# Of Pillow's turns, those that exchange left and right, top and bottom, rows and columns; the first
# two before the last.
_SIDEWAYS = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
)
_UPSIDE_DOWN = (
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_90,
    Image.Transpose.TRANSVERSE,
)
_ACROSS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)


@dataclass(frozen=True, eq=False)
class View(_Parts):
    """A decoded RGB image, to be turned: only the parts that are read are."""

    image: Image.Image
    turn: Image.Transpose | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what it shows."""
        width, height = self.image.size
        return (height, width) if self.turn in _ACROSS else (width, height)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Height, width, 3."""
        width, height = self.size
        return height, width, 3

    def whole(self) -> Image.Image:
        """Returns what it shows."""
        return self.image if self.turn is None else self.image.transpose(self.turn)

    def rectangle(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Returns uint8 `[bottom - top, right - left, 3]`, not empty."""
        width, height = self.size
        if self.turn in _SIDEWAYS:
            left, right = width - right, width - left
        if self.turn in _UPSIDE_DOWN:
            top, bottom = height - bottom, height - top
        box = (top, left, bottom, right) if self.turn in _ACROSS else (left, top, right, bottom)
        part = self.image.crop(box)
        return np.asarray(part if self.turn is None else part.transpose(self.turn))


def in_memory(view: View) -> np.ndarray:
    """Returns the pixels, uint8 `[h, w, 3]`.

    A few rows at a time: of the whole, Pillow makes two more copies.
    """
    copied = np.empty(view.shape, np.uint8)
    for top in range(0, len(copied), BAND):
        copied[top : top + BAND] = view[top : top + BAND]
    return copied


def as_decoded(view: View) -> View:
    """Returns what it is given."""
    return view


@dataclass(frozen=True, eq=False)
class Spool(_Parts):
    """Pixels in a file."""

    shape: tuple[int, ...]
    descriptor: int  # of the file, which holds nothing else
    place: Path  # to be named when it cannot be read

    def rectangle(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Returns uint8 `[bottom - top, right - left, 3]`, not empty.

        Raises:
          DiskError: the disk failed.
        """
        row = 3 * self.shape[1]
        if right - left == self.shape[1]:
            pieces = [(top * row, (bottom - top) * row)]
        else:
            pieces = [(y * row + 3 * left, 3 * (right - left)) for y in range(top, bottom)]
        with disk.saying(self.place):
            data = b"".join(os.pread(self.descriptor, size, start) for start, size in pieces)
        return np.frombuffer(data, np.uint8).reshape(bottom - top, right - left, 3)


@contextlib.contextmanager
def spooled(folder: Path | None) -> Iterator[Callable[[View], Spool]]:
    """Gives what puts a picture into a file without a name in a folder, which no kill leaves there.

    One picture: the next is written over it.

    Args:
      folder: None for the system's, of temporary files.

    Raises:
      DiskError: there is no room.
    """
    folder = folder or Path(tempfile.gettempdir())
    with disk.saying(folder):
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed below

    def spool(view: View) -> Spool:
        with disk.saying(folder):
            file.seek(0)
            for top in range(0, view.shape[0], BAND):
                rest = np.ascontiguousarray(view[top : top + BAND]).data.cast("B")
                while rest:
                    rest = rest[file.write(rest) :]
        return Spool(view.shape, file.fileno(), folder)

    with file:
        yield spool


@dataclass(frozen=True, eq=False)
class Changed(_Parts):
    """A picture changed whenever it is read, by what takes the number of the first of some rows."""

    rows: Rows
    change: Callable[[int, np.ndarray], np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Height, width, 3."""
        return self.rows.shape

    def rectangle(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Returns uint8 `[bottom - top, right - left, 3]`, not empty."""
        first = top - top % BAND
        last = min(self.shape[0], bottom + -bottom % BAND)
        band = self.change(first, self.rows[first:last])
        part = band[top - first : bottom - first, left:right]
        return part if part.shape == band.shape else part.copy()  # which keeps no band alive


def changed(rows: Rows, change: Callable[[int, np.ndarray], np.ndarray]) -> Rows:
    """Returns a changed picture: of an array at once, an array, else a few rows when they are read.

    Args:
      rows: the picture.
      change: takes the number of the first of some rows, a multiple of `BAND`, and as many times
        `BAND` rows, or all that are left, uint8 `[n, w, 3]`; returns them changed.
    """
    return change(0, rows) if isinstance(rows, np.ndarray) else Changed(rows, change)


def image_of(rows: Rows) -> Image.Image:
    """Returns a picture as Pillow holds it, 4 bytes a pixel."""
    height, width, _ = rows.shape
    image = Image.new("RGB", (width, height))
    for top in range(0, height, BAND):
        image.paste(Image.fromarray(rows[top : top + BAND]), (0, top))
    return image


def resized(rows: Rows, size: tuple[int, int]) -> np.ndarray:
    """Returns a picture in another width and height, bilinear, as Pillow's `resize` in one go.

    Pillow, too, first changes the width, and rounds.

    Returns:
      uint8 `[size[1], size[0], 3]`.
    """
    height = rows.shape[0]
    narrow = Image.new("RGB", (size[0], height))
    for top in range(0, height, BAND):
        band = Image.fromarray(rows[top : top + BAND])
        resized = band.resize((size[0], band.height), Image.Resampling.BILINEAR)
        narrow.paste(resized, (0, top))
    return np.asarray(narrow.resize(size, Image.Resampling.BILINEAR))


Hold = Callable[[View], Rows]  # a decoded picture -> its pixels, to be worked on


@contextlib.contextmanager
def one_large(decoded_bytes: int) -> Iterator[bool]:
    """Lets one large picture at a time be worked on; says whether it is one.

    Args:
      decoded_bytes: of its pixels, as an array.
    """
    if decoded_bytes <= _LARGE:
        yield False
        return
    with _one_large:
        yield True


@contextlib.contextmanager
def holding(decoded_bytes: int, folder: Path | None) -> Iterator[tuple[Hold, Hold]]:
    """Gives how to hold a picture, and then its counterpart that it is compared with.

    Both are arrays, but for large pictures: they are worked on one at a time, the first lies in a
    file in the folder, the second stays as it was decoded.

    Args:
      decoded_bytes: of the pixels, as an array.
      folder: with room for as many bytes; None for the system's, of temporary files.

    Raises:
      DiskError: there is no room.
    """
    with one_large(decoded_bytes) as large:
        if not large:
            yield in_memory, in_memory
            return
        with spooled(folder) as hold:
            yield hold, as_decoded
