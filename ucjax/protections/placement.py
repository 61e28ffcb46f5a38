"""Noise onto pixels: placed at an image's own size, held to the budget, rounded to 8 bits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

# Rows of a picture that are worked on at once: small enough for a core's cache, and the memory
# that a huge photograph takes stays near that of its own pixels.
_BAND = 64


def place(
    pixels: np.ndarray, noise: np.ndarray, resized: tuple[int, int], epsilon_255: int, norm: str
) -> np.ndarray:
    """Returns a picture of any size plus noise that was learnt on resized centre crops.

    Args:
      pixels: uint8 `[h, w, 3]`.
      noise: float32 `[s, s, 3]`, pixels of [0, 1].
      resized: height and width that the picture is resized to before its centre is cropped.
      epsilon_255: the budget, which interpolation would exceed.
      norm: "linf": clips; "rms": scales.

    Returns:
      uint8 `[h, w, 3]`.
    """
    size = pixels.shape[:2]
    bands = [slice(top, min(top + _BAND, size[0])) for top in range(0, size[0], _BAND)]
    eps = np.float32(epsilon_255 / 255)
    scale = np.float32(1)
    if norm == "rms":
        squares = (
            np.square(b).sum(dtype=np.float64) for b in enlarged(noise, resized, size, bands)
        )
        rms = math.sqrt(sum(squares) / pixels.size)
        scale = np.float32(min(1.0, float(eps) / rms)) if rms else scale
    placed = np.empty_like(pixels)
    for rows, band in zip(bands, enlarged(noise, resized, size, bands), strict=True):
        bounded = band.clip(-eps, eps) if norm == "linf" else band * scale
        placed[rows] = add(pixels[rows], bounded)
    return placed


def enlarged(
    noise: np.ndarray,
    resized: tuple[int, int],
    size: tuple[int, int],
    bands: Sequence[slice],
) -> Iterator[np.ndarray]:
    """Yields noise placed so that it reappears in the centre crop of the resized picture.

    Around the square that the crop will see, the noise continues by reflection: a victim may
    crop anywhere.

    Args:
      noise: float32 `[s, s, 3]`.
      resized: height and width that the picture is resized to before its centre s x s is cropped.
      size: height and width of the picture itself.
      bands: which of its rows.

    Yields:
      float32 `[rows, width, 3]`, interpolated bicubically.
    """
    before = [round((side - len(noise)) / 2) for side in resized]
    padding = [(b, side - len(noise) - b) for b, side in zip(before, resized, strict=True)]
    canvas = np.pad(noise, [*padding, (0, 0)], "symmetric")
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(canvas, 2, 0)]
    height, width = size
    for rows in bands:
        box = (0, rows.start * resized[0] / height, resized[1], rows.stop * resized[0] / height)
        shape = (width, rows.stop - rows.start)
        resized_planes = (p.resize(shape, Image.Resampling.BICUBIC, box) for p in planes)
        yield np.stack([np.asarray(plane) for plane in resized_planes], axis=-1)


def add(pixels: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Returns `pixels` + `noise` as uint8 `[h, w, 3]`; noise is in pixels of [0, 1]."""
    # Rounding keeps a whole-numbered budget exactly; truncation would exceed it downwards by one.
    return np.rint(pixels + np.float32(255) * noise).clip(0, 255).astype(np.uint8)
