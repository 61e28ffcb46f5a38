"""Odd and hostile files: how to make each, and what the tool must say of it ("" protects it)."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms


def photo(width=48, height=40, seed=0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def saved(mode=None, size=(48, 40), **settings) -> Callable[[Path], None]:
    def make(path):
        image = photo(*size)
        (image.convert(mode) if mode else image).save(path, **settings)

    return make


def as_format(form, **settings):
    return lambda path: photo().save(path, form, **settings)


def content(data: bytes):
    return lambda path: path.write_bytes(data)


def cut(form, share):
    def make(path):
        photo(200, 160).save(path, form)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return make


def array(values):
    return lambda path: Image.fromarray(values).save(path)


def frames(form):
    def make(path):
        rest = [photo(seed=1), photo(seed=2)]
        photo().save(path, form, save_all=True, append_images=rest)

    return make


def with_exif(orientation=1, thumbnail=False, place=False, note=False):
    def make(path):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        exif[ExifTags.Base.Copyright] = "© Ünal".encode("latin-1")
        exif[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09"}
        if note:
            exif[ExifTags.IFD.Exif] = {ExifTags.Base.MakerNote: b"a preview"}
        if place:
            exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (52.0, 30.0, 0.0), 3: "E", 4: (13.0, 0.0, 0.0)}
        data = exif.tobytes()
        if thumbnail:
            data = _with_thumbnail(data)
        photo().save(path, exif=data)

    return make


def _with_thumbnail(exif: bytes) -> bytes:
    """Appends a second directory (IFD1), which is where cameras keep a small JPEG."""
    head, tiff = exif[:6], bytearray(exif[6:])
    order = "<" if tiff[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, start)
    struct.pack_into(order + "I", tiff, start + 2 + 12 * count, len(tiff))
    jpeg = b"\xff\xd8\xff\xd9"
    data = len(tiff) + 2 + 2 * 12 + 4
    tiff += struct.pack(order + "H", 2)
    tiff += struct.pack(order + "HHII", 0x0201, 4, 1, data)
    tiff += struct.pack(order + "HHII", 0x0202, 4, 1, len(jpeg))
    tiff += struct.pack(order + "I", 0) + jpeg
    return head + bytes(tiff)


def png_of(width, height) -> bytes:
    """A PNG that states a size without holding the pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


def damaged_chunk(path):
    photo().save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def with_profile(path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo().save(path, icc_profile=profile)


def transparent_palette(path):
    photo().convert("P").save(path, transparency=3)


def half_transparent(path):
    image = photo()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(path)


def with_c2pa(path):
    """A content credential: a JUMBF box in APP11, which no longer holds for changed pixels."""
    photo().save(path)
    data = path.read_bytes()
    box = b"JP\0\1\0\0\0\1" + struct.pack(">I", 40) + b"jumb" + b"c2pa credential".ljust(32)
    path.write_bytes(data[:2] + b"\xff\xeb" + struct.pack(">H", len(box) + 2) + box + data[2:])


GREY16 = np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) * 34
FLOATS = np.linspace(0, 1, 48 * 40, dtype=np.float32).reshape(40, 48)

