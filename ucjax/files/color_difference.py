"""How different two colours look: CIEDE2000, in numpy.

Sharma, Wu and Dalal 2005, "The CIEDE2000 color-difference formula". About 1 is just seen between
two patches side by side. Hue angles are never computed but one: sums of unit vectors and formulas
for multiple angles take their place.
"""

from __future__ import annotations

import math

import numpy as np

# sRGB (IEC 61966-2-1) to XYZ, over the white point D65 of the 2 degree observer.
_TO_XYZ = np.array(
    [[0.412453, 0.35758, 0.180423], [0.212671, 0.71516, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_TO_XYZ_OVER_WHITE = (_TO_XYZ / np.array([[0.95047], [1.0], [1.08883]])).astype(np.float32)
_LEVELS = np.arange(256) / 255
_LINEAR = np.where(_LEVELS > 0.04045, ((_LEVELS + 0.055) / 1.055) ** 2.4, _LEVELS / 12.92).astype(
    np.float32
)
_CHUNK = 2**13  # colours at once: what is made of them stays in a core's cache
_25_TO_7 = np.float32(25.0**7)


def ciede2000(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the difference of each pair of sRGB colours, uint8 `[n, 3]`: float32 `[n]`."""
    starts = range(0, len(first), _CHUNK)
    parts = [of_lab(_lab(first[i : i + _CHUNK]), _lab(second[i : i + _CHUNK])) for i in starts]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def of_lab(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the difference of each pair of colours in CIELAB, `[3, n]`: `[n]`."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    stretch = 1.5 - 0.5 * _saturation((_length(a1, b1) + _length(a2, b2)) / 2)
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = _length(a1, b1), _length(a2, b2)
    lightness, chroma = (l1 + l2) / 2 - 50, (c1 + c2) / 2
    hue = _hue_difference(c1 * c2, a1 * a2 + b1 * b2, a1 * b2 - a2 * b1)
    cos, sin = _mean_direction(a1, b1, c1, a2, b2, c2)
    weight, turn = _of_hue(cos, sin)
    square = np.square(lightness)
    dl = (l2 - l1) / (1 + 0.015 * square / np.sqrt(20 + square))
    dc = (c2 - c1) / (1 + 0.045 * chroma)
    dh = hue / (1 + 0.015 * chroma * weight)
    total = dl**2 + dc**2 + dh**2 - 2 * turn * _saturation(chroma) * dc * dh
    return np.sqrt(np.maximum(total, 0))


def _lab(colors: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB, float32 `[3, n]`."""
    linear = np.ascontiguousarray(_LINEAR[colors].T)
    # Not as a matrix product: it would call the BLAS, whose own threads fight with the caller's.
    xyz = np.stack(
        [sum(w * c for w, c in zip(row, linear, strict=True)) for row in _TO_XYZ_OVER_WHITE]
    )
    # The cube root by exponentials, which numpy takes a quarter of the time for.
    root = np.exp(np.log(np.maximum(xyz, np.float32(1e-3))) * np.float32(1 / 3))
    x, y, z = np.where(xyz > 0.008856, root, np.float32(7.787) * xyz + np.float32(16 / 116))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _length(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(a * a + b * b)


def _saturation(chroma: np.ndarray) -> np.ndarray:
    cube = chroma * chroma * chroma
    seventh = cube * cube * chroma
    return np.sqrt(seventh / (seventh + _25_TO_7))


def _hue_difference(product: np.ndarray, dot: np.ndarray, cross: np.ndarray) -> np.ndarray:
    """Returns 2 sqrt(c1 c2) sin(dh / 2), of two vectors' lengths, dot and cross product."""
    with np.errstate(invalid="ignore", divide="ignore"):
        near = cross / np.sqrt((product + dot) / 2)
    # Each form loses its digits where the other keeps them.
    far = np.copysign(np.sqrt(np.maximum(2 * (product - dot), 0)), cross)
    return np.where(dot > 0, near, far)


def _mean_direction(
    a1: np.ndarray, b1: np.ndarray, c1: np.ndarray, a2: np.ndarray, b2: np.ndarray, c2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of the angle half-way between two hues."""
    # Weighted by the other's chroma, both have one length.
    a, b = a1 * c2 + a2 * c1, b1 * c2 + b2 * c1
    length = np.maximum(_length(a, b), np.float32(1e-20))
    return a / length, b / length


def _of_hue(cos: np.ndarray, sin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hue's weight T, and the sine of the rotation of hue and chroma in the blue."""
    cos2, sin2 = cos * cos - sin * sin, 2 * cos * sin
    cos3, sin3 = cos2 * cos - sin2 * sin, sin2 * cos + cos2 * sin
    cos4, sin4 = cos2 * cos2 - sin2 * sin2, 2 * cos2 * sin2

    def shifted(cosine: np.ndarray, sine: np.ndarray, degrees: float) -> np.ndarray:
        """Returns cos(angle - degrees)."""
        radians = math.radians(degrees)
        return math.cos(radians) * cosine + math.sin(radians) * sine

    weight = 1 - 0.17 * shifted(cos, sin, 30) + 0.24 * cos2
    weight += 0.32 * shifted(cos3, sin3, -6) - 0.2 * shifted(cos4, sin4, 63)
    blue = math.radians(275)
    away = np.arctan2(
        math.cos(blue) * sin - math.sin(blue) * cos, math.cos(blue) * cos + math.sin(blue) * sin
    )
    return weight, np.sin(math.radians(60) * np.exp(-np.square(away / math.radians(25))))
