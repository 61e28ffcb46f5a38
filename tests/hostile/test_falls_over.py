"""Odd and crafted input: one bad photograph never stops a folder, and there is never a trace."""

import json
import os
import struct
import time

import containers
import numpy as np
import odd_files
import pytest
import ready
from PIL import Image
from ready import edit_json, one_line, protect, ucjax

from ucjax.comparison import cells
from ucjax.errors import UserError
from ucjax.files import metadata, picture
from ucjax.files.manifest import read_manifest
from ucjax.files.picture import Encoding, UnreadableError
from ucjax.protections import protector

FORMATS = ("png", "webp", "jpeg")


def exif(**tags):
    found = Image.Exif()
    for tag, value in tags.items():
        found[int(tag[1:], 16)] = value
    return found.tobytes()


# Photographs

ODD = {
    "EXIF resolution": {"exif": exif(x011A=4294967295, x011B=4294967295)},
    "resolution of nothing": {"exif": exif(x011A=0.0)},
    "long description": {"exif": exif(x010E="x " * 20_000)},
    "long text, not ASCII": {"exif": exif(x8298=("ü " * 20_000).encode())},
    "many tags": {"exif": exif(**{f"x{tag:04X}": "y" * 20 for tag in range(0xC700, 0xCC00)})},
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("case", ODD)
def test_odd_metadata_do_not_lose_the_picture(case, form):
    data = containers.encoded(
        odd_files.photo(), "JPEG" if "resolution" in case else "WEBP", **ODD[case]
    )
    copy = picture.write(picture.read(data), Encoding(form))
    assert picture.read(copy).pixels.shape == (40, 48, 3)
    assert len(copy) < len(data) + 20_000


def test_metadata_over_64_kilobytes_fit_into_jpeg():
    data = containers.encoded(
        odd_files.photo(), "PNG", exif=exif(x010E="x " * 25_000, x8298="y " * 25_000)
    )
    kept = picture.read(data).exif
    assert 2 * metadata.LONGEST_TEXT - 10 < len(kept) < 65_533
    picture.write(picture.read(data), Encoding("jpeg"))


def large_profile(size):
    from test_leaked import profile

    return containers.profile_with(profile(), b"A2B0", bytes(size))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_a_profile_over_a_megabyte_is_refused_by_name(kind):
    data = containers.encoded(odd_files.photo(), kind, icc_profile=large_profile(2**20))
    with pytest.raises(UnreadableError, match=r"colour profile has .* convert the picture to sRGB"):
        picture.read(data)
    small = containers.encoded(odd_files.photo(), kind, icc_profile=large_profile(2**19))
    for form in FORMATS:
        copy = picture.write(picture.read(small), Encoding(form))
        assert picture.read(copy).icc == large_profile(2**19)


def test_one_transparent_colour_is_kept():
    pixels = np.asarray(odd_files.photo())
    color = struct.pack(">HHH", *pixels[3, 4])
    data = containers.encoded(odd_files.photo(), "PNG")
    found = picture.read(containers.before_pixels(data, containers.chunk(b"tRNS", color)))
    np.testing.assert_array_equal(found.alpha == 0, (pixels == pixels[3, 4]).all(axis=-1))


def test_one_transparent_grey_of_sixteen_bits_is_kept():
    values = (np.arange(1920, dtype=np.uint16).reshape(40, 48, 1) * 34) + 1
    grey = struct.pack(">H", values[3, 4, 0])
    found = picture.read(containers.png16(values, 0, containers.chunk(b"tRNS", grey)))
    np.testing.assert_array_equal(found.alpha == 0, values[..., 0] == values[3, 4, 0])
    assert found.converted == ("more than 8 bits a channel became 8",)
    np.testing.assert_array_equal(found.pixels[..., 0], values[..., 0] >> 8)


def test_one_transparent_colour_of_sixteen_bits_is_refused():
    values = np.arange(5760, dtype=np.uint16).reshape(40, 48, 3)
    color = struct.pack(">HHH", *values[3, 4])
    with pytest.raises(UnreadableError, match="16-bit colours is transparent: save it with an"):
        picture.read(containers.png16(values, 2, containers.chunk(b"tRNS", color)))


@pytest.mark.parametrize("color_type", [0, 2, 4, 6])
def test_sixteen_bits_are_converted_with_a_line(color_type):
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color_type]
    values = np.arange(1920 * channels, dtype=np.uint16).reshape(40, 48, channels)
    found = picture.read(containers.png16(values, color_type))
    assert found.converted == ("more than 8 bits a channel became 8",)


