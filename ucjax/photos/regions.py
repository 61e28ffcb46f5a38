"""Where in a photograph noise shows most, and where least: by how much neighbours differ."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ucjax.data.rows import Rows

_CELL = 16  # pixels a side
# Nearer to black or white than this there is no room for noise, which then cannot show.
_ROOM = 24


Square = tuple[int, int, int]  # top, left and side in pixels


def squares(pixels: Rows, side: int) -> list[Square]:
    """Returns the flattest square, and the busiest that does not overlap it, if there is one.

    Args:
      pixels: uint8 `[h, w, 3]`.
      side: of a square in pixels; smaller pictures give smaller squares.
    """
    side = min(side, *pixels.shape[:2])
    activity, full = _cells(pixels)
    windows = max(1, side // _CELL)
    flat = _sums(activity + full, windows)
    top, left = np.unravel_index(int(flat.argmin()), flat.shape)
    busy = _sums(activity - full, windows)
    rows, columns = np.indices(busy.shape)
    # Where cells do not fill a square, it is longer than its windows, and moved into the picture.
    least = windows + 2 * bool(side % _CELL)
    apart = np.maximum(abs(rows - top), abs(columns - left)) >= least
    found = [(int(top) * _CELL, int(left) * _CELL, side)]
    if apart.any():
        top, left = np.unravel_index(int(np.where(apart, busy, -np.inf).argmax()), busy.shape)
        found.append((int(top) * _CELL, int(left) * _CELL, side))
    height, width, _ = pixels.shape
    return [(min(y, height - side), min(x, width - side), side) for y, x, side in found]


def cut(pixels: np.ndarray, square: Square) -> np.ndarray:
    """Returns a square of a picture, uint8 `[side, side, 3]`."""
    return pixels[slices(square)]


def slices(square: Square) -> tuple[slice, slice]:
    """Returns the rows and columns of a square."""
    top, left, side = square
    return slice(top, top + side), slice(left, left + side)


def _cells(pixels: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean step between neighbours in each cell, and a cost for pixels without room.

    Both are in levels, float64 `[h / cell, w / cell]`, at least one cell each way.
    """
    missing = [max(0, _CELL - side) for side in pixels.shape[:2]]
    down, across = (max(side, _CELL) // _CELL for side in pixels.shape[:2])
    activity, full = np.empty((down, across)), np.empty((down, across))
    for row in range(down):
        grey = Image.fromarray(pixels[row * _CELL : (row + 1) * _CELL]).convert("L")
        band = np.pad(np.asarray(grey), [(0, missing[0]), (0, missing[1])], "edge")
        band = band[:, : across * _CELL].astype(np.int16)
        steps = np.abs(np.diff(band, axis=1, append=band[:, -1:]))
        steps[1:] += np.abs(np.diff(band, axis=0))
        without_room = 255 * ((band < _ROOM) | (band > 255 - _ROOM))
        for cells, values in ((activity, steps), (full, without_room)):
            cells[row] = values.reshape(_CELL, across, _CELL).mean(axis=(0, 2))
    return activity, full


def _sums(cells: np.ndarray, windows: int) -> np.ndarray:
    """Returns the sums over all squares of `windows` cells a side."""
    down, across = (min(windows, side) for side in cells.shape)
    view = np.lib.stride_tricks.sliding_window_view(cells, (down, across))
    return view.sum(axis=(2, 3))
