"""The noise of a set of images, as every protection gives it and as files are written with it.

A noise is a set of patterns and the row of the pattern that each image gets. Patterns of clusters
can serve other images later, which makes a protector of them; those of single images cannot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ucjax.data import decode, rows
from ucjax.data.rows import Rows
from ucjax.protections.placement import add, placed


class Patterns(Protocol):
    """Noise images that can be put on pictures of any size; called from threads."""

    def add(self, row: int, pixels: np.ndarray) -> np.ndarray:
        """Returns a centre crop plus pattern `row`, uint8 `[h, w, 3]` like `pixels`.

        Args:
          row: which pattern.
          pixels: the centre of a picture that was resized to the protection's short side.

        Raises:
          ValueError: the shape of `pixels` does not fit.
        """

    def on(self, row: int, size: tuple[int, int]) -> Callable[[int, np.ndarray], np.ndarray]:
        """Returns what puts pattern `row` on a whole picture, as `data.rows.changed` needs it.

        Args:
          row: which pattern.
          size: height and width of the picture, upright, at its own size.
        """

    def sha256(self, row: int) -> str:
        """Returns the hex SHA-256 of what decides pattern `row`."""


def on_whole(patterns: Patterns, row: int, pixels: Rows) -> Rows:
    """Returns a whole picture plus a pattern: an array of an array, else `data.rows.Changed`."""
    height, width, _ = pixels.shape
    return rows.changed(pixels, patterns.on(row, (height, width)))


@dataclass(frozen=True, eq=False)
class Noise:
    """Which pattern each image gets.

    Attributes:
      patterns: one per cluster, or one per image.
      row: int32 `[n]`, the pattern of each image.
      epsilon_255: the budget that every written file is held to; 0 changes nothing.
      norm: "linf" or "rms".
      clusters: int32 `[n]`, the cluster of each image, None where it has none. Where rows are
        clusters, the patterns can serve other images.
      image_passes: how often an image went through a network, forward and backward, to make it.
    """

    patterns: Patterns
    row: np.ndarray
    epsilon_255: int
    norm: str = "linf"
    clusters: np.ndarray | None = None
    image_passes: int = 0

    def add(self, index: int, pixels: Rows, *, whole: bool) -> Rows:
        """Returns image `index`, uint8 `[h, w, 3]`, with its noise; an array of an array."""
        row = int(self.row[index])
        if whole:
            return on_whole(self.patterns, row, pixels)
        return self.patterns.add(row, pixels[:])

    def sha256(self, index: int) -> str:
        """Returns the hex SHA-256 of the noise of image `index`."""
        return self.patterns.sha256(int(self.row[index]))

    def cluster(self, index: int) -> int | None:
        """Returns the cluster of image `index`, if it has one."""
        return None if self.clusters is None else int(self.clusters[index])


class Nothing:
    """The pattern of clean files."""

    def add(self, row: int, pixels: np.ndarray) -> np.ndarray:
        """Returns `pixels`."""
        return pixels

    def on(self, row: int, size: tuple[int, int]) -> Callable[[int, np.ndarray], np.ndarray]:
        """Returns what changes nothing."""
        return lambda first, pixels: pixels

    def sha256(self, row: int) -> str:
        """Returns the hash of no bytes."""
        return hashlib.sha256().hexdigest()


@dataclass(frozen=True, eq=False)
class Pixels:
    """Patterns given as pixels, made on centre crops of images resized to `short_side`.

    Attributes:
      of: row -> float32 `[crop, crop, 3]`, pixels of [0, 1]; called from threads.
      crop: side of a pattern.
      short_side: pixels to which images were resized before their centre was cropped.
      epsilon_255: the budget, which enlarging could exceed.
      norm: "linf" or "rms".
    """

    of: Callable[[int], np.ndarray]
    crop: int
    short_side: int
    epsilon_255: int
    norm: str = "linf"

    def add(self, row: int, pixels: np.ndarray) -> np.ndarray:
        """Returns the crop plus the pattern."""
        noise = self._pattern(row)
        if pixels.shape != noise.shape:
            raise ValueError(f"the crop is {pixels.shape}, its noise {noise.shape}")
        return add(pixels, noise)

    def on(self, row: int, size: tuple[int, int]) -> Callable[[int, np.ndarray], np.ndarray]:
        """Returns what puts the pattern, enlarged to fit its centre, on a picture in parts."""
        height, width = size
        across, down = decode.resized((width, height), self.short_side)
        noise = self._pattern(row)
        return placed(noise, (down, across), size, self.epsilon_255, self.norm)

    def sha256(self, row: int) -> str:
        """Returns the hash of the pattern's float32 values."""
        return hashlib.sha256(np.ascontiguousarray(self._pattern(row)).data).hexdigest()

    def _pattern(self, row: int) -> np.ndarray:
        noise = self.of(row)
        if noise.shape != (self.crop, self.crop, 3):
            raise ValueError(f"noise is {noise.shape}, but crop is {self.crop}")
        return noise
