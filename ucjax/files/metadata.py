"""What of a picture's metadata goes into its copy: an allow-list, rebuilt value by value.

Everything else stays behind: places, serial numbers, owners, notes of makers, thumbnails and any
other field that nobody thought of. To clean what is clean changes nothing.
"""

from __future__ import annotations

import math
import numbers
import struct
from collections.abc import Collection, Iterator
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from PIL import ExifTags, Image

Base, GPS = ExifTags.Base, ExifTags.GPS
# What `keep` may name beyond the list.
KEEPABLE = ("camera", "gps")
# No picture fits into a text that is so short, and no rights statement needs a longer one.
LONGEST_TEXT = 2000
# Longer than any word or address, and shorter than a picture spelt in letters.
_LONGEST_WORD = 200

_MAIN = {Base.ImageDescription, Base.DateTime, Base.Artist, Base.Copyright}
_CAPTURE = {
    Base.DateTimeOriginal,
    Base.DateTimeDigitized,
    Base.OffsetTime,
    Base.OffsetTimeOriginal,
    Base.OffsetTimeDigitized,
    Base.SubsecTime,
    Base.SubsecTimeOriginal,
    Base.SubsecTimeDigitized,
}
_CAMERA = {Base.Make, Base.Model}
_CAMERA_CAPTURE = {
    Base.LensMake,
    Base.LensModel,
    Base.ExposureTime,
    Base.FNumber,
    Base.ISOSpeedRatings,
    Base.FocalLength,
}
_GPS = {
    GPS.GPSLatitudeRef,
    GPS.GPSLatitude,
    GPS.GPSLongitudeRef,
    GPS.GPSLongitude,
    GPS.GPSAltitudeRef,
    GPS.GPSAltitude,
    GPS.GPSTimeStamp,
    GPS.GPSDateStamp,
    GPS.GPSImgDirectionRef,
    GPS.GPSImgDirection,
    GPS.GPSMapDatum,
}

# What an owner may ask after, and the tags that tell it; without tags it is found elsewhere.
KINDS: dict[str, set[int]] = {
    "rights and authors": {Base.Artist, Base.Copyright},
    "description": {Base.ImageDescription},
    "date": {Base.DateTime, *_CAPTURE},
    "colour profile": set(),
    "camera and exposure": _CAMERA | _CAMERA_CAPTURE,
    "place": set(),
    "serial numbers, owner's name": {
        *(Base.CameraOwnerName, Base.BodySerialNumber, Base.LensSerialNumber),
        *(Base.CameraSerialNumber, Base.HostComputer),
    },
    "maker's notes, comments": {Base.MakerNote, Base.UserComment},
    "thumbnail": set(),
    "other fields": set(),
}
# How a file is built, and nothing about its owner.
_STRUCTURE = {
    *(Base.ImageWidth, Base.ImageLength, Base.BitsPerSample, Base.Compression),
    *(Base.PhotometricInterpretation, Base.StripOffsets, Base.Orientation, Base.SamplesPerPixel),
    *(Base.RowsPerStrip, Base.StripByteCounts, Base.XResolution, Base.YResolution),
    *(Base.PlanarConfiguration, Base.ResolutionUnit, Base.YCbCrPositioning, Base.SampleFormat),
    *(Base.ExifVersion, Base.ComponentsConfiguration, Base.FlashPixVersion, Base.ColorSpace),
    *(Base.ExifImageWidth, Base.ExifImageHeight, Base.ExifInteroperabilityOffset, Base.Predictor),
    *(ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop),
}

# The tags of an RGB display or input profile (ICC.1:2022 and the older ICC.1:2001).
_ICC_TAGS = {
    *(b"desc", b"cprt", b"wtpt", b"bkpt", b"chad", b"lumi", b"meas", b"tech", b"view", b"chrm"),
    *(b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC", b"gamt", b"cicp", b"dmnd", b"dmdd"),
    *(b"A2B0", b"A2B1", b"A2B2", b"B2A0", b"B2A1", b"B2A2", b"D2B0", b"B2D0", b"vued"),
}
_ICC_TEXTS = {b"desc", b"cprt", b"dmnd", b"dmdd", b"vued"}
LARGEST_ICC = 2**20  # Pillow reads no larger one from a PNG file

_XMP_NAMESPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
}
_XMP_RIGHTS = {
    "dc": ("creator", "rights"),
    "xmpRights": ("Marked", "UsageTerms", "WebStatement", "Certificate"),
    "plus": ("DataMining", "OtherConstraints"),
}
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
# IPTC Photo Metadata Standard 2023.1, "Data Mining", with a value of the PLUS vocabulary.
OPT_OUT = {"plus:DataMining": "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING"}

