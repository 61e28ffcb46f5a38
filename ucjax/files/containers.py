"""What lies in a PNG, WebP or JPEG file beside one picture: parts, and data after its end.

Read from the formats' own descriptions, without the decoder: a decoder passes over what it does
not know, which is where a clean copy would be hidden.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What the writer's encoders write. No animation, no text, nothing private.
_PNG_CHUNKS = {
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"eXIf", b"pHYs"),
    *(b"gAMA", b"cHRM", b"sRGB", b"cICP"),
}
_PNG_TEXT = b"XML:com.adobe.xmp\0"
_WEBP_CHUNKS = {b"VP8X", b"VP8L", b"VP8 ", b"ALPH", b"ICCP", b"EXIF", b"XMP "}
_JPEG_APPLICATIONS = {
    0xE0: (b"JFIF\0",),
    0xE1: (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"),
    0xE2: (b"ICC_PROFILE\0",),
    0xEE: (b"Adobe",),
}
_JPEG_TABLES = {*range(0xC0, 0xD0), 0xDB, 0xDD} - {0xC8, 0xCC}
_SOS, _EOI = 0xDA, 0xD9


def strange_parts(data: bytes) -> list[str]:
    """Returns what a file holds beside one picture and the metadata we write, in words.

    Args:
      data: a PNG, WebP or JPEG file.
    """
    for signature, look in (
        (PNG_SIGNATURE, _strange_png),
        (b"\xff\xd8", _strange_jpeg),
        (b"RIFF", _strange_webp),
    ):
        if data.startswith(signature):
            try:
                return list(dict.fromkeys(look(data)))
            except (struct.error, IndexError):
                return ["a part that is cut off"]
    return ["another format than PNG, WebP or JPEG"]


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yields kind, content and end of every chunk of a PNG file up to the last.

    Raises:
      struct.error: it is cut off.
    """
    place = len(PNG_SIGNATURE)
    while True:
        size, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + size
        if end > len(data):
            raise struct.error("cut off")
        yield kind, data[place + 8 : place + 8 + size], end
        if kind == b"IEND":
            return
        place = end


def _strange_png(data: bytes) -> Iterator[str]:
    place, seen = 0, set()
    for kind, content, end in png_chunks(data):
        place = end
        known = kind in _PNG_CHUNKS or (kind == b"iTXt" and content.startswith(_PNG_TEXT))
        if not known:
            yield _FRAMES if kind in (b"acTL", b"fcTL", b"fdAT") else f"a chunk {_named(kind)}"
        if kind in seen and kind != b"IDAT":
            yield f"several chunks {_named(kind)}"
        seen.add(kind)
    yield from _after(data, place)


_FRAMES = "further frames"


def _strange_webp(data: bytes) -> Iterator[str]:
    (size,) = struct.unpack_from("<I", data, 4)
    place, end, seen = 12, 8 + size, set()
    while place < end:
        kind, length = struct.unpack_from("<4sI", data, place)
        if kind not in _WEBP_CHUNKS:
            yield _FRAMES if kind in (b"ANIM", b"ANMF") else f"a chunk {_named(kind)}"
        if kind in seen:
            yield f"several chunks {_named(kind)}"
        seen.add(kind)
        place += 8 + length + length % 2
    yield from _after(data, end)


def _strange_jpeg(data: bytes) -> Iterator[str]:
    place = 2
    while True:
        if data[place] != 0xFF:
            yield "bytes between its segments"
        place = data.index(b"\xff", place)
        while data[place] == 0xFF:
            place += 1
        marker = data[place]
        place += 1
        if marker == _EOI:
            break
        (size,) = struct.unpack_from(">H", data, place)
        content = data[place + 2 : place + size]
        place += size
        if marker == _SOS:
            place = _end_of_scan(data, place)
        elif marker in _JPEG_APPLICATIONS:
            if not content.startswith(_JPEG_APPLICATIONS[marker]):
                frames = content.startswith(b"MPF\0")
                yield _FRAMES if frames else _segment(marker)
            elif marker == 0xE0 and len(content) > 14:
                yield "a thumbnail"
            elif marker == 0xEE and len(content) > 12:
                yield "a segment APP14"
        elif marker not in _JPEG_TABLES:
            yield _segment(marker)
    yield from _after(data, place)


def _segment(marker: int) -> str:
    if marker == 0xFE:
        return "a comment"
    return f"a segment APP{marker - 0xE0}" if 0xE0 <= marker <= 0xEF else f"a segment {marker:02X}"


def _end_of_scan(data: bytes, place: int) -> int:
    """Returns where the marker after entropy-coded data begins."""
    while True:
        try:
            place = data.index(b"\xff", place)
        except ValueError as error:
            raise IndexError("cut off") from error
        following = data[place + 1]
        if following != 0 and not 0xD0 <= following <= 0xD7 and following != 0xFF:
            return place
        place += 1 if following == 0xFF else 2


def _after(data: bytes, end: int) -> Iterator[str]:
    if len(data) > end:
        yield f"{len(data) - end} bytes after the end of the picture"
    elif len(data) < end:
        yield "a part that is cut off"


def _named(kind: bytes) -> str:
    return "".join(chr(c) if 32 < c < 127 else f"\\x{c:02x}" for c in kind)


def png_color(data: bytes) -> dict[str, bytes]:
    """Returns the chunks of a PNG file that say how its numbers are shown, but for sRGB's own.

    They are cICP, and gAMA with cHRM where neither an ICC profile nor sRGB overrules them.
    """
    found: dict[bytes, bytes] = {}
    try:
        for kind, content, _ in png_chunks(data):
            if kind == b"IDAT":
                break
            found[kind] = content
    except struct.error:
        return {}
    if b"cICP" in found and found[b"cICP"][:2] != b"\x01\x0d":  # BT.709 and sRGB's curve
        return {"cICP": found[b"cICP"]}
    if {b"iCCP", b"sRGB", b"cICP"} & found.keys():
        return {}
    kept = {}
    gamma, places = found.get(b"gAMA", b""), found.get(b"cHRM", b"")
    if len(gamma) == 4 and abs(struct.unpack(">I", gamma)[0] - 45455) > 1000:
        kept["gAMA"] = gamma
    if len(places) == 32 and not _near(struct.unpack(">8I", places), _SRGB):
        kept["cHRM"] = places
    return kept


_SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def _near(values: tuple[int, ...], others: tuple[int, ...]) -> bool:
    return all(abs(a - b) <= 500 for a, b in zip(values, others, strict=True))
