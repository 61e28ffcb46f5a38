import errno
import json
import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from ucjax.data import decode, images
from ucjax.errors import UserError

RNG = np.random.default_rng(0)


def noise(h, w, channels=3):
    return RNG.integers(0, 256, (h, w, channels), np.uint8)


def item(name, array_or_image, label=0, key="key"):
    image = array_or_image
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    return images.Item(name, lambda: image.copy(), label, key)


def test_images_and_center_crops(tmp_path):
    shapes = [(8, 13), (13, 8), (8, 8), (8, 12), (11, 8)]
    pixels = [noise(*shape) for shape in shapes]
    items = [item(f"{i}.png", array, label=i) for i, array in enumerate(pixels)]
    built = images.build(items, short_side=8, cache_dir=tmp_path, label="x")
    assert built.short_side == 8
    assert len(built) == 5
    assert built.wide.tolist() == [True, False, False, True, False]
    for i, array in enumerate(pixels):
        np.testing.assert_array_equal(built.image(i), array)
    crops = built.center_crops(6)
    assert crops.shape == (5, 6, 6, 3)
    # (13 - 6) / 2 = 3.5 rounds to 4, (11 - 6) / 2 = 2.5 to 2: Python's and torchvision's rounding.
    corners = [(1, 4), (4, 1), (1, 1), (1, 3), (2, 1)]
    for crop, array, (top, left) in zip(crops, pixels, corners, strict=True):
        np.testing.assert_array_equal(crop, array[top : top + 6, left : left + 6])
    np.testing.assert_array_equal(built.center_crops(6, [4, 0, 0]), crops[[4, 0, 0]])
    with pytest.raises(ValueError, match=r"size \(=9\) is larger than the short side \(=8\)"):
        built.center_crops(9)


# the cache


class Bar:
    def __init__(self, label, total):
        self.label, self.total, self.seen, self.closed = label, total, [], None

    def update(self, done):
        self.seen.append(done)

    def close(self, done):
        self.closed = done


def folders(path):
    return sorted(child.name for child in path.iterdir() if child.is_dir())


def write_pictures(root, count):
    root.mkdir(exist_ok=True)
    for i in range(count):
        Image.fromarray(noise(10 + i, 20)).save(root / f"{i}.png")
    return [images.file_item(root / f"{i}.png", f"{i}.png", i % 2) for i in range(count)]


def test_a_cache_is_plain_numpy_and_json(tmp_path):
    items = write_pictures(tmp_path / "in", 7)
    built = images.build(
        items, short_side=8, cache_dir=tmp_path / "cache", label="cats", class_names=["a", "b"]
    )
    (folder,) = (tmp_path / "cache").glob("cats-*")
    index = json.loads((folder / "index.json").read_text())
    rows, starts, wide, labels = (
        np.load(folder / f"{name}.npy") for name in ("rows", "starts", "wide", "labels")
    )
    assert (rows.dtype, starts.dtype, wide.dtype, labels.dtype) == (
        np.uint8, np.int64, np.bool_, np.int32,
    )  # fmt: skip
    assert rows.shape == (starts[-1], 8, 3)
    assert index["names"] == list(built.names) == [f"{i}.png" for i in range(7)]
    assert built.class_names == ("a", "b")
    assert labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert isinstance(built.rows, np.memmap)
    assert not built.rows.flags.writeable
    for i in range(7):
        expected = np.asarray(decode.resize(Image.open(tmp_path / f"in/{i}.png"), 8))
        np.testing.assert_array_equal(built.image(i), expected)


def test_threads_do_not_change_the_bytes(tmp_path):
    items = write_pictures(tmp_path / "in", 40)
    for threads in (1, 5):
        images.build(
            items, short_side=8, cache_dir=tmp_path / str(threads), label="x", threads=threads
        )
    for one in tmp_path.glob("1/x-*/*"):
        five = tmp_path / "5" / one.parent.name / one.name
        assert one.read_bytes() == five.read_bytes()


def test_decoding_runs_only_a_little_ahead(tmp_path):
    opened = []

    def opening(i):
        opened.append(i)
        return Image.new("RGB", (8, 8))

    items = [images.Item(f"{i}", lambda i=i: opening(i), 0, "") for i in range(200)]
    ahead = []

    class Watch(Bar):
        def update(self, done):
            ahead.append(len(opened) - done)

    images.build(items, short_side=8, cache_dir=tmp_path, label="x", threads=2, progress=Watch)
    assert len(opened) == 200
    assert max(ahead) <= 8


def test_a_second_build_decodes_nothing_and_says_the_same(tmp_path):
    opened, bars = [], []

    def opening(i):
        opened.append(i)
        if i % 3 == 0:
            raise OSError("image file is truncated")
        return Image.new("RGB", (8, 9), (i, i, i))

    items = [images.Item(f"{i}.jpg", lambda i=i: opening(i), i, "") for i in range(7)]

    def build():
        said = []
        built = images.build(
            items, short_side=8, cache_dir=tmp_path, label="dogs", say=said.append,
            progress=lambda *args: bars.append(Bar(*args)) or bars[-1],
        )  # fmt: skip
        return built, said

    first, said_first = build()
    assert sorted(opened) == list(range(7))
    second, said_second = build()
    assert len(opened) == 7
    assert (
        said_first
        == said_second
        == [
            "dogs: skipped 0.jpg: image file is truncated",
            "dogs: skipped 3.jpg: image file is truncated",
            "dogs: skipped 6.jpg: image file is truncated",
            "dogs: 3 of 7 pictures cannot be read and are left out",
        ]
    )
    assert first.names == second.names == ("1.jpg", "2.jpg", "4.jpg", "5.jpg")
    assert second.labels.tolist() == [1, 2, 4, 5]
    assert [second.image(i)[0, 0, 0] for i in range(4)] == [1, 2, 4, 5]
    (bar,) = bars  # no progress line for what takes no time
    assert (bar.label, bar.total, bar.seen, bar.closed) == ("decoding dogs", 7, [*range(1, 8)], 7)


