"""The noise of single images: an int8 memory map in whole pixel levels, written block by block.

Float32 would take four times the space, and files hold whole levels anyway.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ucjax.errors import UserError
from ucjax.protections.contract import Given
from ucjax.protections.noise import Noise, Pixels
from ucjax.runtime import checkpoint, parallel

NOISE = "noise.int8"


def fill(
    path: Path, count: int, crop: int, block: int, make: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Writes the noise of `count` images, unless it is there; goes on where a kill stopped it.

    Args:
      path: of the map, int8 `[count, crop, crop, 3]`; it appears when complete.
      count: number of images.
      crop: their side in pixels.
      block: images made at once.
      make: numbers of images `[b]`, b at most `block` -> int8 `[b, crop, crop, 3]`; called on
        every process, of which process 0 writes.
    """
    if parallel.agree(path.exists()):
        return
    unfinished, note = path.with_suffix(".unfinished"), path.with_suffix(".json")
    shape, done = (count, crop, crop, 3), 0
    if parallel.agree(note.exists() and unfinished.exists()):
        done = int(checkpoint.read_json(note)["images"])
    elif parallel.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.memmap(unfinished, np.int8, "w+", shape=shape).flush()
    for start in range(done, count, block):
        indices = np.arange(start, min(start + block, count))
        noise = make(indices)
        if parallel.is_main():
            rows = np.memmap(unfinished, np.int8, "r+", shape=shape)
            rows[indices] = noise
            rows.flush()
            checkpoint.write_json(note, {"images": start + len(indices)})
    if parallel.is_main():
        os.replace(unfinished, path)
        note.unlink(missing_ok=True)
    parallel.barrier(path.name)


def read(path: Path, count: int, crop: int) -> np.ndarray:
    """Returns a complete map, int8 `[count, crop, crop, 3]`, in levels of 1/255.

    Raises:
      UserError: the file has another size.
    """
    expected, found = count * crop * crop * 3, path.stat().st_size
    if found != expected:
        raise UserError(f"{path} has {found} bytes, not {expected}: delete it and run again")
    return np.memmap(path, np.int8, "r", shape=(count, crop, crop, 3))


def patterns(path: Path, given: Given) -> Pixels:
    """Returns the patterns of a complete map: row i is the noise of image i."""
    crop = given.config.data.crop
    rows = read(path, len(given.images), crop)

    def of(row: int) -> np.ndarray:
        return rows[row].astype(np.float32) / np.float32(255)

    return Pixels(of, crop, given.config.data.short_side, given.config.noise.epsilon_255)


def noise(path: Path, given: Given, image_passes: int) -> Noise:
    """Returns the noise of a complete map."""
    rows = np.arange(len(given.images), dtype=np.int32)
    epsilon_255 = given.config.noise.epsilon_255
    return Noise(patterns(path, given), rows, epsilon_255, image_passes=image_passes)


def budget(given: Given) -> int:
    """Returns the budget in levels.

    Raises:
      UserError: it is none that a signed byte holds.
    """
    epsilon_255 = given.config.noise.epsilon_255
    if not 1 <= epsilon_255 <= 127:
        raise UserError(f"eps of a row is {epsilon_255}: give a whole number of 1 to 127")
    return epsilon_255
