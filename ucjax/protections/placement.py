"""Noise onto pixels: placed at an image's own size, held to the budget, rounded to 8 bits."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from ucjax.data.rows import BAND


def placed(
    noise: np.ndarray,
    resized: tuple[int, int],
    size: tuple[int, int],
    epsilon_255: int,
    norm: str,
) -> Callable[[int, np.ndarray], np.ndarray]:
    """Returns what puts noise that was learnt on resized centre crops on a picture of any size.

    Args:
      noise: float32 `[s, s, 3]`, pixels of [0, 1].
      resized: height and width that the picture is resized to before its centre is cropped.
      size: height and width of the picture.
      epsilon_255: the budget, which interpolation would exceed.
      norm: "linf": clips; "rms": scales.

    Returns:
      What `data.rows.changed` needs.
    """
    enlarge = enlarged(noise, resized, size)
    eps = np.float32(epsilon_255 / 255)
    scale = np.float32(1)
    if norm == "rms":
        squares = (np.square(enlarge(b)).sum(dtype=np.float64) for b in _bands(0, size[0]))
        rms = math.sqrt(sum(squares) / (size[0] * size[1] * 3))
        scale = np.float32(min(1.0, float(eps) / rms)) if rms else scale

    def put(first: int, pixels: np.ndarray) -> np.ndarray:
        noisy = np.empty_like(pixels)
        for rows in _bands(first, first + len(pixels)):
            band = enlarge(rows)
            bounded = band.clip(-eps, eps) if norm == "linf" else band * scale
            here = slice(rows.start - first, rows.stop - first)
            noisy[here] = add(pixels[here], bounded)
        return noisy

    return put


def _bands(first: int, last: int) -> list[slice]:
    return [slice(top, min(top + BAND, last)) for top in range(first, last, BAND)]


def enlarged(
    noise: np.ndarray, resized: tuple[int, int], size: tuple[int, int]
) -> Callable[[slice], np.ndarray]:
    """Returns rows of noise placed so that it reappears in the centre crop of the resized picture.

    Around the square that the crop will see, the noise continues by reflection: a victim may
    crop anywhere.

    Args:
      noise: float32 `[s, s, 3]`.
      resized: height and width that the picture is resized to before its centre s x s is cropped.
      size: height and width of the picture itself.

    Returns:
      Rows of the picture -> float32 `[rows, width, 3]`, interpolated bicubically.
    """
    before = [round((side - len(noise)) / 2) for side in resized]
    padding = [(b, side - len(noise) - b) for b, side in zip(before, resized, strict=True)]
    canvas = np.pad(noise, [*padding, (0, 0)], "symmetric")
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(canvas, 2, 0)]
    height, width = size

    def enlarge(rows: slice) -> np.ndarray:
        box = (0, rows.start * resized[0] / height, resized[1], rows.stop * resized[0] / height)
        shape = (width, rows.stop - rows.start)
        resized_planes = (p.resize(shape, Image.Resampling.BICUBIC, box) for p in planes)
        return np.stack([np.asarray(plane) for plane in resized_planes], axis=-1)

    return enlarge


def add(pixels: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Returns `pixels` + `noise` as uint8 `[h, w, 3]`; noise is in pixels of [0, 1]."""
    # Rounding keeps a whole-numbered budget exactly; truncation would exceed it downwards by one.
    return np.rint(pixels + np.float32(255) * noise).clip(0, 255).astype(np.uint8)
