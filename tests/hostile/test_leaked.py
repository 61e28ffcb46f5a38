"""Nothing of the clean picture, of its owner or of the place leaves with a copy."""

import functools
import io
import stat
import struct

import containers
import numpy as np
import odd_files
import pytest
import ready
from PIL import ExifTags, Image, ImageCms
from ready import one_line, protect, ucjax

from ucjax.data import images
from ucjax.errors import printable
from ucjax.files import metadata, picture
from ucjax.files.picture import Encoding

# Of a second picture that is damaged.
pytestmark = pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO file")

FORMATS = ("png", "webp", "jpeg")
# In tables of the ICC's, of Adobe's and of EXIF 2.32.
PRIVATE_TAG, SERIAL, OWNER, LENS_SERIAL = 0xC000, 0xA431, 0xA430, 0xA435


def jpeg(seed=1) -> bytes:
    return containers.encoded(odd_files.photo(seed=seed), "JPEG")


def exif_with(**fields) -> bytes:
    exif = Image.Exif()
    for block, values in fields.items():
        if block == "main":
            exif.update(values)
        else:
            exif[getattr(ExifTags.IFD, block)] = values
    return exif.tobytes()


@functools.cache  # it tells the time
def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def xmp_with(inner: str) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        'xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/">'
        f"{inner}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


# A clean JPEG in every place that a picture's file offers; `secret` is what must not be found.
HIDDEN = {
    "maker note": lambda secret: {"exif": exif_with(Exif={0x927C: secret})},
    "private tag": lambda secret: {"exif": exif_with(main={PRIVATE_TAG: secret})},
    "user comment": lambda secret: {"exif": exif_with(Exif={0x9286: secret})},
    "description": lambda secret: {"exif": exif_with(main={0x010E: secret})},
    "place": lambda secret: {"exif": exif_with(GPSInfo={0x001B: secret})},
    "profile": lambda secret: {"icc_profile": containers.profile_with(profile(), b"prVt", secret)},
    "end of the profile": lambda secret: {"icc_profile": profile() + secret},
    "XMP": lambda secret: {
        "xmp": xmp_with(f"<xmp:Thumbnails>{secret.hex()}</xmp:Thumbnails>"),
    },
    "rights": lambda secret: {"xmp": xmp_with(f"<dc:rights>{secret.hex()}</dc:rights>")},
    "comment": lambda secret: {"comment": secret},
}
BY_HAND = {
    "second picture": lambda data, secret: containers.in_jpeg(
        data, containers.segment(0xE2, b"MPF\0" + secret)
    ),
    "private segment": lambda data, secret: containers.in_jpeg(
        data, containers.segment(0xED, b"Photoshop 3.0\0" + secret)
    ),
    "thumbnail": lambda data, secret: containers.in_jpeg(
        data, containers.segment(0xE1, _exif_thumbnail(secret))
    ),
    "end": lambda data, secret: data + secret,
}


