"""How far a protected image is from its source, as numbers and as people see it, in numpy.

Extremes and PSNR of all pixels; SSIM, SSIM of the luminance alone and CIEDE2000, for which eyes
were asked, of a part of large pictures. Colours are taken for sRGB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ucjax.data.rows import Rows
from ucjax.files.color_difference import ciede2000

# The window of Wang et al. 2004 ("Image quality assessment: from error visibility to structural
# similarity"): Gaussian of sigma 1.5, cut at 11 taps.
_RADIUS = 5
_TAPS = 2 * _RADIUS + 1
_GAUSSIAN = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / 1.5) ** 2)
_WEIGHTS = (_GAUSSIAN / _GAUSSIAN.sum()).astype(np.float32)
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
# Tiles fit into a core's cache and bound the memory that a large photograph takes.
_TILE_ROWS, _TILE_COLUMNS = 32, 128
# Of larger pictures a part is measured, in tiles spread evenly: a photograph of 12 million pixels
# would take longer to measure than to write, and the mean over so many hardly moves.
_MEASURED_PIXELS = 2**18
# Of pictures with more windows than these every fifth is taken down and across: they overlap by
# more than half, and 5 shares no factor with the blocks of codecs.
_EVERY_WINDOW, _WINDOW_STRIDE = 2**15, 5
# Of these so many are drawn: the mean of CIEDE2000 is then within 0.03 of that of all.
_MEASURED_COLORS = 2**13
# Rec. 601, as JPEG has it.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
# People see photographs reduced to a screen. Tiles of that are measured, so many pixels in all.
_SCREEN_SIDE, _SCREEN_TILE, _SCREEN_PIXELS = 1080, 128, 2**17


# What people see, of `Fidelity`, and whether more of it is worse.
SEEN = {
    "ssim_luma": False,
    "delta_e_mean": True,
    "delta_e_p95": True,
    "ssim_luma_screen": False,
    "delta_e_mean_screen": True,
    "delta_e_p95_screen": True,
}


class Fidelity(NamedTuple):
    """Differences between two 8-bit images, in pixel levels (1/255) where the name says so."""

    max_delta_255: int
    mean_abs_delta_255: float
    rms_delta_255: float
    psnr: float  # dB, infinite for equal images
    ssim: float
    ssim_luma: float
    delta_e_mean: float  # CIEDE2000
    delta_e_p95: float
    # The same of the pictures reduced to a short side of 1080 pixels, if theirs is longer.
    ssim_luma_screen: float
    delta_e_mean_screen: float
    delta_e_p95_screen: float


def compare(clean: Rows, protected: Rows) -> Fidelity:
    """Measures two images, uint8 `[h, w, 3]`."""
    highest, total, squares = 0, 0, 0
    for top in range(0, clean.shape[0], _TILE_ROWS):
        x, y = clean[top : top + _TILE_ROWS], protected[top : top + _TILE_ROWS]
        delta = np.maximum(x, y) - np.minimum(x, y)
        top_delta = int(delta.max())
        highest = max(highest, top_delta)
        # Sums of 32 bits take half the time where they are large enough.
        wide = np.uint32 if top_delta**2 * delta.size < 2**32 else np.uint64
        total += int(delta.sum(dtype=wide))
        squares += int(np.square(delta, dtype=np.uint16).sum(dtype=wide))
    if not highest:
        return Fidelity(0, 0.0, 0.0, math.inf, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    values = math.prod(clean.shape)
    mean_square = squares / values
    psnr = 10 * math.log10(255**2 / mean_square)
    mean = total / values
    all_channels, luminance = _ssim(clean, protected)
    seen = (luminance, *_delta_e([clean], [protected]))
    on_screen = _on_screen(clean, protected) if min(clean.shape[:2]) > _SCREEN_SIDE else seen
    return Fidelity(highest, mean, math.sqrt(mean_square), psnr, all_channels, *seen, *on_screen)


def ssim(clean: Rows, protected: Rows) -> float:
    """Returns the structural similarity of two images, uint8 `[h, w, 3]`, mean over channels.

    As scikit-image's `structural_similarity` with `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False`. Images smaller than the window are continued by reflection; of
    those larger than 2^15 pixels every fifth window down and across is taken, and of those larger
    than 2^18 pixels about as many are measured, in tiles spread over the picture.
    """
    return _ssim(clean, protected)[0]


def _on_screen(clean: Rows, protected: Rows) -> tuple[float, float, float]:
    """Returns SSIM of luminance, mean and 95th percentile of CIEDE2000 at a screen's size."""
    scale = min(clean.shape[:2]) / _SCREEN_SIDE
    side = round(_SCREEN_TILE * scale)
    height, width = (n // side for n in clean.shape[:2])
    step = max(1, height * width * _SCREEN_TILE**2 // _SCREEN_PIXELS)
    tiles: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for row in range(height):
        for column in range(-row % step, width, step):
            rows, columns = (slice(n * side, (n + 1) * side) for n in (row, column))
            for reduced, picture in zip(tiles, (clean, protected), strict=True):
                whole = Image.fromarray(np.ascontiguousarray(picture[rows, columns]))
                size = (_SCREEN_TILE, _SCREEN_TILE)
                reduced.append(np.asarray(whole.resize(size, Image.Resampling.BILINEAR)))
    sums = [
        _ssim_sums(_luminance(x), _luminance(y), _WINDOW_STRIDE)
        for x, y in zip(*tiles, strict=True)
    ]
    mean = sum(float(total[0]) for total, _ in sums) / sum(count for _, count in sums)
    return mean, *_delta_e(*tiles)


def _delta_e(clean: Sequence[Rows], protected: Sequence[Rows]) -> tuple[float, float]:
    """Returns the mean and the 95th percentile of CIEDE2000 over the pixels of some pictures."""
    x, y = [], []
    share = _MEASURED_COLORS // len(clean)
    for one, other in zip(clean, protected, strict=True):
        height, width, _ = one.shape
        part: tuple[Any, Any] = np.s_[:, :]
        if height * width > share:
            # Not at regular distances, which a regular pattern could match.
            chosen = np.random.default_rng(0).integers(0, height * width, share)
            part = np.divmod(chosen, width)
        x.append(one[part].reshape(-1, 3))
        y.append(other[part].reshape(-1, 3))
    found = ciede2000(np.concatenate(x), np.concatenate(y))
    return float(found.mean(dtype=np.float64)), float(np.percentile(found, 95))


def _ssim(clean: Rows, protected: Rows) -> tuple[float, float]:
    """Returns SSIM, the mean over channels, and that of the luminance."""
    clean, protected = _at_least_a_window(clean), _at_least_a_window(protected)
    height, width = (side - 2 * _RADIUS for side in clean.shape[:2])
    step = max(1, height * width // _MEASURED_PIXELS)
    stride = 1 if height * width <= _EVERY_WINDOW else _WINDOW_STRIDE
    total, measured = np.zeros(4), 0
    for row, top in enumerate(range(0, height, _TILE_ROWS)):
        # Every step-th tile, along diagonals.
        first = -row % step * _TILE_COLUMNS
        for left in range(first, width, step * _TILE_COLUMNS):
            rows = slice(top, top + _TILE_ROWS + 2 * _RADIUS)
            columns = slice(left, left + _TILE_COLUMNS + 2 * _RADIUS)
            x, y = (_with_luminance(picture[rows, columns]) for picture in (clean, protected))
            sums, count = _ssim_sums(x, y, stride)
            total += sums
            measured += count
    return float(total[:3].mean()) / measured, float(total[3]) / measured


def _at_least_a_window(image: Rows) -> Rows:
    missing = [max(0, _TAPS - side) for side in image.shape[:2]]
    if not any(missing):
        return image
    return np.pad(image[:], [(0, missing[0]), (0, missing[1]), (0, 0)], "symmetric")


def _ssim_sums(x: np.ndarray, y: np.ndarray, stride: int) -> tuple[np.ndarray, int]:
    """Returns the sums of SSIM over windows inside two tiles `[h, w, c]`, and their number.

    Args:
      x: a tile.
      y: the other one.
      stride: every so many-th window down and across is taken.

    Returns:
      float64 `[c]`, and the number of windows of a channel.
    """
    height, width, channels = x.shape
    # Pixels and channels share an axis, so that both passes read contiguous memory.
    maps = np.empty((height, 4, width * channels), np.float32)
    maps[:, 0], maps[:, 1] = x.reshape(height, -1), y.reshape(height, -1)
    np.multiply(maps[:, 0], maps[:, 1], out=maps[:, 2])
    np.square(maps[:, :2]).sum(axis=1, out=maps[:, 3])
    maps = _blur(lambda tap: maps[tap : tap + height - 2 * _RADIUS : stride])
    maps = maps.reshape(len(maps), 4, width, channels)
    blurred = _blur(lambda tap: maps[:, :, tap : tap + width - 2 * _RADIUS : stride])
    mean_x, mean_y, mean_xy, mean_squares = np.moveaxis(blurred, 1, 0)
    product = mean_x * mean_y
    squares = mean_x**2 + mean_y**2
    likeness = (2 * product + _C1) * (2 * (mean_xy - product) + _C2)
    likeness /= (squares + _C1) * (mean_squares - squares + _C2)
    return likeness.sum(axis=(0, 1), dtype=np.float64), likeness.shape[0] * likeness.shape[1]


def _with_luminance(tile: np.ndarray) -> np.ndarray:
    """Returns red, green, blue and luminance, float32 `[h, w, 4]`."""
    channels = np.empty((*tile.shape[:2], 4), np.float32)
    channels[..., :3] = tile
    channels[..., 3:] = _luminance(tile)
    return channels


def _luminance(tile: np.ndarray) -> np.ndarray:
    """Returns float32 `[h, w, 1]`."""
    red, green, blue = (tile[..., c] * weight for c, weight in enumerate(_LUMINANCE))
    return (red + green + blue)[..., None]


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
