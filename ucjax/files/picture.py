"""A picture file as its owner knows it: pixels, transparency, and the metadata worth keeping."""

from __future__ import annotations

import io
import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from ucjax.data.decode import composite, split

SUFFIXES = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
# WebP stores 14 bits a side, JPEG 16.
_LONGEST_SIDE = {"png": 2**31 - 1, "webp": 16383, "jpeg": 65535}

# On noise, run lengths alone encode 1.5 times as fast as matches (deflate level 1), and the files
# are no larger.
_PNG = {"compress_level": 1, "compress_type": zlib.Z_RLE}
# `exact` keeps the colour under transparent pixels, which carries noise as well.
_WEBP = {"lossless": True, "quality": 0, "method": 0, "exact": True}
_JPEG = {"quality": 95, "subsampling": "4:4:4"}

# What is kept of the EXIF data. Thumbnails, previews in maker notes and other embedded pictures
# are unprotected copies; orientation and sizes no longer hold for upright pixels.
_KEPT_TAGS = {
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
}
_DROPPED_CAPTURE_TAGS = {
    ExifTags.Base.MakerNote,
    ExifTags.Base.ExifInteroperabilityOffset,
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
}

# IPTC Photo Metadata Standard 2023.1, "Data Mining", with a value of the PLUS vocabulary.
OPT_OUT = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/">
<plus:DataMining>http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING</plus:DataMining>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


class UnreadableError(Exception):
    """A file that cannot be protected, and why, in a few words."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright picture in 8 bits, and what is kept beside the pixels."""

    pixels: np.ndarray  # uint8 [h, w, 3], the colour under the alpha
    alpha: np.ndarray | None = None  # uint8 [h, w]
    icc: bytes | None = None  # a profile of RGB values
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None

    def on_white(self) -> Image.Image:
        """Returns what a page shows, and what `data.decode.decode` returns."""
        color = Image.fromarray(self.pixels)
        return color if self.alpha is None else composite(color, Image.fromarray(self.alpha))


@dataclass(frozen=True)
class Encoding:
    """How pictures are written: "png", "webp" (both lossless) or "jpeg" (4:4:4, quality 95)."""

    format: str = "png"
    opt_out: bool = False  # adds the machine-readable reservation against training


PNG = Encoding()


def read(data: bytes, *, strip_gps: bool = False) -> Picture:
    """Decodes a file's content, upright; pixels are those of `data.decode.split`.

    Args:
      data: the file's content.
      strip_gps: leaves the place out of the EXIF data that are kept.

    Raises:
      UnreadableError: it is no picture, damaged, animated, or too large to be decoded safely.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _read(image, strip_gps)
    except UnreadableError:
        raise
    except UnidentifiedImageError as error:
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
            raise UnreadableError("HEIC: pip install 'ucjax[heic]'") from error
        raise UnreadableError("not a picture, or of a kind that Pillow cannot read") from error
    except Image.DecompressionBombError as error:
        # Pillow warns of half as many, and refuses these.
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise UnreadableError(f"more than {limit} million pixels: split it") from error
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableError(f"damaged ({reason})") from error


def _read(image: Image.Image, strip_gps: bool) -> Picture:
    frames = getattr(image, "n_frames", 1)
    # The further pictures of these, from phones and stereo cameras, are previews and depths.
    if frames > 1 and image.format not in ("MPO", "HEIF"):
        raise UnreadableError(f"{frames} frames: an animation; save the frames as pictures")
    color, alpha = split(image)
    icc = image.info.get("icc_profile")
    return Picture(
        pixels=np.asarray(color),
        alpha=None if alpha is None else np.asarray(alpha),
        # A profile of grey or CMYK values says nothing about the RGB values they became.
        icc=icc if icc and icc[16:20] == b"RGB " else None,
        exif=_kept_exif(image, strip_gps),
        dpi=_dpi(image),
    )


def _kept_exif(image: Image.Image, strip_gps: bool) -> bytes | None:
    kept = Image.Exif()
    # Metadata that cannot be parsed are no reason to lose the picture.
    try:
        found = image.getexif()
        kept.update({tag: _raw(value) for tag, value in found.items() if tag in _KEPT_TAGS})
        for block in (ExifTags.IFD.Exif, *(() if strip_gps else (ExifTags.IFD.GPSInfo,))):
            values = {
                tag: _raw(value)
                for tag, value in found.get_ifd(block).items()
                if block != ExifTags.IFD.Exif or tag not in _DROPPED_CAPTURE_TAGS
            }
            if values:
                kept[block] = values
        return kept.tobytes() if len(kept) else None
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, struct.error):
        return None


def _raw(value: Any) -> Any:
    # Pillow reads text as Latin-1 and writes it as ASCII: a copyright sign would become "?".
    # Only such text, since it gives up knowing the type of bytes in the capture block.
    odd = isinstance(value, str) and not value.isascii()
    return value.encode("latin-1") if odd else value


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < math.inf and 0 < down < math.inf else None


def write(picture: Picture, encoding: Encoding) -> bytes:
    """Encodes a picture; equal pictures give equal bytes.

    Raises:
      UnreadableError: the format cannot hold it.
    """
    longest = max(picture.pixels.shape[:2])
    if longest > _LONGEST_SIDE[encoding.format]:
        raise UnreadableError(
            f"{longest} pixels long, {encoding.format} ends at {_LONGEST_SIDE[encoding.format]}: "
            "choose --format png"
        )
    image, settings = Image.fromarray(picture.pixels), dict[str, object]()
    if picture.alpha is not None:
        if encoding.format == "jpeg":
            raise UnreadableError("has transparency, which JPEG cannot hold: choose --format png")
        image.putalpha(Image.fromarray(picture.alpha))
    kept = {"icc_profile": picture.icc, "exif": picture.exif, "dpi": picture.dpi}
    settings |= {key: value for key, value in kept.items() if value is not None}
    if encoding.format == "png":
        if encoding.opt_out:
            settings["pnginfo"] = chunk = PngImagePlugin.PngInfo()
            chunk.add_itxt("XML:com.adobe.xmp", OPT_OUT.decode())
        settings |= _PNG
    else:
        settings |= {"xmp": OPT_OUT} if encoding.opt_out else {}
        settings |= _WEBP if encoding.format == "webp" else _JPEG
    encoded = io.BytesIO()
    image.save(encoded, encoding.format.upper(), **settings)
    return encoded.getvalue()