# name -> (how it is made, what is said of it; "" where it is protected)
FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "rgb.jpg": (saved(), ""),
    "rgb.jpeg": (saved(), ""),
    "rgb.jfif": (as_format("JPEG"), ""),
    "rgb.png": (saved(), ""),
    "rgb.webp": (saved(), ""),
    "rgb.bmp": (saved(), ""),
    "rgb.tif": (saved(), ""),
    "rgb.tiff": (saved(), ""),
    "rgb.gif": (saved(), ""),
    "rgb.avif": (saved(), ""),
    "UPPER.JPG": (saved(), ""),
    "upper.png": (saved(), ""),
    "Upper.webp": (saved(), ""),
    "grey.jpg": (saved("L"), ""),
    "grey.png": (saved("L"), ""),
    "grey and alpha.png": (saved("LA"), ""),
    "one bit.png": (saved("1"), ""),
    "palette.png": (saved("P"), ""),
    "palette, one transparent.png": (transparent_palette, ""),
    "alpha.png": (half_transparent, ""),
    "alpha.webp": (half_transparent, ""),
    "cmyk.jpg": (saved("CMYK"), ""),
    "cmyk.tif": (saved("CMYK"), ""),
    "lab.tif": (saved("LAB"), ""),
    "sixteen bits.png": (array(GREY16), ""),
    "sixteen bits.tif": (array(GREY16), ""),
    "thirty-two bits.tif": (array(GREY16.astype(np.int32)), ""),
    "floats.tif": (array(FLOATS), ""),
    "progressive.jpg": (saved(progressive=True), ""),
    "profile.jpg": (with_profile, ""),
    "turned 3.jpg": (with_exif(orientation=3), ""),
    "turned 6.jpg": (with_exif(orientation=6), ""),
    "turned 8.png": (with_exif(orientation=8), ""),
    "mirrored 5.webp": (with_exif(orientation=5), ""),
    "thumbnail.jpg": (with_exif(thumbnail=True), ""),
    "maker note.jpg": (with_exif(note=True), ""),
    "place.jpg": (with_exif(place=True), ""),
    "credential.jpg": (with_c2pa, ""),
    "damaged exif.jpg": (saved(exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), ""),
    "wrong extension.png": (as_format("JPEG"), ""),
    "two.dots.jpg": (saved(), ""),
    "ünï code 图.jpg": (saved(), ""),
    "'quotes' \"and\" $ & ;.jpg": (saved(), ""),
    "new\nline.jpg": (saved(), ""),
    f"{'long' * 60}.jpg": (saved(), ""),
    "not \udcff utf-8.jpg": (saved(), ""),
    "not \udcff utf-8, cut.jpg": (cut("JPEG", 0.5), "damaged (image file is truncated"),
    "deep/er/and/deeper.jpg": (saved(), ""),
    "link.jpg": (lambda path: os.symlink("rgb.jpg", path), ""),
    "one pixel.png": (saved(size=(1, 1)), "1 x 1 pixels: too small"),
    "one high.png": (saved(size=(20, 1)), "20 x 1 pixels: too small"),
    "one wide.png": (saved(size=(1, 20)), "1 x 20 pixels: too small"),
    "small.png": (saved(size=(9, 8)), ""),
    "long.png": (saved(size=(160, 8)), ""),
    "too long.png": (saved(size=(8, 161)), "more than 20 times as long as wide"),
    "empty.jpg": (content(b""), "not a picture"),
    "text.jpg": (content(b"no picture at all"), "not a picture"),
    "page.jpg": (content(b"<!doctype html><html></html>"), "not a picture"),
    "drawing.png": (content(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "not a picture"),
    "phone.heic": (content(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), "HEIC"),
    "cut.jpg": (cut("JPEG", 0.5), "damaged (image file is truncated"),
    "cut.png": (cut("PNG", 0.5), "damaged"),
    "cut.webp": (cut("WEBP", 0.5), "damaged"),
    "damaged.png": (damaged_chunk, "damaged"),
    "bomb.png": (content(png_of(60_000, 60_000)), "million pixels"),
    "missing pixels.png": (content(png_of(300, 300)), "damaged"),
    "moving.gif": (frames("GIF"), "3 frames: an animation"),
    "moving.webp": (frames("WEBP"), "3 frames: an animation"),
    "moving.png": (frames("PNG"), "frames: an animation"),
    "pages.tif": (frames("TIFF"), "3 frames: an animation"),
    "pipe.jpg": (os.mkfifo, "not a file"),
    "dangling.jpg": (lambda path: os.symlink("nowhere.jpg", path), "No such file"),
    "loop.jpg": (lambda path: os.symlink("loop.jpg", path), "symbolic links"),
}
# Not pictures by name, or not there to be looked at: passed over without a word.
PASSED_OVER = ("notes.txt", ".hidden.jpg", "__MACOSX/rgb.jpg", "folder.jpg/.keep")


def make(root: Path) -> None:
    """Writes all files, and links that lead a walk in circles."""
    for name, (write, _) in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    for name in PASSED_OVER:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not to be read")
    (root / "deep" / "circle").symlink_to(root, target_is_directory=True)