def _exif_thumbnail(secret):
    """An IFD1 with a JPEG, after an IFD0 of one tag."""
    first = struct.pack("<HHHIII", 1, 0x0112, 3, 1, 1, 26)
    second = struct.pack("<H", 2)
    second += struct.pack("<HHIIHHIII", 0x0201, 4, 1, 56, 0x0202, 4, 1, len(secret), 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second + secret


def forms(secret: bytes) -> list[bytes]:
    """The secret as it may be spelt, in parts that no re-encoding would leave."""
    middle = secret[-90:-10]  # of the pixels: tables are those of every JPEG
    return [middle, middle.hex().encode(), middle.hex().upper().encode()]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("where", [*HIDDEN, *BY_HAND])
def test_a_clean_picture_hidden_anywhere_is_in_no_copy(where, form):
    secret = jpeg()
    if where in HIDDEN:
        source = containers.encoded(odd_files.photo(), "JPEG", **HIDDEN[where](secret))
    else:
        source = BY_HAND[where](jpeg(seed=0), secret)
    assert any(part in source for part in forms(secret)), "the test hides nothing"
    for keep in ((), metadata.KEEPABLE):
        copy = picture.write(picture.read(source, keep=keep), Encoding(form))
        assert not [part for part in forms(secret) if part in copy]
        assert b"prVt" not in copy


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_sources_hide_nothing_either(kind):
    secret = jpeg()
    settings = HIDDEN["profile"](secret)
    settings["exif"] = exif_with(main={PRIVATE_TAG: secret}, Exif={0x927C: secret})
    source = containers.encoded(odd_files.photo(), kind, **settings)
    if kind == "PNG":
        source = containers.before_pixels(source, containers.chunk(b"prVt", secret))
    if kind == "WEBP":
        source = containers.in_riff(source, b"JUNK", secret)
    assert secret in source or kind == "PNG"
    for form in FORMATS:
        copy = picture.write(picture.read(source), Encoding(form))
        assert not [part for part in forms(secret) if part in copy]


EVERYTHING = exif_with(
    main={
        0x010E: "a cat", 0x010F: "Maker", 0x0110: "Model", 0x0131: "Program", 0x0132: "2024:05:06",
        0x013B: "Ünal".encode(), 0x013C: "host name", 0x8298: "© me".encode(), 0xC62F: "serial",
    },
    Exif={
        0x9003: "2024:05:06 07:08:09", 0xA434: "Lens", OWNER: "My Name", SERIAL: "1234567",
        LENS_SERIAL: "7654321", 0xA420: "unique id", 0x829A: (1, 100), 0x9286: b"ASCII\0\0\0note",
    },
    GPSInfo={1: "N", 2: (52.0, 30.0, 0.0), 3: "E", 4: (13.0, 0.0, 0.0)},
)  # fmt: skip
RIGHTS = xmp_with(
    "<dc:rights><rdf:Alt><rdf:li>All rights &amp; mine</rdf:li></rdf:Alt></dc:rights>"
    "<dc:creator><rdf:Seq><rdf:li>Ünal</rdf:li></rdf:Seq></dc:creator>"
    "<xmpRights:Marked>True</xmpRights:Marked><xmp:CreatorTool>Program</xmp:CreatorTool>"
)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("keep", [(), ("camera",), ("gps",), ("camera", "gps")])
def test_metadata_by_allow_list(form, keep):
    source = containers.encoded(odd_files.photo(), "JPEG", exif=EVERYTHING, xmp=RIGHTS)
    copy = picture.write(picture.read(source, keep=keep), Encoding(form))
    with Image.open(io.BytesIO(copy)) as image:
        image.load()
        exif = image.getexif()
        main, capture = {*exif} - {0x8769, 0x8825}, {*exif.get_ifd(0x8769)}
        assert main == {0x010E, 0x0132, 0x013B, 0x8298} | (
            {0x010F, 0x0110} if "camera" in keep else set()
        )
        assert capture == {0x9003} | ({0xA434, 0x829A} if "camera" in keep else set())
        assert {*exif.get_ifd(0x8825)} == ({1, 2, 3, 4} if "gps" in keep else set())
        assert exif[0x013B].encode("latin-1").decode() == "Ünal"
        rights = metadata.rights(image)
        assert metadata.foreign_tags(image, keep) == []
    assert rights == {
        "dc:rights": "All rights & mine", "dc:creator": "Ünal", "xmpRights:Marked": "True",
    }  # fmt: skip
    for private in (b"1234567", b"7654321", b"My Name", b"unique id", b"host name", b"Program"):
        assert private not in copy


@pytest.mark.parametrize("form", FORMATS)
def test_to_clean_what_is_clean_changes_nothing(form):
    source = containers.encoded(
        odd_files.photo(), "JPEG", exif=EVERYTHING, xmp=RIGHTS, icc_profile=profile()
    )
    once = picture.read(source, keep=metadata.KEEPABLE)
    twice = picture.read(picture.write(once, Encoding(form)), keep=metadata.KEEPABLE)
    assert (twice.exif, twice.icc, twice.rights) == (once.exif, once.icc, once.rights)
    assert once.icc == profile()


def test_a_rebuilt_profile_shows_the_same_colours():
    hidden = containers.profile_with(profile(), b"prVt", jpeg())
    cleaned = metadata.icc(hidden)
    assert len(cleaned) < len(hidden) - 500
    lab = ImageCms.createProfile("LAB")
    found = []
    for data in (profile(), cleaned):
        transform = ImageCms.buildTransform(io.BytesIO(data), lab, "RGB", "LAB")
        found.append(np.asarray(ImageCms.applyTransform(odd_files.photo(), transform)))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    "packet",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>',
        b"<x" * 100_000,
        b"\xff\xfe\0<",
        b"<a>" * 5000,
    ],
)
def test_hostile_xmp_is_passed_over(packet):
    source = containers.encoded(odd_files.photo(), "WEBP", xmp=packet)
    assert picture.read(source).rights == {}


# On this machine


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_caches_of_decoded_photographs_are_the_owner_s_alone(tmp_path):
    root = ready.photos(tmp_path / "photos", 2)
    items = [images.file_item(path, path.name, 0) for path in sorted(root.rglob("*.jpg"))]
    images.build(items, short_side=32, cache_dir=tmp_path / "cache", label="x")
    (folder,) = (tmp_path / "cache").glob("x-*")
    assert mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o600}


def test_copies_keep_the_mode_of_the_originals(place):
    import shutil

    (place / "photos" / "cats" / "0.jpg").chmod(0o600)
    (place / "photos" / "cats" / "2.jpg").chmod(0o664)
    (place / "photos" / "cats" / "4.jpg").chmod(0o4444)
    shutil.rmtree(place / "out")
    assert protect(place)[0] == 0
    found = [mode(place / "out" / "images" / "cats" / f"{i}.png") for i in (0, 2, 4)]
    assert found == [0o600, 0o664, 0o644]


# In the terminal

EVIL = "\x1b]0;owned\x07\x1b[2Jre\u202egpj.jpg"


def test_escapes_are_printed_visibly(place):
    (place / "photos" / EVIL).write_bytes(b"no picture")
    code, text = protect(place)
    assert code == 3
    assert printable(EVIL) in text
    assert not {"\x1b", "\x07", "\u202e"} & {*text}
    for command in (
        ("verify", place / "out", "--against", place / "photos"),
        ("protect", place / EVIL, place / "x"),
        ("verify", place / EVIL, "--against", place / EVIL),
    ):
        _, text = ucjax(*command)
        assert r"\x1b" in text
        assert not {"\x1b", "\x07", "\u202e"} & {*text}
    one_line(*ucjax("protect", place / "a\nb", place / "x"), r"a\nb is not a folder")
