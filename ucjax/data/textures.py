"""A synthetic image collection: ten families of procedural colour textures.

No photograph is in it. It stands in where no real images are at hand (the quick start, tests,
scaling benchmarks), and results on it say little about photographs. What tells the families
apart is structure only: scale, rotation, phase, distortion, colours and lighting are drawn from
the same distributions for all, so that a linear model on pixels fails.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from ucjax.data import images

_VERSION = 3  # to be raised with any change of the pixels: cached copies are keyed by it
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class _Plane(NamedTuple):
    """The picture's plane in periods of the texture: random scale, rotation, phase, distortion."""

    x: np.ndarray  # float32 [size, size]
    y: np.ndarray  # float32 [size, size]
    pixel: float  # width of a pixel
    rng: np.random.Generator  # for what else the family draws


def items(split: str, count: int, size: int, seed: int) -> list[images.Item]:
    """Lists `count` textures of `size` x `size` pixels, spread evenly over `FAMILIES`.

    They are drawn when opened. Texture i of a family depends on `(seed, split, family, i)` only:
    a larger `count` adds to the same textures.

    Args:
      split: any word; "train" and "test" give different textures.
      count: number of textures of all families together.
      size: side in pixels.
      seed: non-negative.

    Returns:
      Items in the order of their names, `family/0001.png`, labelled by index in `FAMILIES`.
    """
    listed = []
    for label, family in enumerate(FAMILIES):
        for index in range(len(range(label, count, len(FAMILIES)))):
            listed.append(
                images.Item(
                    name=f"{family}/{index + 1:04d}.png",
                    open=functools.partial(_draw, family, size, seed, split, index),
                    label=label,
                    key=f"textures-{_VERSION}/{seed}/{split}/{family}/{index}/{size}",
                )
            )
    return sorted(listed, key=lambda item: item.name)


def _draw(family: str, size: int, seed: int, split: str, index: int) -> Image.Image:
    words = (seed, zlib.crc32(split.encode()), zlib.crc32(family.encode()), index)
    structure_rng, color_rng = np.random.default_rng(words).spawn(2)
    field = np.clip(_DRAWERS[family](_plane(size, structure_rng)), 0, 1)
    return Image.fromarray(_color(field, color_rng))


def _plane(size: int, rng: np.random.Generator) -> _Plane:
    periods = math.exp(rng.uniform(math.log(4), math.log(6)))
    side = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    u, v = side[None, :] * periods, side[:, None] * periods
    angle, shift = rng.uniform(0, 2 * math.pi), rng.uniform(0, 64, 2).astype(np.float32)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = u * cos - v * sin + shift[0], u * sin + v * cos + shift[1]
    bend = rng.uniform(0, 0.25)
    return _Plane(
        x + bend * (_noise(rng, x * 0.5, y * 0.5) - 0.5),
        y + bend * (_noise(rng, x * 0.5, y * 0.5) - 0.5),
        periods / size,
        rng,
    )


