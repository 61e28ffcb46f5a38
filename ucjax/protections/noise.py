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

from ucjax.data import decode
from ucjax.protections.placement import add, place


class Patterns(Protocol):
    """Noise images that can be put on pictures of any size; called from threads."""

    def add(self, row: int, pixels: np.ndarray, *, whole: bool) -> np.ndarray:
        """Returns a picture plus pattern `row`, uint8 `[h, w, 3]` like `pixels`.

        Args:
          row: which pattern.
          pixels: the picture, upright.
          whole: True for a picture at its own size; False for the centre crop of one that was
            resized to the protection's short side.

        Raises:
          ValueError: the shape of `pixels` does not fit.
        """

    def sha256(self, row: int) -> str:
        """Returns the hex SHA-256 of what decides pattern `row`."""


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

    def add(self, index: int, pixels: np.ndarray, *, whole: bool) -> np.ndarray:
        """Returns image `index`, uint8 `[h, w, 3]`, with its noise."""
        return self.patterns.add(int(self.row[index]), pixels, whole=whole)

    def sha256(self, index: int) -> str:
        """Returns the hex SHA-256 of the noise of image `index`."""
        return self.patterns.sha256(int(self.row[index]))

    def cluster(self, index: int) -> int | None:
        """Returns the cluster of image `index`, if it has one."""
        return None if self.clusters is None else int(self.clusters[index])


class Nothing:
    """The pattern of clean files."""

    def add(self, row: int, pixels: np.ndarray, *, whole: bool) -> np.ndarray:
        """Returns `pixels`."""
        return pixels

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

    def add(self, row: int, pixels: np.ndarray, *, whole: bool) -> np.ndarray:
        """Returns the picture plus the pattern, on whole pictures enlarged to fit its centre."""
        noise = self._pattern(row)
        if not whole:
            if pixels.shape != noise.shape:
                raise ValueError(f"the crop is {pixels.shape}, its noise {noise.shape}")
            return add(pixels, noise)
        height, width, _ = pixels.shape
        across, down = decode.resized((width, height), self.short_side)
        return place(pixels, noise, (down, across), self.epsilon_255, self.norm)

    def sha256(self, row: int) -> str:
        """Returns the hash of the pattern's float32 values."""
        return hashlib.sha256(np.ascontiguousarray(self._pattern(row)).data).hexdigest()

    def _pattern(self, row: int) -> np.ndarray:
        noise = self.of(row)
        if noise.shape != (self.crop, self.crop, 3):
            raise ValueError(f"noise is {noise.shape}, but crop is {self.crop}")
        return noise
