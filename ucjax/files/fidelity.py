"""How far a protected image is from its source: extremes, PSNR and SSIM, in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# The window of Wang et al. 2004 ("Image quality assessment: from error visibility to structural
# similarity"): Gaussian of sigma 1.5, cut at 11 taps.
_RADIUS = 5
_TAPS = 2 * _RADIUS + 1
_GAUSSIAN = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / 1.5) ** 2)
_WEIGHTS = (_GAUSSIAN / _GAUSSIAN.sum()).astype(np.float32)
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
# Tiles fit into a core's cache and bound the memory that a large photograph takes.
_TILE_ROWS, _TILE_COLUMNS = 48, 256
# Of larger pictures a part is measured, in tiles spread evenly: a photograph of 12 million pixels
# would take longer to measure than to write, and the mean over a million hardly moves.
_MEASURED_PIXELS = 2**20


class Fidelity(NamedTuple):
    """Differences between two 8-bit images, in pixel levels (1/255) where the name says so."""

    max_delta_255: int
    mean_abs_delta_255: float
    rms_delta_255: float
    psnr: float  # dB, infinite for equal images
    ssim: float


def compare(clean: np.ndarray, protected: np.ndarray) -> Fidelity:
    """Measures two images, uint8 `[h, w, 3]`."""
    highest, total, squares = 0, 0, 0
    for top in range(0, len(clean), _TILE_ROWS):
        x, y = clean[top : top + _TILE_ROWS], protected[top : top + _TILE_ROWS]
        delta = np.maximum(x, y) - np.minimum(x, y)
        highest = max(highest, int(delta.max()))
        total += int(delta.sum(dtype=np.uint64))
        squares += int(np.square(delta, dtype=np.uint16).sum(dtype=np.uint64))
    if not highest:
        return Fidelity(0, 0.0, 0.0, math.inf, 1.0)
    mean_square = squares / clean.size
    psnr = 10 * math.log10(255**2 / mean_square)
    mean = total / clean.size
    return Fidelity(highest, mean, math.sqrt(mean_square), psnr, ssim(clean, protected))


def ssim(clean: np.ndarray, protected: np.ndarray) -> float:
    """Returns the structural similarity of two images, uint8 `[h, w, 3]`, mean over channels.

    As scikit-image's `structural_similarity` with `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False`. Images smaller than the window are continued by reflection; of
    those larger than 2^20 pixels about as many are measured, in tiles spread over the picture.
    """
    clean, protected = _at_least_a_window(clean), _at_least_a_window(protected)
    height, width = (side - 2 * _RADIUS for side in clean.shape[:2])
    step = max(1, height * width // _MEASURED_PIXELS)
    total, measured = 0.0, 0
    for row, top in enumerate(range(0, height, _TILE_ROWS)):
        # Every step-th tile, along diagonals.
        first = -row % step * _TILE_COLUMNS
        for left in range(first, width, step * _TILE_COLUMNS):
            rows = slice(top, top + _TILE_ROWS + 2 * _RADIUS)
            columns = slice(left, left + _TILE_COLUMNS + 2 * _RADIUS)
            total += _ssim_sum(clean[rows, columns], protected[rows, columns])
            measured += min(_TILE_ROWS, height - top) * min(_TILE_COLUMNS, width - left)
    return total / (measured * 3)


def _at_least_a_window(image: np.ndarray) -> np.ndarray:
    missing = [max(0, _TAPS - side) for side in image.shape[:2]]
    if not any(missing):
        return image
    return np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], "symmetric")


def _ssim_sum(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the sum of SSIM over all windows inside two tiles `[h, w, 3]`."""
    height, width, channels = x.shape
    inside = (width - 2 * _RADIUS) * channels
    # Pixels and channels share an axis, so that both passes read contiguous memory.
    maps = np.empty((height, 4, width * channels), np.float32)
    maps[:, 0], maps[:, 1] = x.reshape(height, -1), y.reshape(height, -1)
    np.multiply(maps[:, 0], maps[:, 1], out=maps[:, 2])
    np.square(maps[:, :2]).sum(axis=1, out=maps[:, 3])
    maps = _blur(lambda tap: maps[tap : tap + height - 2 * _RADIUS])
    blurred = _blur(lambda tap: maps[..., tap * channels :][..., :inside])
    mean_x, mean_y, mean_xy, mean_squares = np.moveaxis(blurred, 1, 0)
    product = mean_x * mean_y
    squares = mean_x**2 + mean_y**2
    likeness = (2 * product + _C1) * (2 * (mean_xy - product) + _C2)
    likeness /= (squares + _C1) * (mean_squares - squares + _C2)
    return float(likeness.sum(dtype=np.float64))


def _blur(shifted: Callable[[int], np.ndarray]) -> np.ndarray:
    """Sums the `_TAPS` shifted views by their weights, using the window's symmetry."""
    # Products with a band matrix would call the BLAS, whose own threads fight with the caller's.
    total = shifted(_RADIUS) * _WEIGHTS[_RADIUS]
    pair = np.empty_like(total)
    for tap in range(_RADIUS):
        np.add(shifted(tap), shifted(_TAPS - 1 - tap), out=pair)
        pair *= _WEIGHTS[tap]
        total += pair
    return total