_UNREADABLE = (
    *(OSError, ValueError, SyntaxError, TypeError, KeyError, struct.error),
    *(ZeroDivisionError, OverflowError, RecursionError),
)


def exif(image: Image.Image, keep: Collection[str] = ()) -> bytes | None:
    """Returns the EXIF data to keep of an opened picture, None if there are none.

    Args:
      image: opened.
      keep: names of `KEEPABLE`.
    """
    kept = Image.Exif()
    # Metadata that cannot be parsed are no reason to lose the picture.
    try:
        found = image.getexif()
        kept.update(_allowed(found, _MAIN | (_CAMERA if "camera" in keep else set())))
        capture = _CAPTURE | (_CAMERA_CAPTURE if "camera" in keep else set())
        blocks: list[tuple[int, Collection[int]]] = [(ExifTags.IFD.Exif, capture)]
        if "gps" in keep:
            blocks.append((ExifTags.IFD.GPSInfo, _GPS))
        for block, tags in blocks:
            if values := _allowed(found.get_ifd(block), tags):
                kept[block] = values
        return kept.tobytes() if len(kept) else None
    except _UNREADABLE:
        return None


def foreign_tags(image: Image.Image, keep: Collection[str] = ()) -> list[str]:
    """Returns what is in the EXIF data of an opened picture and would not be kept."""
    try:
        found = image.getexif()
        pointers = {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
        blocks: list[tuple[dict[int, Any], Collection[int]]] = [
            (dict(found), _MAIN | pointers | (_CAMERA if "camera" in keep else set())),
            (
                found.get_ifd(ExifTags.IFD.Exif),
                _CAPTURE | (_CAMERA_CAPTURE if "camera" in keep else set()),
            ),
            (found.get_ifd(ExifTags.IFD.GPSInfo), _GPS if "gps" in keep else set()),
            (found.get_ifd(ExifTags.IFD.IFD1), set()),
        ]
        return sorted(
            f"0x{tag:04x}"
            for values, allowed in blocks
            for tag, value in values.items()
            if tag not in allowed or (tag not in pointers and not _is_clean(value))
        )
    except _UNREADABLE:
        return ["what cannot be parsed"]


def kinds(image: Image.Image) -> set[str]:
    """Returns which of `KINDS` an opened picture holds."""
    found = {"rights and authors"} if rights(image) else set()
    if image.info.get("icc_profile"):
        found.add("colour profile")
    try:
        exif = image.getexif()
        capture, place, thumbnail = (
            {*exif.get_ifd(block)}
            for block in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.IFD1)
        )
    except _UNREADABLE:
        return found | {"other fields"}
    tags = {*exif} | capture
    found |= {kind for kind, members in KINDS.items() if tags & members}
    found |= {kind for kind, block in (("place", place), ("thumbnail", thumbnail)) if block}
    if tags.difference(*KINDS.values(), _STRUCTURE):
        found.add("other fields")
    return found


def _allowed(values: Any, tags: Collection[int]) -> dict[int, Any]:
    """Returns the values of these tags that are short texts or few numbers."""
    cleaned = {tag: _value(value) for tag, value in values.items() if tag in tags}
    return {tag: value for tag, value in cleaned.items() if value is not None}


def _is_clean(value: Any) -> bool:
    cleaned = _value(value)
    if isinstance(value, bytes | str) and isinstance(cleaned, bytes | str):
        return _bytes(cleaned) == _bytes(value).strip(b"\0 ")
    return cleaned is not None


def _value(value: Any) -> Any:
    if isinstance(value, bytes) and len(value) == 1:
        return value  # such as the reference of an altitude
    if isinstance(value, bytes | str):
        return _text(_bytes(value))
    listed = value if isinstance(value, tuple) else (value,)
    if len(listed) > 3 or not all(isinstance(x, numbers.Rational) for x in listed):
        return None
    return value if all(math.isfinite(x) for x in listed) else None


