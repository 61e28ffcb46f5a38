"""Where in a picture another one comes from that was cut out of it and resized, in numpy.

Found on luminance: first by correlating a small copy in some sizes with a small copy of the whole,
then by moving the four edges until both agree (Gauss-Newton, as Lucas and Kanade 1981).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

# Long sides in pixels at which edges are searched and then moved. A tenth of a pixel of the last
# is 1/50 of the period of a wave of 1/75 of the side.
_COARSE, _FINE = 64, 384
# Searched are pieces from the largest that fits down to this share of its sides.
_SMALLEST_PIECE, _STEP = 0.55, 0.96
_ITERATIONS, _SETTLED = 12, 1e-7
# Correlations are not looked for in pieces that are flatter than this many levels.
_FLAT = 0.5


class Place(NamedTuple):
    """A piece of a picture: its edges as shares of width and height, and how alike it is."""

    left: float
    top: float
    right: float
    bottom: float
    likeness: float  # correlation of luminance, at most 1

    def box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Returns the edges in pixels of a picture of this width and height."""
        width, height = size
        return self.left * width, self.top * height, self.right * width, self.bottom * height


def luminance(picture: np.ndarray, longest: int = _FINE) -> Image.Image:
    """Returns a picture, uint8 `[h, w, 3]`, in grey floats with no side over `longest` pixels."""
    image = Image.fromarray(picture).convert("L")
    return _reduced(image, longest / max(image.size)).convert("F")


def locate(piece: np.ndarray, picture: np.ndarray) -> Place:
    """Returns the part of `picture` that `piece` shows, both uint8 `[h, w, 3]` of any sizes.

    The piece may be as large as the picture or be cut down to about half of its sides, and
    resized with at most a few percent between width and height; it is not turned or mirrored.
    """
    shown = luminance(piece)
    # Large enough for a piece of it to have as many pixels as `shown`.
    whole = luminance(picture, math.ceil(_FINE / _SMALLEST_PIECE))
    place = _searched(shown, whole)
    for longest in (_COARSE, _FINE):
        place = _moved(_reduced(shown, longest / max(shown.size)), whole, place)
    return place


def _reduced(image: Image.Image, scale: float) -> Image.Image:
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _searched(shown: Image.Image, whole: Image.Image) -> Place:
    """Returns the best of many places, to about a pixel of a small copy."""
    small = _reduced(whole, _COARSE / max(whole.size))
    values = np.asarray(small, np.float64)
    height, width = values.shape
    fitting = min(width / shown.width, height / shown.height)
    best = Place(0.0, 0.0, 1.0, 1.0, -1.0)
    scale = fitting
    while scale >= _SMALLEST_PIECE * fitting:
        size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
        piece = np.asarray(shown.resize(size, Image.Resampling.BICUBIC), np.float64)
        likeness = _correlations(values, piece)
        top, left = divmod(int(likeness.argmax()), likeness.shape[1])
        if (highest := float(likeness[top, left])) > best.likeness:
            right, bottom = left + size[0], top + size[1]
            best = Place(left / width, top / height, right / width, bottom / height, highest)
        scale *= _STEP
    return best


def _correlations(picture: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """Returns the correlation of `piece` with every part of `picture` of its size."""
    height, width = piece.shape
    shape = tuple(a + b for a, b in zip(picture.shape, piece.shape, strict=True))
    centred = piece - piece.mean()
    spectrum = np.fft.rfft2(picture, shape) * np.conj(np.fft.rfft2(centred, shape))
    rows, columns = picture.shape[0] - height + 1, picture.shape[1] - width + 1
    products = np.fft.irfft2(spectrum, shape)[:rows, :columns]
    mean, square = (_window_means(x, height, width) for x in (picture, np.square(picture)))
    deviation = np.sqrt(np.maximum(square - np.square(mean), 0))
    spread = piece.std()
    norm = piece.size * spread * deviation
    certain = (deviation > _FLAT) & (spread > _FLAT)
    return np.where(certain, products / np.where(certain, norm, 1), 0.0)


def _window_means(values: np.ndarray, height: int, width: int) -> np.ndarray:
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    below, above = sums[height:], sums[:-height]
    inside = below[:, width:] - below[:, :-width] - above[:, width:] + above[:, :-width]
    return inside / (height * width)


def _moved(shown: Image.Image, whole: Image.Image, place: Place) -> Place:
    """Returns the place with its edges moved to where both agree best."""
    target = np.asarray(shown, np.float64)
    best = place._replace(likeness=_likeness(target, _cut(whole, place, shown.size)))
    for _ in range(_ITERATIONS):
        step = _step(target, _cut(whole, best, shown.size))
        sides = (best.right - best.left, best.bottom - best.top)
        left, right = (float(x) * sides[0] / shown.width for x in step[:2])
        top, bottom = (float(x) * sides[1] / shown.height for x in step[2:])
        moved = Place(
            max(0.0, best.left + left),
            max(0.0, best.top + top),
            min(1.0, best.right + right),
            min(1.0, best.bottom + bottom),
            -1.0,
        )
        if 2 * (moved.right - moved.left) < sides[0] or 2 * (moved.bottom - moved.top) < sides[1]:
            break
        moved = moved._replace(likeness=_likeness(target, _cut(whole, moved, shown.size)))
        gain = moved.likeness - best.likeness
        best = moved if gain > 0 else best
        if gain < _SETTLED:
            break
    return best


def _cut(whole: Image.Image, place: Place, size: tuple[int, int]) -> np.ndarray:
    cut = whole.resize(size, Image.Resampling.BICUBIC, place.box(whole.size))
    return np.asarray(cut, np.float64)


def _step(target: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Returns how far left, right, top and bottom edge are to be moved, in pixels of `found`."""
    height, width = found.shape
    if min(height, width) < 3:
        return np.zeros(4)
    down, across = np.gradient(found)
    x, y = ((np.arange(n) + 0.5) / n for n in (width, height))
    columns = (across * (1 - x), across * x, down * (1 - y[:, None]), down * y[:, None])
    # Brightness and contrast may have changed as well.
    matrix = np.stack([*(c.ravel() for c in columns), found.ravel(), np.ones(found.size)], axis=1)
    normal = matrix.T @ matrix
    # Where a picture is flat along an axis nothing tells its edges: they then stay.
    damping = np.diag([1e-3 * found.size * _FLAT] * 4 + [1e-9, 1e-9])
    gap = (target - found).ravel()
    step = np.linalg.solve(normal + damping, matrix.T @ gap)[:4]
    return step.clip(-width / 8, width / 8)


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    norm = math.sqrt(float(np.square(one).sum() * np.square(other).sum()))
    return float((one * other).sum()) / norm if norm > one.size * _FLAT**2 else 0.0