def test_damaged_files_are_skipped_with_a_reason(tmp_path):
    root = tmp_path / "in"
    items = write_pictures(root, 1)
    picture = (root / "0.png").read_bytes()
    contents = {
        "cut.png": picture[: len(picture) // 2],
        "empty.jpg": b"",
        "text.jpg": b"hello",
        "broken.png": picture[:50] + b"\xff" * 20 + picture[70:],
        "headless.tif": b"II*\0" + b"\xff" * 8,
    }
    for name, content in contents.items():
        (root / name).write_bytes(content)
    (root / "dangling.png").symlink_to(root / "nothing")
    Image.new("L", (1, 5000)).save(root / "line.png")
    bomb = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    bomb = b"IHDR" + bomb
    (root / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + bomb + struct.pack(">I", zlib.crc32(bomb))
    )
    names = [*contents, "dangling.png", "line.png", "bomb.png"]
    items += [images.file_item(root / name, name, 0) for name in names]
    said = []
    built = images.build(
        items, short_side=8, cache_dir=tmp_path / "cache", label="x", say=said.append
    )
    assert built.names == ("0.png",)
    assert len(said) == len(names) + 1
    for line, name in zip(said, names, strict=False):
        assert line.startswith(f"x: skipped {name}: ")
        assert len(line) > len(f"x: skipped {name}: ") + 5
        assert "\n" not in line
    assert said[-1] == "x: 8 of 9 pictures cannot be read and are left out"


def test_a_file_name_that_is_not_unicode(tmp_path, capsys):
    root = tmp_path / "in"
    root.mkdir()
    path = root / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(b"no picture")
    item = images.file_item(path, path.name, 0)
    built = images.build([item], short_side=8, cache_dir=tmp_path / "cache", label="x")
    assert len(built) == 0
    assert "caf\\udce9.png: not a picture" in capsys.readouterr().out


def test_a_failing_disk_is_not_a_damaged_picture(tmp_path):
    def fail():
        raise OSError(errno.EIO, "Input/output error")

    items = [item("a.png", noise(8, 8)), images.Item("b.png", fail, 0, "")]
    with pytest.raises(UserError, match=r"cannot read b\.png .*Input/output error"):
        images.build(items, short_side=8, cache_dir=tmp_path, label="x")
    assert folders(tmp_path) == []


def test_nothing_to_decode(tmp_path):
    for _ in range(2):
        built = images.build([], short_side=8, cache_dir=tmp_path, label="x")
        assert len(built) == 0
        assert built.rows.shape == (0, 8, 3)
        assert built.center_crops(4).shape == (0, 4, 4, 3)


@pytest.mark.parametrize(
    "change", ["name", "label", "content", "order", "class_names", "short_side"]
)
def test_everything_that_decides_the_content_is_in_the_key(tmp_path, change):
    arguments = {"short_side": 8, "class_names": ("a",)}
    items = [item("a.png", noise(8, 8), 0, "1"), item("b.png", noise(8, 8), 0, "2")]
    images.build(items, cache_dir=tmp_path, label="x", **arguments)
    if change == "name":
        items[1] = item("c.png", noise(8, 8), 0, "2")
    elif change == "label":
        items[1] = item("b.png", noise(8, 8), 1, "2")
    elif change == "content":
        items[1] = item("b.png", noise(8, 8), 0, "3")
    elif change == "order":
        items.reverse()
    else:
        arguments[change] = {"class_names": ("b",), "short_side": 9}[change]
    built = images.build(items, cache_dir=tmp_path, label="x", **arguments)
    assert len(folders(tmp_path)) == 2
    assert built.names == tuple(item.name for item in items)


def test_a_rewritten_file_is_noticed_whatever_its_size_and_time(tmp_path):
    path = tmp_path / "a.bmp"
    Image.new("RGB", (8, 8), "red").save(path)
    before, times = images.file_item(path, "a.bmp", 0), path.stat()
    assert images.file_item(path, "a.bmp", 0).content_key == before.content_key
    first = images.build([before], short_side=8, cache_dir=tmp_path, label="x")
    time.sleep(0.05)  # the kernel's clock ticks every few milliseconds
    Image.new("RGB", (8, 8), "blue").save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = images.file_item(path, "a.bmp", 0)
    assert path.stat().st_size == times.st_size
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    second = images.build([after], short_side=8, cache_dir=tmp_path, label="x")
    assert first.image(0)[0, 0].tolist() == [255, 0, 0]
    assert second.image(0)[0, 0].tolist() == [0, 0, 255]


def test_a_damaged_cache_is_named(tmp_path):
    items = [item("a.png", noise(8, 8))]
    images.build(items, short_side=8, cache_dir=tmp_path, label="x")
    (rows,) = tmp_path.glob("x-*/rows.npy")
    rows.write_bytes(rows.read_bytes()[:100])
    with pytest.raises(UserError, match=f"{rows.parent} is damaged .*delete it"):
        images.build(items, short_side=8, cache_dir=tmp_path, label="x")
