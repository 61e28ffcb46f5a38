"""From whatever a picture file holds to 8-bit RGB, upright, with a given short side."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import (  # the plugins of FORMATS; JPEG's reads MPO as well
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from ucjax.data import rows
from ucjax.data.rows import View
from ucjax.errors import UserError
from ucjax.runtime import disk

with contextlib.suppress(ImportError):
    import pillow_heif  # the extra "heic"

    pillow_heif.register_heif_opener()

# What is opened at all: not PostScript, PDF, WMF or FITS, whose readers start other programs or
# are seldom looked at.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF")
MAX_MEGAPIXELS = 200
# Uncompressed pixels take at most 16 bytes (four floats); metadata and previews come on top.
_BYTES_PER_PIXEL, _BYTES_BESIDE = 16, 64 * 2**20

# 20 times 256 pixels are 15 MB; a line of 5000 x 1 pixels would become a gigabyte.
MAX_ASPECT = 20


class RefusedError(ValueError):
    """A picture that is sound, but is not decoded; says why."""


class StretchedError(RefusedError):
    """A picture so much longer than wide that resizing it would fill the memory."""


class TooLargeError(RefusedError):
    """A picture of more pixels, or of more bytes for them, than are read."""


# Pillow takes memory in blocks; of those up to 32 MiB glibc gives none back once one was free.
_BLOCK_BYTES = 48 * 2**20
Image.core.set_block_size(_BLOCK_BYTES)

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Silences Pillow: huge and damaged files are reported by us, in one line with their name.

    To be entered once around all threads that decode, since the filters are the process's.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def set_max_megapixels(limit: float) -> None:
    """Sets how large a picture may be, for the whole process, as Pillow's own limit is.

    Raises:
      UserError: it is not positive.
    """
    if not limit > 0:
        raise UserError(f"--max-megapixels is {limit:g}: more than 0")
    # Pillow warns of more pixels than these, and refuses twice as many.
    Image.MAX_IMAGE_PIXELS = int(limit * 10**6 / 2)


set_max_megapixels(MAX_MEGAPIXELS)


def max_pixels() -> int:
    """Returns how many pixels a picture may have."""
    return 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else 2**62


def open_picture(source: bytes | BinaryIO) -> Image.Image:
    """Opens a picture of one of `FORMATS` by its header; the one place where Pillow is given files.

    Raises:
      TooLargeError: it has more pixels than `max_pixels`, or far more bytes than its pixels need.
      UnidentifiedImageError: it is of no such format.
      Exception: the header is damaged; Pillow says nothing closer.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        image = Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        raise TooLargeError(
            f"more than {max_pixels() / 10**6:g} million pixels: make it smaller, or raise "
            "--max-megapixels"
        ) from error
    size = file.seek(0, os.SEEK_END)
    allowed = _BYTES_BESIDE + _BYTES_PER_PIXEL * image.width * image.height
    if size > allowed:
        image.close()
        raise TooLargeError(
            f"{size / 2**20:.0f} MiB for {image.width} x {image.height} pixels: not even "
            f"uncompressed would it be more than {allowed / 2**20:.0f} MiB"
        )
    return image


def open_file(path: Path) -> Image.Image:
    """Opens the picture in a regular file (see `open_picture`).

    Raises:
      OSError: it cannot be opened, or is no regular file.
      Exception: it is no picture, or too large for one.
    """
    return open_picture(read_file(path)[0])


