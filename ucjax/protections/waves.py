"""Gratings: one plane wave a cluster, put on pictures of any size. Needs no JAX.

A wave's period is a share of the picture's short side and its phase is fixed to the centre, so
that a file, its thumbnail and what a victim crops from it show one wave. Phases are whole numbers
of 1/65536 turn, added for a row and a column: a square wave is the sum's highest bit. That is the
sign of the sampled sine, every pixel at the full budget; periods of a few pixels alias the
harmonics (of 3.4 px the third to 8.6 px at a third of the amplitude), but not the wave.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

WAVES = ("square", "sine")
# Columns of a carrier: radians in [0, pi), share of the short side, turns at the centre in [0, 1),
# and change of red, green, blue, the largest of them ±1.
ANGLE, PERIOD, PHASE, COLOR = 0, 1, 2, slice(3, 6)
# Pixels. In small pictures a finer wave would alias into another one.
LEAST_PERIOD = 2.5
_TURN = 2**16
# Bytes of a picture that are worked on at once: they and what is made of them fit into a cache.
_BAND_BYTES = 2**18
_MAX_ROWS = 64


@dataclass(frozen=True, eq=False)
class Gratings:
    """p plane waves.

    Attributes:
      carriers: float64 `[p, 6]`, see `ANGLE`, `PERIOD`, `PHASE`, `COLOR`.
      epsilon_255: the budget: no value changes by more.
      short_side: pixels of the short side of the pictures whose crops `add` may be given.
      wave: "square" or "sine".

    Raises:
      ValueError: values out of these ranges.
    """

    carriers: np.ndarray
    epsilon_255: int
    short_side: int
    wave: str = "square"

    def __post_init__(self) -> None:
        fault = _fault(self)
        if fault:
            raise ValueError(fault)

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], epsilon_255: int, short_side: int) -> Gratings:
        """Returns the gratings that `arrays` were made of, trusting nothing.

        Raises:
          ValueError: they are incomplete, of other shapes or types, or out of range.
        """
        if set(arrays) != {"carriers", "wave"}:
            raise ValueError(f"gratings are carriers and wave, here are {', '.join(arrays)}")
        kind = arrays["wave"]
        if kind.dtype != np.uint8 or kind.shape != (1,) or kind[0] >= len(WAVES):
            raise ValueError(f"wave is {kind!r}, not the number of one of {', '.join(WAVES)}")
        return cls(arrays["carriers"], epsilon_255, short_side, WAVES[kind[0]])

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns what `load` needs beside the budget and the short side."""
        return {"carriers": self.carriers, "wave": np.array([WAVES.index(self.wave)], np.uint8)}

    def sha256(self, row: int) -> str:
        """Returns the hex SHA-256 of the carrier, the wave, the budget and the short side."""
        others = f"{self.wave} {self.epsilon_255} {self.short_side}".encode()
        carrier = np.ascontiguousarray(self.carriers[row], "<f8").tobytes()
        return hashlib.sha256(carrier + others).hexdigest()

    def add(self, row: int, pixels: np.ndarray) -> np.ndarray:
        """Returns a centre crop plus wave `row`, uint8 `[h, w, 3]` like `pixels`.

        Where a channel has no room for both halves of the wave, all channels of the pixel change
        by less, in both: a colour stays that colour, and a white wall takes no tint.
        """
        height, width, _ = pixels.shape
        return self._put(row, (height, width), self.short_side)(0, pixels)

    def on(self, row: int, size: tuple[int, int]) -> Callable[[int, np.ndarray], np.ndarray]:
        """Returns what puts wave `row` on a whole picture of this height and width in parts.

        That takes the number of the first of some rows, and the rows, uint8 `[n, w, 3]`. It is to
        be called from one thread at a time.
        """
        return self._put(row, size, None)

    def _put(
        self, row: int, size: tuple[int, int], short_side: int | None
    ) -> Callable[[int, np.ndarray], np.ndarray]:
        height, width = size
        carrier = self.carriers[row]
        down, across = phases(carrier, size, short_side)
        rows = min(_MAX_ROWS, height, max(1, _BAND_BYTES // (3 * width)))
        band = _Band(carrier[COLOR], self.epsilon_255, across, rows)

        def put(first: int, pixels: np.ndarray) -> np.ndarray:
            flat, added = pixels.reshape(len(pixels), -1), np.empty(pixels.shape, np.uint8)
            out = added.reshape(flat.shape)
            for top in range(0, len(flat), rows):
                part = flat[top : top + rows]
                phase = down[first + top : first + top + len(part), None]
                limit = None
                if self.wave == "sine":
                    limit = self._amplitudes[phase + across].repeat(3, axis=1)
                band.move(part, phase, limit, out[top : top + rows])
            return added

        return put

    @cached_property
    def _amplitudes(self) -> np.ndarray:
        """Whole levels of a sine's size at each phase, uint8 `[65536]`."""
        sine = np.sin((np.arange(_TURN) + 0.5) * (2 * math.pi / _TURN))
        return np.rint(self.epsilon_255 * np.abs(sine)).astype(np.uint8)


def phases(
    carrier: np.ndarray, size: tuple[int, int], short_side: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a wave's phases down and across a picture, uint16 `[h]` and `[w]`, in 1/65536 turn.

    A pixel's phase is their sum, modulo 65536; the first half turn is positive.

    Args:
      carrier: float64 `[6]`.
      size: height and width in pixels.
      short_side: pixels that the period is a share of; None for the shorter of `size`.
    """
    period = max(carrier[PERIOD] * (short_side or min(size)), LEAST_PERIOD)
    angle = float(carrier[ANGLE])
    steps = (math.sin(angle) / period, math.cos(angle) / period)
    starts = (float(carrier[PHASE]), 0.0)
    turns = (
        start + step * (np.arange(side) - (side - 1) / 2)
        for start, step, side in zip(starts, steps, size, strict=True)
    )
    down, across = (np.mod(np.rint(t * _TURN), _TURN).astype(np.uint16) for t in turns)
    return down, across


class _Band:
    """What moves a few rows of pixels at once, their channels interleaved, `[rows, 3 w]`.

    All in whole numbers of 8 and 16 bits, into arrays that are used again for the next rows:
    this is what a photograph waits for.
    """

    def __init__(self, color: np.ndarray, epsilon_255: int, across: np.ndarray, rows: int) -> None:
        width = len(across)
        per_level = np.rint(256 * np.abs(color)).astype(np.int64)
        full = (epsilon_255 * per_level + 128) >> 8
        room = np.where(full, full, 255)  # an unchanged channel has always enough
        # Change at the full amplitude; change a level of amplitude, and amplitude that a level of
        # room allows, in 1/256; 255 in unchanged channels; 255 in the first channel of a pixel.
        self._full = np.tile(full.astype(np.uint8), width)
        self._per_level = np.tile(per_level.astype(np.uint16), width)
        self._levels = np.tile((-(-epsilon_255 * 256 // room)).astype(np.uint16), width)
        self._free = np.tile(np.where(full, 0, 255).astype(np.uint8), width)
        self._first = np.tile(np.array([255, 0, 0], np.uint8), width)
        # Channels that fall while others rise are half a turn behind.
        behind = np.where(color < 0, _TURN // 2, 0).astype(np.uint16)
        self._across = (across[:, None] + behind).reshape(-1)
        self._narrow = np.empty((4, rows, 3 * width), np.uint8)
        self._wide = np.empty((rows, 3 * width), np.uint16)

    def move(
        self, pixels: np.ndarray, down: np.ndarray, limit: np.ndarray | None, out: np.ndarray
    ) -> None:
        """Puts pixels plus the wave into `out`, all uint8 `[rows, 3 w]`.

        Args:
          pixels: a few rows.
          down: uint16 `[rows, 1]`, their phases.
          limit: the largest amplitude, uint8; None for the budget.
          out: is written.
        """
        rows = len(pixels)
        rising, room, change, spare = self._narrow[:, :rows]
        wide = np.add(down, self._across, out=self._wide[:rows])
        np.less(wide, np.uint16(_TURN // 2), out=rising.view(bool))
        np.negative(rising, out=rising)  # 255 where a channel gets brighter, else 0
        np.bitwise_xor(pixels, rising, out=room)  # 255 - pixel, or the pixel: how far it can go
        np.minimum(room, np.bitwise_not(room, out=change), out=change)
        enough = np.greater_equal(change, self._full, out=spare.view(bool)).all()
        if limit is None and enough:
            np.subtract(room, self._full, out=room)
        else:
            if enough and limit is not None:
                np.copyto(change, limit)
            else:
                np.minimum(change, self._full, out=change)
                np.bitwise_or(change, self._free, out=change)
                _scale(change, self._levels, np.uint16(0), wide)
                self._spread_least(change, spare)
                if limit is not None:
                    np.minimum(change, limit, out=change)
            _scale(change, self._per_level, np.uint16(128), wide)
            np.subtract(room, np.minimum(change, room, out=change), out=room)
        np.bitwise_xor(room, rising, out=out)

    def _spread_least(self, values: np.ndarray, spare: np.ndarray) -> None:
        """Gives all three channels of a pixel their least value."""
        # By shifts, not over an axis of three, which takes numpy ten times as long.
        v, s = values.reshape(-1), spare.reshape(-1)
        np.minimum(v[:-1], v[1:], out=s[:-1])
        np.minimum(s[:-2], s[1:-1], out=s[:-2])
        np.bitwise_and(spare, self._first, out=spare)
        v[:] = s
        np.bitwise_or(v[1:], s[:-1], out=v[1:])
        np.bitwise_or(v[2:], s[:-2], out=v[2:])


def _scale(values: np.ndarray, factors: np.ndarray, plus: np.uint16, wide: np.ndarray) -> None:
    """Multiplies uint8 `values` by uint16 `factors` / 256, rounded down after adding `plus`."""
    np.copyto(wide, values)
    np.multiply(wide, factors, out=wide)
    if plus:
        np.add(wide, plus, out=wide)
    np.right_shift(wide, np.uint16(8), out=wide)
    np.copyto(values, wide, casting="unsafe")


def _fault(gratings: Gratings) -> str:
    """Returns what is wrong, in words, or nothing."""
    carriers = gratings.carriers
    if carriers.dtype != np.float64 or carriers.ndim != 2 or carriers.shape[1] != 6:
        return f"carriers are {carriers.dtype} {list(carriers.shape)}, not float64 [p, 6]"
    if not len(carriers) or not np.isfinite(carriers).all():
        return "carriers are empty or not finite"
    if gratings.wave not in WAVES or not 1 <= gratings.epsilon_255 <= 255:
        return f"wave {gratings.wave!r} with epsilon_255 {gratings.epsilon_255}"
    if gratings.short_side < 1:
        return f"short side {gratings.short_side}"
    angle, period, phase = carriers[:, :3].T
    within = (angle >= 0) & (angle < math.pi) & (phase >= 0) & (phase < 1)
    within &= (period > 0) & (period <= 1)
    within &= np.abs(np.abs(carriers[:, COLOR]).max(axis=1) - 1) < 1e-9
    if not within.all():
        return f"carrier {int(np.argmin(within))} has values out of range"
    return ""
