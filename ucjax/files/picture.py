"""A picture file as its owner knows it: pixels, transparency, and the metadata worth keeping."""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Generic, NamedTuple, cast

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from ucjax.data import rows
from ucjax.data.decode import RefusedError, composite, is_wide, open_picture, split
from ucjax.data.rows import P, Rows, View
from ucjax.errors import DiskError
from ucjax.files import metadata
from ucjax.files.containers import png_color

SUFFIXES = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
FORMATS = (*SUFFIXES, "same")
LOSSY = ("jpeg", "same")  # formats of which some files are held to no budget
_SAME = {".jpg": "jpeg", ".jpeg": "jpeg", ".jfif": "jpeg", ".webp": "webp"}
# WebP stores 14 bits a side, JPEG 16.
_LONGEST_SIDE = {"png": 2**31 - 1, "webp": 16383, "jpeg": 65535}

# On noise, run lengths alone encode 1.5 times as fast as matches (deflate level 1), and the files
# are no larger.
_PNG = {"compress_level": 1, "compress_type": zlib.Z_RLE}
# `exact` keeps the colour under transparent pixels, which carries noise as well.
_WEBP = {"lossless": True, "quality": 0, "method": 0, "exact": True}
_JPEG = {"quality": 95, "subsampling": "4:4:4"}
_FULL = 0  # colour at full resolution, 4:4:4
# Of more no exact number is of use.
_COUNTED_FRAMES = 100


class UnreadableError(Exception):
    """A file that cannot be protected, and why, in a few words."""


class Jpeg(NamedTuple):
    """How finely a JPEG file holds its picture.

    Attributes:
      tables: of quantization, 64 values each: of luminance, and of colour where that has its own.
      subsampling: of colour, as Pillow numbers it: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0.
    """

    tables: tuple[tuple[int, ...], ...]
    subsampling: int


@dataclass(frozen=True, eq=False)
class Picture(Generic[P]):
    """An upright picture in 8 bits, and what is kept beside the pixels."""

    pixels: P  # uint8 [h, w, 3], the colour under the alpha
    alpha: np.ndarray | None = None  # uint8 [h, w]
    icc: bytes | None = None  # a profile of RGB values
    exif: bytes | None = None
    rights: Mapping[str, str] = field(default_factory=dict)  # of XMP
    color: Mapping[str, bytes] = field(default_factory=dict)  # PNG's cICP, gAMA and cHRM
    dpi: tuple[float, float] | None = None
    converted: tuple[str, ...] = ()  # what 8-bit RGB cannot hold, and became
    jpeg: Jpeg | None = None  # of a JPEG file, and how one is written; None for quality 95, 4:4:4

    def on_white(self) -> Image.Image:
        """Returns what a page shows, and what `data.decode.decode` returns."""
        return rows.image_of(self._on_white())

    def reduced(self, size: tuple[int, int]) -> np.ndarray:
        """Returns what a page shows in another width and height, bilinear, uint8 `[h, w, 3]`."""
        return rows.resized(self._on_white(), size)

    def part(self, rows: slice, columns: slice) -> Picture[np.ndarray]:
        """Returns some of it."""
        alpha = None if self.alpha is None else self.alpha[rows, columns]
        return replace(cast(Picture, self), pixels=self.pixels[rows, columns], alpha=alpha)

    def _on_white(self) -> Rows:
        if (alpha := self.alpha) is None:
            return self.pixels

        def composited(first: int, part: np.ndarray) -> np.ndarray:
            clear = Image.fromarray(alpha[first : first + len(part)])
            return np.asarray(composite(Image.fromarray(part), clear))

        return rows.changed(self.pixels, composited)