def read_file(path: Path) -> tuple[bytes, os.stat_result]:
    """Returns the content of a picture file and what the system says of it.

    A file that is too large for any picture, or for the pixels in its header, is not read.

    Raises:
      OSError: it cannot be read, or is no regular file.
      TooLargeError: it is too large.
      Exception: it is large, and its header is damaged.
    """
    with open(disk.open_regular(path), "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size > _BYTES_BESIDE:
            with open_picture(file):
                pass
            file.seek(0)
        return file.read(), status


def load(name: str, open_: Callable[[], Image.Image], short_side: int) -> np.ndarray | str:
    """Returns the decoded and resized picture, uint8 `[h, w, 3]`, or why it cannot be read.

    Raises:
      UserError: the file system failed, or what is learned from all pictures, which says nothing
        about this one.
    """
    try:
        with open_() as image:
            return _small(image, short_side)
    except UserError:
        raise
    except UnidentifiedImageError:
        return "not a picture"
    except OSError as error:
        # Pillow's own errors have no number. A failing disk or too many open files must not
        # count as a damaged picture: that would be remembered.
        if error.errno not in (None, errno.EACCES, errno.ENOENT, errno.ELOOP, errno.EISDIR):
            raise UserError(f"cannot read {name} ({error}): check the disk, run again") from error
        return error.strerror or str(error)
    except Exception as error:  # decoders raise nearly anything on damaged files
        return " ".join(str(error).split()) or type(error).__name__


def _small(image: Image.Image, short_side: int) -> np.ndarray:
    color, alpha = split(image)
    if alpha is None and color.turn is not None:  # of which a copy would be made
        return rows.resized(color, resized(color.size, short_side))
    picture = color.whole() if alpha is None else composite(color.whole(), alpha)
    return np.asarray(resize(picture, short_side))


def decode(image: Image.Image) -> Image.Image:
    """Returns the picture as 8-bit RGB: EXIF rotation applied, alpha composited on white.

    Numbers wider than 8 bits are scaled, where `convert("RGB")` alone would clip them to white.
    Of an animation this is the first frame. Metadata are not kept.

    Raises:
      Exception: the picture is damaged or of an unknown kind; Pillow says nothing closer.
    """
    color, alpha = split(image)
    return color.whole() if alpha is None else composite(color.whole(), alpha)


def split(image: Image.Image) -> tuple[View, Image.Image | None]:
    """Returns the picture as `decode` does, but with the colour under its alpha: RGB and L.

    The second, upright as well, is None for pictures without transparency.

    Raises:
      RefusedError: its transparency cannot be decoded.
    """
    wide, transparent = is_wide(image), image.info.get("transparency")
    image.load()
    turn = _TURNS.get(_orientation(image))
    alpha = None
    if image.mode.startswith("I") or image.mode == "F":
        if isinstance(transparent, int):
            alpha = Image.fromarray(np.where(np.asarray(image) == transparent, 0, 255).astype("u1"))
        image = _to_grey(image)
    elif wide and image.mode == "RGB" and transparent is not None:
        # Pillow keeps 8 of the 16 bits, which no longer tell that colour from its neighbours.
        raise RefusedError(
            "one of its 16-bit colours is transparent: save it with an alpha channel"
        )
    if alpha is None and image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = Image.merge("RGB", image.split()[:3])
    if image.mode != "RGB":
        image = image.convert("RGB")
    if alpha is not None and turn is not None:
        alpha = alpha.transpose(turn)
    return View(image, turn), alpha


def is_wide(image: Image.Image) -> bool:
    """Whether a picture that is not loaded yet has more than 8 bits a channel in its file."""
    modes = [mode for tile in getattr(image, "tile", ()) for mode in _strings(tile.args)]
    return image.mode[:1] in ("I", "F") or any(";16" in mode or ";12" in mode for mode in modes)


def _strings(arguments: object) -> list[str]:
    listed = arguments if isinstance(arguments, tuple) else (arguments,)
    return [value for value in listed if isinstance(value, str)]


def composite(color: Image.Image, alpha: Image.Image) -> Image.Image:
    """Returns RGB on white, as a page shows it."""
    picture = Image.merge("RGBA", (*color.split(), alpha))
    return Image.alpha_composite(Image.new("RGBA", color.size, "white"), picture).convert("RGB")


def _orientation(image: Image.Image) -> int:
    # Metadata that cannot be parsed are no reason to lose the picture.
    with contextlib.suppress(OSError, ValueError, SyntaxError, struct.error, KeyError):
        return image.getexif().get(_ORIENTATION, 1)
    return 1


def _to_grey(image: Image.Image) -> Image.Image:
    """Scales 16-bit, 32-bit and float pixels to "L".

    Integers lose their low bits, as Pillow does it for 16-bit colour. Whether 32-bit integers and
    floats are white at 65535 or above, at 1, 255 or above, no file says: it is the smallest of
    these maxima that no pixel exceeds.
    """
    values = np.asarray(image)
    highest = np.max(values, initial=0, where=np.isfinite(values))
    if values.dtype.kind in "iu":
        levels = values.clip(0) >> (8 if highest <= 65535 else 23)
    else:
        white = next((white for white in (1.0, 255.0, 65535.0) if highest <= white), highest)
        levels = np.rint(np.nan_to_num(values).clip(0, white) * (255 / white))
    return Image.fromarray(levels.astype(np.uint8))


def resize(image: Image.Image, short_side: int) -> Image.Image:
    """Returns the picture with its short side at `short_side` pixels, aspect kept.

    This is torchvision's `Resize(short_side)` on a Pillow image: bilinear with antialiasing, the
    long side rounded down.

    Raises:
      StretchedError: the picture is more than `MAX_ASPECT` times as long as wide.
    """
    return image.resize(resized(image.size, short_side), Image.Resampling.BILINEAR)


def resized(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Returns the width and height that `resize` gives a picture of this width and height.

    Raises:
      StretchedError: it is more than `MAX_ASPECT` times as long as wide.
    """
    width, height = size
    short, long = sorted(size)
    if long > MAX_ASPECT * short:
        raise StretchedError(
            f"{width} x {height} pixels: more than {MAX_ASPECT} times as long as wide"
        )
    scaled = int(short_side * long / short)
    return (short_side, scaled) if width <= height else (scaled, short_side)
