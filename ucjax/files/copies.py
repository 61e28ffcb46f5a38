"""One protected copy: encoded into a file, and measured as it is read back from there."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from ucjax.data.rows import Hold, Rows
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
    with disk.draft(temporary, mode) as file:
        hashed = _Hashed(file)
        protected = replace(clean, pixels=noised.pixels)
        picture.save(protected, encoding, cast(BinaryIO, hashed))
    with open(temporary, "rb") as file:
        written = picture.read_pixels(see, file).pixels
    left = None
    if encoding.format == "jpeg":
        with contextlib.suppress(ValueError):  # of a control without noise
            left = cue.sampled_share(clean.pixels, noised.pixels, written)
    return Copy(hashed.digest.hexdigest(), hashed.size, compare(clean.pixels, written), left)
