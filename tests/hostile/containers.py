"""Files with something hidden in them, built byte by byte."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def before_pixels(png: bytes, *chunks: bytes) -> bytes:
    """A PNG file with more chunks before its pixels."""
    place = png.index(b"IDAT") - 4
    return png[:place] + b"".join(chunks) + png[place:]


def segment(marker: int, data: bytes) -> bytes:
    """A JPEG segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def in_jpeg(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG file with more segments at its beginning."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def in_riff(webp: bytes, kind: bytes, data: bytes) -> bytes:
    """A WebP file with one more chunk."""
    body = webp[8:] + kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def encoded(image: Image.Image, form: str, **settings) -> bytes:
    """A picture's file."""
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def png16(values: np.ndarray, color_type: int, *chunks: bytes) -> bytes:
    """Writes uint16 `[h, w, channels]` as a 16-bit PNG, which Pillow itself cannot."""
    h, w, _ = values.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", w, h, 16, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", zlib.compress(lines))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def tiff_of(directories: int) -> bytes:
    """A TIFF file with as many pages, all of one pixel."""
    tags = [
        (256, 1),
        (257, 1),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 1),
        (279, 1),
    ]
    size = 2 + 12 * len(tags) + 4
    data = b"II*\0" + struct.pack("<I", 12) + b"\x80\0\0\0"
    for number in range(directories):
        following = 12 + size * (number + 1) if number + 1 < directories else 0
        data += struct.pack("<H", len(tags))
        data += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        data += struct.pack("<I", following)
    return data


def profile_with(profile: bytes, tag: bytes, data: bytes) -> bytes:
    """An ICC profile with one more tag."""
    (count,) = struct.unpack_from(">I", profile, 128)
    table = bytearray(profile[132 : 132 + 12 * count])
    for index in range(count):  # every tag moves by the length of a new entry
        (start,) = struct.unpack_from(">I", table, 12 * index + 4)
        struct.pack_into(">I", table, 12 * index + 4, start + 12)
    body = profile[132 + 12 * count :]
    start = 132 + 12 * (count + 1) + len(body)
    entry = struct.pack(">4sII", tag, start, len(data))
    whole = profile[4:128] + struct.pack(">I", count + 1) + bytes(table) + entry + body + data
    return struct.pack(">I", 4 + len(whole)) + whole