def _color(field: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paints a field `[n, n]` in [0, 1] with random colours and light: uint8 `[n, n, 3]`."""
    low, high = _palette(rng)
    picture = low + (high - low) * field[..., None]
    picture **= math.exp(rng.uniform(-0.35, 0.35))
    size = len(field)
    side = np.linspace(-1, 1, size, dtype=np.float32)
    light = rng.uniform(-0.25, 0.25, 2).astype(np.float32)
    picture *= (1 + light[0] * side[None, :] + light[1] * side[:, None])[..., None]
    picture = _blur(picture, rng.uniform(0, 0.3))
    # Haze: noise within a usual budget then matters beside the texture, as it does in photographs.
    picture = 0.5 + rng.uniform(0.25, 0.4) * (picture - 0.5)
    grain = rng.uniform(0, 0.015)
    picture += grain * rng.standard_normal(picture.shape, np.float32)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _palette(rng: np.random.Generator) -> np.ndarray:
    """Two random colours, float32 `[2, 3]`, of different brightness; either may be the brighter."""
    while True:
        colors = rng.uniform(0.05, 0.95, (2, 3)).astype(np.float32)
        brightness = colors @ _LUMA
        # Pairs that differ in hue alone made a small ResNet need several times the epochs.
        if abs(brightness[0] - brightness[1]) > 0.45:
            return colors


def _blur(picture: np.ndarray, weight: float) -> np.ndarray:
    """Smooths `[n, n, c]` along both sides by (weight / 2, 1 - weight, weight / 2)."""
    padded = np.pad(picture, ((1, 1), (0, 0), (0, 0)), mode="edge")
    picture = (1 - weight) * picture + weight / 2 * (padded[:-2] + padded[2:])
    padded = np.pad(picture, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return (1 - weight) * picture + weight / 2 * (padded[:, :-2] + padded[:, 2:])


def _noise(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth noise in [0, 1] with one knot a period, itself of period 32."""
    knots = rng.random((33, 33), np.float32)
    knots[-1], knots[:, -1] = knots[0], knots[:, 0]
    column, row = np.floor(x), np.floor(y)
    s, t = x - column, y - row
    s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
    corner = (row.astype(np.int32) & 31) * 33 + (column.astype(np.int32) & 31)
    flat = knots.ravel()
    top = flat[corner] * (1 - s) + flat[corner + 1] * s
    bottom = flat[corner + 33] * (1 - s) + flat[corner + 34] * s
    return top * (1 - t) + bottom * t


def _fractal(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, octaves: int) -> np.ndarray:
    """Noise of halving amplitude and period, zero in the mean, within about ±1."""
    total = np.zeros_like(x)
    for octave in range(octaves):
        scale = 2**octave
        total += (_noise(rng, x * scale, y * scale) * 2 - 1) / scale
    return total


def _edge(distance: np.ndarray, width: float) -> np.ndarray:
    """0 where `distance` is negative, 1 where positive, over a ramp of `width` against aliasing."""
    return np.clip(distance / width + 0.5, 0, 1)


def _triangle(x: np.ndarray) -> np.ndarray:
    """The triangle wave of period 1: 0 at whole numbers, 1 halfway."""
    return 1 - np.abs((x - np.floor(x)) * 2 - 1)


def _shades(rng: np.random.Generator, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """A random number in [0, 1] for each cell of the lattice."""
    table = rng.random((32, 32), np.float32)
    return table[row.astype(np.int32) & 31, column.astype(np.int32) & 31]


def _bands(wave: np.ndarray, plane: _Plane) -> np.ndarray:
    """Turns a wave `[n, n]` of period 1 into light and dark bands, sharp or soft."""
    share = plane.rng.uniform(0.35, 0.65)
    softness = plane.rng.uniform(0, 0.6)
    return _edge(wave - share, 3 * plane.pixel + softness)


def _stripes(plane: _Plane) -> np.ndarray:
    return _bands(_triangle(plane.x), plane)


def _rings(plane: _Plane) -> np.ndarray:
    reach = plane.x.max() - plane.x.min()
    center = plane.rng.uniform(-0.25, 0.25, 2).astype(np.float32) * reach
    radius = np.hypot(plane.x - plane.x.mean() - center[0], plane.y - plane.y.mean() - center[1])
    return _bands(_triangle(radius), plane)


def _checks(plane: _Plane) -> np.ndarray:
    product = (_triangle(plane.x) - 0.5) * (_triangle(plane.y) - 0.5)
    return _edge(product, 2 * plane.pixel)


def _dots(plane: _Plane) -> np.ndarray:
    offset = 0.5 * float(plane.rng.integers(2))
    x = plane.x + offset * (np.floor(plane.y) % 2)
    across, along = x - np.floor(x) - 0.5, plane.y - np.floor(plane.y) - 0.5
    radius = plane.rng.uniform(0.22, 0.4)
    return _edge(radius - np.hypot(across, along), plane.pixel)


def _bricks(plane: _Plane) -> np.ndarray:
    x, y = plane.x * 0.75, plane.y * 1.5
    x = x + 0.5 * (np.floor(y) % 2)
    gap = np.minimum(_triangle(x) / 2 / 0.75, _triangle(y) / 2 / 1.5)
    face = 1 - 0.4 * _shades(plane.rng, np.floor(x), np.floor(y))
    return face * _edge(gap - plane.rng.uniform(0.04, 0.09), plane.pixel)


def _weave(plane: _Plane) -> np.ndarray:
    """Bulging strands, each in turn above and below those that cross it, with gaps between."""
    gap = plane.rng.uniform(0.15, 0.3)
    column, row = _triangle(plane.x), _triangle(plane.y)
    warp = _edge(column - gap, 2 * plane.pixel) * (0.6 + 0.4 * row)
    weft = _edge(row - gap, 2 * plane.pixel) * (0.4 + 0.3 * column)
    over = (np.floor(plane.x) + np.floor(plane.y)) % 2 == 0
    top, below = np.where(over, warp, weft), np.where(over, weft, warp)
    return np.where(top > 0, top, 0.6 * below)


def _cells(plane: _Plane) -> np.ndarray:
    """Cells around one random point in each unit square, with dark walls between them."""
    points = plane.rng.random((2, 32, 32), np.float32)
    column, row = np.floor(plane.x), np.floor(plane.y)
    i, j = row.astype(np.int32), column.astype(np.int32)
    s, t = plane.x - column, plane.y - row
    first = np.full_like(s, 9)
    second = first
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            place = ((i + down) & 31) * 32 + ((j + right) & 31)
            distance = np.hypot(
                points[0].ravel()[place] + right - s, points[1].ravel()[place] + down - t
            )
            second = np.minimum(second, np.maximum(first, distance))
            first = np.minimum(first, distance)
    wall = plane.rng.uniform(0.06, 0.14)
    return (1 - first / 2) * _edge(second - first - wall, 2 * plane.pixel)


def _clouds(plane: _Plane) -> np.ndarray:
    field = _fractal(plane.rng, plane.x * 0.7, plane.y * 0.7, 5)
    return field * 0.7 + 0.5


def _marble(plane: _Plane) -> np.ndarray:
    turbulence = _fractal(plane.rng, plane.x * 0.6, plane.y * 0.6, 4)
    veins = _triangle(plane.x * 0.4 + turbulence * 0.8)
    return np.sqrt(veins)


def _labyrinth(plane: _Plane) -> np.ndarray:
    """The winding patches of a Turing pattern: waves of one length in all directions, cut."""
    waves = 14
    angle = plane.rng.uniform(0, 2 * math.pi, waves).astype(np.float32)
    length = plane.rng.uniform(1.7 * math.pi, 2.3 * math.pi, waves).astype(np.float32)
    phase = plane.rng.uniform(0, 2 * math.pi, waves).astype(np.float32)
    total = np.zeros_like(plane.x)
    for kx, ky, shift in zip(np.cos(angle) * length, np.sin(angle) * length, phase, strict=True):
        total += np.cos(kx * plane.x + ky * plane.y + shift)
    level = plane.rng.uniform(-0.5, 0.5)
    return _edge(total / math.sqrt(waves / 2) - level, 12 * plane.pixel)


_DRAWERS: dict[str, Callable[[_Plane], np.ndarray]] = {
    "bricks": _bricks,
    "cells": _cells,
    "checks": _checks,
    "clouds": _clouds,
    "dots": _dots,
    "labyrinth": _labyrinth,
    "marble": _marble,
    "rings": _rings,
    "stripes": _stripes,
    "weave": _weave,
}

FAMILIES: tuple[str, ...] = tuple(_DRAWERS)