def _bytes(value: bytes | str) -> bytes:
    # Pillow reads texts as Latin-1, whatever they are.
    return value.encode("latin-1", "replace") if isinstance(value, str) else value


def _text(data: bytes) -> Any:
    try:
        text, encoding = data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        text, encoding = data.decode("latin-1"), "latin-1"
    text = _readable(text)
    # Pillow would write text as ASCII: a copyright sign would become "?". Bytes only for such
    # text, since it gives up knowing the type of bytes in the capture block.
    return (text if text.isascii() else text.encode(encoding)) or None


def _readable(text: str) -> str:
    """Returns one line of a text, cut; nothing if it is none that anybody could read."""
    text = "".join(c if c.isprintable() else " " for c in text)[:LONGEST_TEXT].strip()
    return "" if any(len(word) > _LONGEST_WORD for word in text.split(" ")) else text


def rights(image: Image.Image) -> dict[str, str]:
    """Returns the fields about rights in the XMP data of an opened picture."""
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    packet = packet.encode() if isinstance(packet, str) else packet
    # An entity could stand for gigabytes.
    if not packet or len(packet) > 2**20 or b"<!" in packet:
        return {}
    try:
        root = ElementTree.fromstring(packet.strip(b"\0 \t\r\n"))
    except (ElementTree.ParseError, ValueError, LookupError):
        return {}
    return dict(_rights_in(root))


def _rights_in(root: ElementTree.Element) -> Iterator[tuple[str, str]]:
    for description in root.iter(f"{{{_RDF}}}Description"):
        for prefix, names in _XMP_RIGHTS.items():
            for name in names:
                key = f"{{{_XMP_NAMESPACES[prefix]}}}{name}"
                texts = [description.get(key) or ""]
                texts += [t for found in description.findall(key) for t in found.itertext()]
                text = "; ".join(filter(None, (" ".join(t.split()) for t in texts)))
                if text := _readable(text):
                    yield f"{prefix}:{name}", text


def xmp(fields: dict[str, str]) -> bytes:
    """Returns an XMP packet of fields about rights; equal fields give equal bytes."""
    spaces = "".join(f'\n xmlns:{key}="{uri}"' for key, uri in _XMP_NAMESPACES.items())
    lines = "".join(f"<{key}>{escape(fields[key])}</{key}>\n" for key in sorted(fields))
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF\n xmlns:rdf="{_RDF}">'
        f'<rdf:Description rdf:about=""{spaces}>\n{lines}'
        '</rdf:Description></rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
    ).encode()


def icc(profile: bytes | None) -> bytes | None:
    """Returns a colour profile of RGB values, unchanged if it holds known tags alone.

    Private tags, long texts and what lies between or after the tags are left out. None for a
    profile of grey or CMYK values, which say nothing about the RGB values that those became, and
    for one that cannot be parsed.
    """
    if not profile or len(profile) < 132 or profile[16:20] != b"RGB ":
        return None
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > 100 or len(profile) < 132 + 12 * count:
        return None
    entries = [struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(count)]
    known = [
        (tag, start, size)
        for tag, start, size in entries
        if tag in _ICC_TAGS
        and start + size <= len(profile)
        and not (tag in _ICC_TEXTS and size > 2 * LONGEST_TEXT)
    ]
    spans = sorted({(start, start + size) for _, start, size in known})
    end = 132 + 12 * count
    tidy = len(known) == count
    for start, stop in spans:  # tags begin at multiples of four
        tidy &= start - end <= 3
        end = max(end, stop)
    if tidy and len(profile) - end <= 3:
        return profile
    return _rebuilt(profile, known)


def _rebuilt(profile: bytes, known: list[tuple[bytes, int, int]]) -> bytes:
    table, data = struct.pack(">I", len(known)), b""
    first = 132 + 12 * len(known)
    for tag, start, size in known:
        table += struct.pack(">4sII", tag, first + len(data), size)
        data += profile[start : start + size] + bytes(-size % 4)
    # The header's size, and its identifier, which is a hash of the profile (0: none).
    header = struct.pack(">I", first + len(data)) + profile[4:84] + bytes(16) + bytes(28)
    return header + table + data


def dpi(image: Image.Image) -> tuple[float, float] | None:
    """Returns the resolution of an opened picture, None where no format could hold it."""
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    # JPEG's two bytes.
    return (across, down) if 0.5 <= across <= 65535 and 0.5 <= down <= 65535 else None