@dataclass(frozen=True)
class Encoding:
    """How pictures are written: "png", "webp" (both lossless) or "jpeg" (see `Picture.jpeg`).

    With "same", files that are called JPEG become JPEG, those called WebP lossless WebP, and all
    others PNG.
    """

    format: str = "png"
    opt_out: bool = False  # adds the machine-readable reservation against training

    def chosen(self, waves: bool) -> Encoding:
        """Returns what "auto" is: "same" for waves, which JPEG keeps, and "png" for all else."""
        if self.format != "auto":
            return self
        return replace(self, format="same" if waves else "png")

    def of(self, name: str) -> Encoding:
        """Returns the encoding of the copy of a file of this name."""
        if self.format != "same":
            return self
        return replace(self, format=_SAME.get(PurePosixPath(name).suffix.lower(), "png"))


PNG = Encoding()


def read(data: bytes, *, keep: Collection[str] = ()) -> Picture[np.ndarray]:
    """Decodes a file's content, upright; pixels are those of `data.decode.split`, as an array.

    Args:
      data: the file's content.
      keep: metadata to keep beyond the list (`metadata.KEEPABLE`).

    Raises:
      UnreadableError: it is no picture, damaged, animated, or too large to be decoded safely.
    """
    return read_as(rows.in_memory, data, keep=keep)


def read_as(hold: Callable[[View], P], data: bytes, *, keep: Collection[str] = ()) -> Picture[P]:
    """Decodes a file's content as `read` does, its pixels to be held as `hold` returns them.

    Raises:
      UnreadableError: as `read`.
      DiskError: there is no room for them.
    """
    with refused(data), open_picture(data) as image:
        return _read(image, data, keep, hold)


def read_pixels(hold: Callable[[View], P], file: BinaryIO) -> Picture[P]:
    """Decodes a file as `read_as` does, without the metadata, and not from a copy in memory.

    Raises:
      UnreadableError: as `read`.
      DiskError: there is no room for the pixels.
    """
    with refused(), open_picture(file) as image:
        color, alpha = split(image)
        return Picture(hold(color), None if alpha is None else np.asarray(alpha))


@contextlib.contextmanager
def refused(data: bytes = b"") -> Iterator[None]:
    """Turns whatever decoders raise at a file's content into an `UnreadableError`."""
    try:
        yield
    except (UnreadableError, DiskError):
        raise
    except RefusedError as error:
        raise UnreadableError(str(error)) from error
    except UnidentifiedImageError as error:
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
            raise UnreadableError("HEIC: pip install 'ucjax[heic]'") from error
        raise UnreadableError("not a picture, or of a kind that is not read") from error
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableError(f"damaged ({reason})") from error


def _read(
    image: Image.Image, data: bytes, keep: Collection[str], hold: Callable[[View], P]
) -> Picture[P]:
    _check_frames(image)
    profile = image.info.get("icc_profile")
    icc = metadata.icc(profile)
    if icc and len(icc) > metadata.LARGEST_ICC:
        raise UnreadableError(
            f"its colour profile has {len(icc)} bytes, more than {metadata.LARGEST_ICC}: convert "
            "the picture to sRGB"
        )
    converted = []
    if is_wide(image):
        converted.append("more than 8 bits a channel became 8")
    if image.mode in ("CMYK", "LAB", "YCbCr") and image.format != "JPEG":
        converted.append(f"{image.mode} became RGB")
    elif image.mode == "CMYK":
        converted.append("CMYK became RGB" + (" without its profile" if profile else ""))
    color, alpha = split(image)
    return Picture(
        pixels=hold(color),
        alpha=None if alpha is None else np.asarray(alpha),
        icc=icc,
        exif=metadata.exif(image, keep),
        rights=metadata.rights(image),
        color=png_color(data) if image.format == "PNG" else {},
        dpi=metadata.dpi(image),
        converted=tuple(converted),
        jpeg=_jpeg(image),
    )


