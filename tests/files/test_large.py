"""Large photographs: worked on in parts, with the same result, in little memory."""

import dataclasses
import errno
import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import wavy
from PIL import Image

from ucjax.data import rows
from ucjax.errors import DiskError
from ucjax.files import manifest, verification
from ucjax.files.picture import Encoding
from ucjax.photos import account

NAMES = ("a.jpg", "alpha.png", "b.webp", "turned.jpg")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    for number, name in enumerate(NAMES):
        size = (1300, 1100) if name == "turned.jpg" else (150, 220)  # one is seen reduced, too
        picture = wavy.photo(number, *size)
        if name == "alpha.png":
            picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(folder / name, exif=turned if name == "turned.jpg" else Image.Exif())
    return folder


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def all_of(photos, out, form):
    names = [name for name in NAMES if form != "jpeg" or name != "alpha.png"]
    wavy.protect(photos, names, out, encoding=Encoding(form))
    checked = verification.verify_folder(out, photos)
    worst = [
        (pair.record["name"], pair.clean.tobytes(), pair.protected.tobytes())
        for pair in account._worst(photos, out, manifest.read_manifest(out))
    ]
    return content(out), checked, worst


@pytest.mark.parametrize("form", ["png", "webp", "jpeg", "same"])
def test_parts_make_the_same_files_and_the_same_numbers(form, photos, tmp_path, monkeypatch):
    whole, checked, worst = all_of(photos, tmp_path / "whole", form)
    held = []
    monkeypatch.setattr(rows, "_LARGE", 0)
    monkeypatch.setattr(rows, "in_memory", held.append)
    parts, checked_in_parts, worst_in_parts = all_of(photos, tmp_path / "parts", form)
    assert (parts, worst_in_parts) == (whole, worst)
    assert not held
    assert dataclasses.replace(checked_in_parts, notes=checked.notes) == checked
    assert checked.failures == () or form == "jpeg"


def test_no_room_for_the_parts_is_one_line_and_the_same_call_goes_on(photos, tmp_path, monkeypatch):
    wavy.protect(photos, NAMES, tmp_path / "whole", encoding=Encoding("same"))
    with monkeypatch.context() as patch:
        patch.setattr(rows, "_LARGE", 0)
        patch.setattr(rows.tempfile, "TemporaryFile", lambda **_: NoRoom())
        with pytest.raises(DiskError, match=r"cannot write .*: No space left on device; see to it"):
            wavy.protect(photos, NAMES, tmp_path / "out", encoding=Encoding("same"))
    wavy.protect(photos, NAMES, tmp_path / "out", encoding=Encoding("same"))
    assert content(tmp_path / "out") == content(tmp_path / "whole")


class NoRoom(io.BytesIO):
    """A file on a full disk."""

    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_verifying_small_photographs_needs_no_room(photos, tmp_path, monkeypatch):
    wavy.protect(photos, NAMES, tmp_path / "out", encoding=Encoding("same"))
    monkeypatch.setattr(rows.tempfile, "gettempdir", lambda: pytest.fail("nothing is written"))
    assert verification.verify_folder(tmp_path / "out", photos).failures == ()


MEASURED = """
import re, sys
from pathlib import Path
from ucjax.cli.command import main
code = main(sys.argv[1:])
print("peak", int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
sys.exit(code)
"""


def peak(photos, height, width):
    """Bytes of resident memory that protecting one photograph of this size, turned, takes."""
    photos.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    grain = np.random.default_rng(0).integers(100, 130, (500, 500, 3), np.uint8)
    picture = Image.fromarray(np.tile(grain, (height // 500, width // 500, 1)))
    picture.save(photos / "x.jpg", exif=turned)
    command = ("protect", photos, f"{photos} out", "--protection", "gratings", "--clusters", "1")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return 1024 * int(re.search(r"peak (\d+)", done.stdout)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells")
def test_a_pixel_takes_little_more_than_pillow_takes(tmp_path):
    least, most = peak(tmp_path / "small", 1000, 2000), peak(tmp_path / "large", 5000, 6000)
    # Of each pixel more Pillow takes 4 bytes; an array beside it would be 3 more. Runs differ by 1.
    assert most - least < 6 * 28e6
