import os

import numpy as np
import pytest
from PIL import Image

from ucjax.data import decode, rows
from ucjax.errors import DiskError

TURNS = [None, *Image.Transpose]


def image(width=150, height=170, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def numbered(first, part):
    """Rows changed each in a way of its own; they come in whole bands."""
    assert first % rows.BAND == 0
    return part ^ np.arange(first, first + len(part), dtype=np.uint8)[:, None, None]


@pytest.mark.parametrize("turn", TURNS)
def test_parts_of_views_and_files_are_those_of_the_array(turn, tmp_path):
    view = rows.View(image(), turn)
    whole = np.asarray(image() if turn is None else image().transpose(turn))
    y, x = np.random.default_rng(1).integers(0, 150, (2, 40))
    parts = (
        np.s_[:], np.s_[64:128], np.s_[160:999], np.s_[::7], np.s_[3:90:13],
        np.s_[3:9, 20:41], np.s_[-4:, :5], (y, x),
    )  # fmt: skip
    assert (view.shape, view.size) == (whole.shape, whole.shape[1::-1])
    np.testing.assert_array_equal(np.asarray(view.whole()), whole)
    np.testing.assert_array_equal(rows.in_memory(view), whole)
    with rows.spooled(tmp_path) as hold:
        assert not [*tmp_path.iterdir()]
        spool = hold(view)
        changed, expected = rows.changed(spool, numbered), numbered(0, whole)
        for part in parts:
            np.testing.assert_array_equal(view[part], whole[part])
            np.testing.assert_array_equal(spool[part], whole[part])
            np.testing.assert_array_equal(changed[part], expected[part])
        np.testing.assert_array_equal(np.asarray(rows.image_of(spool)), whole)


@pytest.mark.parametrize("size", [(40, 33), (150, 20), (150, 170), (300, 340), (64, 400)])
def test_resizing_in_parts_is_resizing(size):
    expected = np.asarray(image().resize(size, Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(rows.resized(rows.View(image()), size), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_are_decoded_as_if_turned_before(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image().save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as found:
        expected = np.asarray(decode.resize(decode.decode(found), 64))
    found = decode.load("x", lambda: decode.open_file(tmp_path / "x.png"), 64)
    np.testing.assert_array_equal(found, expected)


def test_a_disk_without_room_for_the_pixels_is_one_line(tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            raise OSError(28, "No space left on device")

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    real = rows.tempfile.TemporaryFile
    monkeypatch.setattr(rows.tempfile, "TemporaryFile", lambda **given: Full(real(**given)))
    with (
        pytest.raises(DiskError, match=r"^cannot write [^\n]*: No space left on device; see to it"),
        rows.spooled(tmp_path) as hold,
    ):
        hold(rows.View(image()))
    assert not os.listdir(tmp_path)
