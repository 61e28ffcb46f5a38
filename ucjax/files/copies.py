"""One protected copy: encoded into a file, and measured as it is read back from there."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from ucjax.data.rows import Hold, Rows, in_memory
from ucjax.files import cue, picture
from ucjax.files.fidelity import Fidelity, compare
from ucjax.files.picture import Encoding, Picture
from ucjax.runtime import disk


class Source(NamedTuple):
    """A clean picture: the hash and number of its bytes, and what decodes it when called, once."""

    sha256: str
    size: int
    picture: Callable[[Hold], Picture]  # takes how its pixels are to be held
    mode: int | None = None  # permissions of its file
    decoded_bytes: int = 0  # 0 where it is small for sure


class Noised(NamedTuple):
    """A picture's pixels with noise, uint8 `[h, w, 3]`, and which noise it was."""

    pixels: Rows
    cluster: int | None
    noise_sha256: str


class Copy(NamedTuple):
    """A written copy."""

    sha256: str
    size: int  # bytes
    measured: Fidelity
    cue: float | None  # of a JPEG file, the share of the noise's amplitude in it


class _Hashed(io.RawIOBase):
    """Passes on what is written to a file, and hashes it."""

    # It has no descriptor: Pillow would write to that by itself, and miss that a disk is full.

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)


def write(
    clean: Picture,
    noised: Noised,
    encoding: Encoding,
    temporary: Path,
    mode: int | None,
    see: Hold,
) -> Copy:
    """Writes a protected copy into a file, to be published, and measures what is read from there.

    Args:
      clean: the picture.
      noised: its pixels with noise.
      encoding: of the copy.
      temporary: the file; what was there is lost.
      mode: its permissions, None for the usual ones.
      see: how the written pixels are to be held.

    Raises:
      UnreadableError: the format cannot hold the picture.
      OSError: the file cannot be written to.
    """
    tries = _finer(clean, noised.pixels, encoding)
    return next(filter(None, (_try(clean, x, encoding, temporary, mode, see) for x in tries)))


def _try(
    clean: Picture,
    noised: Picture,
    encoding: Encoding,
    temporary: Path,
    mode: int | None,
    see: Hold,
) -> Copy | None:
    """Does what `write` does with a picture as it is to be encoded; None if that was too coarse."""
    with disk.draft(temporary, mode) as file:
        hashed = _Hashed(file)
        picture.save(noised, encoding, cast(BinaryIO, hashed))
    with open(temporary, "rb") as file:
        written = picture.read_pixels(see, file).pixels
    left = _left(clean, noised, written, encoding)
    if noised.jpeg and _too_coarse(left):
        return None
    return Copy(hashed.digest.hexdigest(), hashed.size, compare(clean.pixels, written), left)


def encoded(clean: Picture, pixels: Rows, encoding: Encoding) -> bytes:
    """Returns the content of the file that `write` writes of a picture and its pixels with noise.

    Raises:
      UnreadableError: the format cannot hold the picture.
    """
    for noised in _finer(clean, pixels, encoding):
        data = picture.write(noised, encoding)
        if not noised.jpeg:
            break
        written = picture.read_pixels(in_memory, io.BytesIO(data)).pixels
        if not _too_coarse(_left(clean, noised, written, encoding)):
            break
    return data


def _finer(clean: Picture, pixels: Rows, encoding: Encoding) -> Iterator[Picture]:
    """Yields the picture to be written: as JPEG in ever finer ways, the first that will do."""
    for jpeg in picture.finer(clean.jpeg) if encoding.format == "jpeg" else (None,):
        yield replace(clean, pixels=pixels, jpeg=jpeg)


def _left(clean: Picture, noised: Picture, written: Rows, encoding: Encoding) -> float | None:
    """Returns the share of the noise's amplitude in a JPEG file, if it has any noise to hold."""
    if encoding.format == "jpeg":
        with contextlib.suppress(ValueError):  # of a control without noise
            return cue.sampled_share(clean.pixels, noised.pixels, written)
    return None


def _too_coarse(left: float | None) -> bool:
    return left is not None and left < cue.ENOUGH
