"""From whatever a picture file holds to 8-bit RGB, upright, with a given short side."""

from __future__ import annotations

import contextlib
import errno
import struct
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from ucjax.errors import UserError

with contextlib.suppress(ImportError):
    import pillow_heif  # the extra "heic"

    pillow_heif.register_heif_opener()

# 20 times 256 pixels are 15 MB; a line of 5000 x 1 pixels would become a gigabyte.
MAX_ASPECT = 20


class StretchedError(ValueError):
    """A picture so much longer than wide that resizing it would fill the memory."""


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


def load(name: str, open_: Callable[[], Image.Image], short_side: int) -> np.ndarray | str:
    """Returns the decoded and resized picture, uint8 `[h, w, 3]`, or why it cannot be read.

    Raises:
      UserError: the file system failed, which says nothing about the picture.
    """
    try:
        with open_() as image:
            return np.asarray(resize(decode(image), short_side))
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


def decode(image: Image.Image) -> Image.Image:
    """Returns the picture as 8-bit RGB: EXIF rotation applied, alpha composited on white.

    Numbers wider than 8 bits are scaled, where `convert("RGB")` alone would clip them to white.
    Of an animation this is the first frame. Metadata are not kept.

    Raises:
      Exception: the picture is damaged or of an unknown kind; Pillow says nothing closer.
    """
    color, alpha = split(image)
    return color if alpha is None else composite(color, alpha)


def split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Returns the picture as `decode` does, but with the colour under its alpha: RGB and L.

    The second is None for pictures without transparency.
    """
    image.load()
    turn = _TURNS.get(_orientation(image))
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_grey(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = Image.merge("RGB", image.split()[:3])
    if image.mode != "RGB":
        image = image.convert("RGB")
    if turn is None:
        return image, alpha
    return image.transpose(turn), None if alpha is None else alpha.transpose(turn)


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