def _jpeg(image: Image.Image) -> Jpeg | None:
    """Returns how finely a JPEG file holds its picture, if it holds it as RGB or grey files do."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.mode not in ("RGB", "L"):
        return None
    tables = tuple(tuple(image.quantization.get(table, ())) for *_, table in image.layer[:2])
    if not all(tables):  # defined behind the first scan, where Pillow does not look
        return None
    # Files of one colour, and of the rarer ways to halve it, have no number: -1.
    return Jpeg(tables, max(JpegImagePlugin.get_sampling(image), _FULL))


def finer(jpeg: Jpeg | None) -> Iterator[Jpeg | None]:
    """Yields ways to write a picture as JPEG, each a finer and larger file than the one before.

    As its own file was written, which takes nothing from what that holds; the same with colour at
    full resolution; and as any other picture is.
    """
    if jpeg:
        yield jpeg
        if jpeg.subsampling != _FULL:
            yield jpeg._replace(subsampling=_FULL)
    yield None


def decoded_bytes(data: bytes) -> int:
    """Returns how many bytes the pixels of a file's picture will take, 0 if none are found."""
    with contextlib.suppress(UnreadableError), refused(data), open_picture(data) as image:
        return 3 * image.width * image.height
    return 0


def _check_frames(image: Image.Image) -> None:
    # The further pictures of these, from phones and stereo cameras, are previews and depths.
    if image.format in ("MPO", "HEIF"):
        return
    if image.format == "TIFF":  # whose directories are found one by one, and may be many
        frames = 1
        with contextlib.suppress(EOFError):
            while frames < _COUNTED_FRAMES:
                image.seek(frames)
                frames += 1
        image.seek(0)
    else:
        frames = getattr(image, "n_frames", 1)
    if frames > 1:
        many = "" if frames < _COUNTED_FRAMES else " or more"
        raise UnreadableError(f"{frames} frames{many}: an animation; save the frames as pictures")


def write(picture: Picture, encoding: Encoding) -> bytes:
    """Encodes a picture; equal pictures give equal bytes.

    Raises:
      UnreadableError: the format cannot hold it.
    """
    encoded = io.BytesIO()
    save(picture, encoding, encoded)
    return encoded.getvalue()


def save(picture: Picture, encoding: Encoding, file: BinaryIO) -> None:
    """Encodes a picture as `write` does into a file, of which nothing is written if it raises.

    Raises:
      UnreadableError: the format cannot hold it.
    """
    longest = max(picture.pixels.shape[:2])
    if longest > _LONGEST_SIDE[encoding.format]:
        raise UnreadableError(
            f"{longest} pixels long, {encoding.format} ends at {_LONGEST_SIDE[encoding.format]}: "
            "choose --format png"
        )
    if picture.alpha is not None and encoding.format == "jpeg":
        raise UnreadableError("has transparency, which JPEG cannot hold: choose --format png")
    if picture.color and encoding.format != "png":
        raise UnreadableError(
            f"states its colours by {' and '.join(picture.color)}, which {encoding.format} cannot "
            "hold: choose --format png"
        )
    kept = {"icc_profile": picture.icc, "exif": picture.exif, "dpi": picture.dpi}
    settings: dict[str, object] = {key: value for key, value in kept.items() if value is not None}
    rights = {**picture.rights, **(metadata.OPT_OUT if encoding.opt_out else {})}
    if encoding.format == "png":
        settings["pnginfo"] = chunks = PngImagePlugin.PngInfo()
        for kind, content in picture.color.items():
            chunks.add(kind.encode(), content)
        if rights:
            chunks.add_itxt("XML:com.adobe.xmp", metadata.xmp(rights).decode())
        settings |= _PNG
    else:
        settings |= {"xmp": metadata.xmp(rights)} if rights else {}
        settings |= _WEBP if encoding.format == "webp" else _fineness(picture.jpeg)
    image = rows.image_of(picture.pixels)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    image.save(file, encoding.format.upper(), **settings)


def _fineness(jpeg: Jpeg | None) -> Mapping[str, Any]:
    if jpeg is None:
        return _JPEG
    return {"qtables": [*map(list, jpeg.tables)], "subsampling": jpeg.subsampling}
