"""How much of a cue is left in a file: a matched filter against the original."""

from __future__ import annotations

import math

import numpy as np

from ucjax.data.rows import BAND, Rows

# Lossy files are to hold this share of their cue.
ENOUGH = 0.85
_SAMPLED = 2**21  # values


def share(clean: Rows, target: Rows, found: Rows) -> float:
    """Returns the amplitude of the change clean -> target in `found`, as a share of it.

    1 where `found` is the target, 0 where it is clean; with d = found - clean and
    t = target - clean it is <d, t> / <t, t>, so that pixels without room for the cue count as
    little as they hold, and what a codec did to the picture itself hardly counts.

    Args:
      clean: the original, uint8 `[h, w, 3]`.
      target: the original plus its pattern, before any loss, uint8.
      found: the file as decoded, uint8.

    Raises:
      ValueError: other shapes, or the target does not differ from the original.
    """
    product, square = _products(clean, target, found)
    if not square:
        raise ValueError("the target does not differ from the original: there is no cue")
    return product / square


def sampled_share(clean: Rows, target: Rows, found: Rows) -> float:
    """Returns `share` over some of the rows of a large picture."""
    # An odd step: codecs work on blocks of 8 rows.
    rows = slice(None, None, max(1, math.prod(clean.shape) // _SAMPLED) | 1)
    return share(clean[rows], target[rows], found[rows])


def share_of_resized(
    clean: np.ndarray,
    target: np.ndarray,
    resized: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> float:
    """Returns the amplitude of the change clean -> target in a file of another size.

    Resizing takes some of the change as well, all of it where pixels become larger than half a
    period: it is <d, t> / (|t| |t0|) with root mean squares of the change t at the file's size and
    t0 at the original's. Of a square wave the overtones count, a tenth of its amplitude.

    Args:
      clean: the original, or the piece that the file shows, uint8 `[h, w, 3]`.
      target: the same with its pattern, uint8.
      resized: both as they are at the file's size, and the file, uint8 `[h', w', 3]`.

    Raises:
      ValueError: as `share`.
    """
    _, whole = _products(clean, target, target)
    if not whole:
        raise ValueError("the target does not differ from the original: there is no cue")
    product, square = _products(*resized)
    if not square:
        return 0.0
    n = resized[0].size
    return product / n / math.sqrt(square / n * (whole / clean.size))


def _products(clean: Rows, target: Rows, found: Rows) -> tuple[int, int]:
    """Returns <found - clean, target - clean> and <target - clean, target - clean>."""
    if not clean.shape == target.shape == found.shape:
        raise ValueError(f"pictures of {clean.shape}, {target.shape} and {found.shape}")
    product = square = 0
    for top in range(0, clean.shape[0], BAND):
        origin, aim, end = (
            picture[top : top + BAND].astype(np.int16) for picture in (clean, target, found)
        )
        aim -= origin
        end -= origin
        product += int(np.multiply(aim, end, dtype=np.int32).sum(dtype=np.int64))
        square += int(np.multiply(aim, aim, dtype=np.int32).sum(dtype=np.int64))
    return product, square