COLORS = {
    "cICP": (b"cICP", b"\x09\x10\x00\x01"),
    "gAMA": (b"gAMA", struct.pack(">I", 100_000)),
    "cHRM": (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
}


@pytest.mark.parametrize("case", COLORS)
def test_how_numbers_are_shown_is_kept_or_refused(case):
    kind, data = COLORS[case]
    png = containers.encoded(odd_files.photo(), "PNG")
    found = picture.read(containers.before_pixels(png, containers.chunk(kind, data)))
    assert found.color == {case: data}
    assert containers.chunk(kind, data) in picture.write(found, Encoding("png"))
    for form in ("webp", "jpeg"):
        with pytest.raises(UnreadableError, match=f"states its colours by {case}"):
            picture.write(found, Encoding(form))


def test_what_every_picture_says_of_its_colours_is_no_reason_to_refuse():
    usual = [
        containers.chunk(b"sRGB", b"\0"),
        containers.chunk(b"gAMA", struct.pack(">I", 45455)),
        containers.chunk(
            b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
        ),
    ]
    png = containers.encoded(odd_files.photo(), "PNG")
    for chunks in (usual, usual[1:]):
        found = picture.read(containers.before_pixels(png, *chunks))
        assert found.color == {}
        picture.write(found, Encoding("webp"))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_an_orientation_that_only_xmp_tells_is_applied(kind):
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-'
        b'rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        b'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    data = containers.encoded(odd_files.photo(48, 40), kind, xmp=packet, lossless=True)
    found = picture.read(data)
    assert found.pixels.shape == (48, 40, 3)
    assert b"Orientation" not in picture.write(found, Encoding("webp"))


def test_a_tiff_of_twenty_thousand_directories_is_refused_soon():
    data, start = containers.tiff_of(20_000), time.monotonic()
    with pytest.raises(UnreadableError, match="100 frames or more: an animation"):
        picture.read(data)
    assert time.monotonic() - start < 5


def test_one_bad_photograph_never_stops_a_folder(place):
    bad = place / "photos" / "cats"
    (bad / "text.jpg").write_bytes(b"no picture")
    (bad / "cut.png").write_bytes(odd_files.png_of(300, 300))
    (bad / "C:drive.jpg").write_bytes((bad / "0.jpg").read_bytes())
    code, text = protect(place)
    assert code == 3
    for name in ("text.jpg: not a picture", "cut.png: damaged", "7 protected, 2 not"):
        assert name in text
    assert "C:drive" not in text  # below a folder it begins nothing
    assert len(read_manifest(place / "out")) == 7


def test_a_name_that_begins_like_a_drive_is_named(place):
    path = place / "photos" / "C:photo.jpg"
    path.write_bytes((place / "photos" / "cats" / "0.jpg").read_bytes())
    code, text = protect(place)
    assert (code, "C:photo.jpg: its name begins with a drive letter: rename it" in text) == (
        3,
        True,
    )


def test_exit_codes_are_documented():
    from ucjax.cli.command import EPILOG

    for code in (
        "0 all is well",
        "1 a check did not pass",
        "2 bad input",
        "3 done, with exceptions",
    ):
        assert code in EPILOG


# Names


@pytest.mark.parametrize("name", [b"caf\xe9", b"new\nline", b"\xff\xfe", b"tab\there"])
def test_names_of_any_bytes_go_through_to_every_export(name, place, tmp_path):
    folder = os.fsencode(place / "photos") + b"/" + name
    os.mkdir(folder)
    for number in range(2):
        odd_files.photo(seed=90 + number).save(os.fsdecode(folder + b"/%d.jpg" % number))
        odd_files.photo(seed=95).save(os.fsdecode(folder + b"/" + name + b".jpg"))
    code, text = protect(place)
    assert code == 0, text
    assert ucjax("verify", place / "out", "--against", place / "photos")[0] == 0
    for target in ("webdataset", "imagefolder", "hf"):
        code, text = ucjax("export", place / "out", "--to", target, tmp_path / target)
        assert code == 0, text
        assert text.splitlines()[0].endswith("bytes")


# Settings and notes


def test_a_seed_below_zero(place):
    one_line(*ucjax("protect", place / "photos", place / "x", "--seed", -1), "--seed is -1")
    settings = ("--config.noise_seeds=(-1,)", "--config.data.short_side=36")
    command = ("protect", place / "photos", place / "x", *settings, "--clusters", 2)
    one_line(*ucjax(*command), "config.noise_seeds holds -1: seeds go from 0 to 2147483647")


@pytest.mark.parametrize("where", ["photos", "."])
@pytest.mark.parametrize("data", [b"hello\n", b"{}\n", b"", b'{"output_sha256": 3}\n'])
def test_a_manifest_of_somebody_else_s_is_passed_over(where, data, place):
    for name in ("manifest.jsonl", "summary.json"):
        (place / where / name).write_bytes(data)
    code, text = protect(place)
    assert code == 0, text


# Protectors and cells


def describe(change):
    def craft(folder):
        path = folder / "protector.json"
        described = json.loads(path.read_text())
        described.pop("sha256")
        change(described)
        path.write_text(json.dumps({**described, "sha256": protector._seal(described)}))

    return craft


def setting(key, value):
    return describe(lambda described: described.update({key: value}))


def tensors(data):
    def craft(folder):
        import hashlib

        (folder / "protector.safetensors").write_bytes(data)
        setting("tensors_sha256", hashlib.sha256(data).hexdigest())(folder)

    return craft


CRAFTED = {
    "no hash": describe(lambda described: described.pop("tensors_sha256")),
    "no format": setting("format", None),
    "kind": setting("kind", "exe"),
    "budget as a text": setting("epsilon_255", "16"),
    "budget of nothing": setting("epsilon_255", None),
    "budget between": setting("epsilon_255", 16.5),
    "budget true": setting("epsilon_255", True),
    "larger crop": setting("crop", 10**9),
    "list as a crop": setting("crop", [32]),
    "short side of a billion": setting("short_side", 10**9),
    "norm": setting("norm", "l0"),
    "mean": setting("mean", "abc"),
    "huge mean": setting("mean", [10**400] * 3),
    "surrogate": setting("surrogate_name", "../../etc"),
    "surrogate as a list": setting("surrogate_name", ["clip"]),
    "other weights": setting("surrogate_sha256", "0" * 64),
    "key missing": describe(lambda described: described.pop("grain")),
    "no tensors": tensors(b""),
    "tensors of noise": tensors(bytes(range(256)) * 10),
    "tensors that promise": tensors(
        b"\x40\0\0\0\0\0\0\0"
        + b'{"noise":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(64)
    ),
    "pickled": tensors(b"\x80\x04\x95" + bytes(100)),
    "description of nothing": lambda f: (f / "protector.json").write_bytes(b""),
    "description a list": lambda f: (f / "protector.json").write_bytes(b"[]"),
    "description deep": lambda f: (f / "protector.json").write_bytes(b"[" * 100_000),
    "description not text": lambda f: (f / "protector.json").write_bytes(b"\xff\xfe\0"),
    "edited": lambda f: edit_json(f / "protector.json", lambda d: d.update(seed=1)),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_a_crafted_protector_is_one_line(case, place, tmp_path):
    crafted = ready.protector(tmp_path / "crafted")
    CRAFTED[case](crafted)
    command = ("protect", place / "photos", tmp_path / "x", "--protector", crafted)
    one_line(*ucjax(*command), "")


@pytest.mark.parametrize("name", ["protector.json", "protector.safetensors"])
def test_a_protector_of_pipes_hangs_nothing(name, place, tmp_path):
    crafted = ready.protector(tmp_path / "crafted")
    (crafted / name).unlink()
    os.mkfifo(crafted / name)
    command = ("protect", place / "photos", tmp_path / "x", "--protector", crafted)
    one_line(*ucjax(*command), "not a file")


RESULT = {"last": 0.5, "peak": 0.5, "classes": [0.5], "curve": [[1, 1.0, 0.5, 0.5, 1.0][:3]]}
CELLS = {
    "empty": b"",
    "list": b"[]",
    "deep": b"[" * 100_000,
    "bytes": b"\xff\xfe",
    "huge": {"last": 10**400},
    "not a number": {"peak": float("nan")},
    "more than all": {"peak": 1.5, "last": 1.5},
    "no curve": {"curve": []},
    "curve of text": {"curve": "abc"},
    "null": {"classes": None},
}


@pytest.mark.parametrize("case", CELLS)
def test_a_crafted_cell_is_one_line(case, tmp_path):
    key = "a" * 64
    path = cells.path_of(tmp_path, key)
    path.parent.mkdir(parents=True)
    data = CELLS[case]
    if isinstance(data, dict):
        data = json.dumps({"key": key, "result": RESULT | data}).encode()
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"(?s)^[^\n]*$") as error:
        cells.find(key, tmp_path, [])
    assert str(path) in str(error.value)
