import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pictures import (
    CLUSTERS,
    NAMES,
    cluster_noise,
    collect,
    content,
    geometries,
    no_noise,
    publish,
    settings,
    sign_noise,
)
from PIL import Image, ImageOps

from ucjax.errors import UserError
from ucjax.files import protect as protection
from ucjax.files.manifest import read_manifest


@pytest.fixture
def root(tmp_path):
    publish(tmp_path / "photos")
    return tmp_path / "photos"


def test_a_finished_folder_costs_nothing(root, tmp_path):
    images, asked = collect(root), []

    def noise_of(index):
        asked.append(index)
        return sign_noise(index)

    first = protection.protect_images(
        images, root=None, **settings(tmp_path / "out", noise_of=noise_of)
    )
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    asked.clear()
    assert (
        protection.protect_images(
            images, root=None, **settings(tmp_path / "out", noise_of=noise_of)
        )
        == first
    )
    assert asked == [0]  # it is still the same noise
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    outputs = {f"images/{record['output']}" for record in read_manifest(tmp_path / "out")}
    assert content(tmp_path / "out").keys() == outputs | {
        ".ucjax.json", "manifest.jsonl", "summary.json",
    }  # fmt: skip


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon_255": 8}, "epsilon_255 = 16, now it is 8"),
        ({"crop": 24}, "crop = 28, now it is 24"),
        ({"clusters": CLUSTERS[::-1]}, "images_sha256"),
        ({"noise_of": cluster_noise}, "first_noise_sha256"),
    ],
)
def test_the_folder_of_another_job_is_refused(finished, changes, message, root, tmp_path):
    images = collect(root)
    noise_of = sign_noise if finished else failing_at(4)
    try:
        protection.protect_images(
            images, root=None, **settings(tmp_path / "out", noise_of=noise_of)
        )
    except KeyError:
        assert not finished
    before = content(tmp_path / "out")
    with pytest.raises(UserError, match=message):
        protection.protect_images(images, root=None, **settings(tmp_path / "out", **changes))
    assert content(tmp_path / "out") == before


def failing_at(last):
    def noise_of(index):
        if index == last:
            raise KeyError(index)
        return sign_noise(index)

    return noise_of


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("geometry", ["crop", "native"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: None,
        lambda folder: truncate(folder / "images" / "b" / "wide.png"),
        lambda folder: (folder / "images" / "b" / "tall.png").unlink(),
        lambda folder: truncate(folder / ".unfinished" / "records.jsonl"),
        lambda folder: (folder / ".unfinished" / "records.jsonl").unlink(),
        lambda folder: (folder / ".unfinished" / "2").write_bytes(b"half a PNG"),
    ],
)
def test_a_broken_run_is_continued_to_the_same_bytes(damage, geometry, root, tmp_path):
    write = geometries(root, collect(root))[geometry]
    write(**settings(tmp_path / "whole"))
    with pytest.raises(KeyError):
        write(**settings(tmp_path / "out", noise_of=failing_at(4), threads=1))
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    damage(tmp_path / "out")
    assert write(**settings(tmp_path / "out")).count == len(NAMES)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_source_that_changed_meanwhile_is_written_anew(root, tmp_path):
    images = collect(root)
    with pytest.raises(KeyError):
        protection.protect_images(
            images, root=root, **settings(tmp_path / "out", noise_of=failing_at(4))
        )
    with Image.open(root / NAMES[0]) as image:
        ImageOps.invert(image).save(root / NAMES[0])
    protection.protect_images(images, root=root, **settings(tmp_path / "out"))
    protection.protect_images(images, root=root, **settings(tmp_path / "whole"))
    assert content(tmp_path / "out") == content(tmp_path / "whole")


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from pictures import collect, settings
from ucjax.files import protect as protection
from ucjax.protections import controls

root, folder = map(Path, sys.argv[1:])
names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))

def noise_of(index):
    time.sleep(0.004)
    return controls.image_signs(0, index, 28, 16)

protection.protect_images(
    collect(root, names), root=None,
    **settings(folder, noise_of, clusters=None, label="x", threads=2),
)
"""


def test_a_run_killed_at_any_moment_is_continued_to_the_same_bytes(tmp_path):
    root, count = tmp_path / "photos", 150
    names = [f"{number % 3}/{number:03}.png" for number in range(count)]
    publish(root, names, [(34, 40)] * count)
    changes = {"clusters": None}
    protection.protect_images(
        collect(root, sorted(names)), root=None, **settings(tmp_path / "whole", **changes)
    )
    whole, folder = content(tmp_path / "whole"), tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(root), str(folder)]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    written: dict[str, bytes] = {}
    for at_least in (1, 50, 110):
        child = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths})
        while len(list(folder.glob("images/*/*.png"))) < at_least:
            assert child.poll() is None, "ended before it was killed"
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        images = content(folder / "images")
        assert at_least <= len(images) < count
        assert images.items() >= written.items()
        assert all(whole[f"images/{name}"] == data for name, data in images.items())
        written = images
    kept = next(iter(sorted(written)))
    before = (folder / "images" / kept).stat()
    protection.protect_images(
        collect(root, sorted(names)), root=None, **settings(folder, **changes)
    )
    assert content(folder) == whole
    after = (folder / "images" / kept).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_mistakes_are_one_line(root, tmp_path):
    images = collect(root)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        protection.protect_images(images, root=None, **settings(tmp_path / "file" / "out"))
    with pytest.raises(UserError, match="no finished images: run again"):
        protection.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="there are no images"):
        protection.protect_images(collect(root, []), root=None, **settings(tmp_path / "none"))
    small = settings(tmp_path / "shape", noise_of=lambda index: no_noise(index)[:8, :8])
    with pytest.raises(ValueError, match=r"noise is \(8, 8, 3\), but crop is 28"):
        protection.protect_images(images, root=None, **small)
    (root / NAMES[1]).unlink()
    with pytest.raises(UserError, match=r"cannot protect .*wide\.jpg: No such file"):
        protection.protect_images(images, root=root, **settings(tmp_path / "gone"))
    (root / NAMES[1]).write_bytes(b"\x89PNG no more")
    with pytest.raises(UserError, match=r"cannot protect .*wide\.jpg: not a picture"):
        protection.protect_images(images, root=root, **settings(tmp_path / "damaged"))
    protection.protect_images(images, root=None, **settings(tmp_path / "out"))
    for damaged in ("{", "[]", "{}", '{"job": 1}'):
        (tmp_path / "out" / "summary.json").write_text(damaged)
        with pytest.raises(UserError, match="delete"):
            protection.load(tmp_path / "out")


def test_progress_ends_at_the_number_of_images(root, tmp_path):
    seen = []

    class Bar:
        def __init__(self, label, total):
            seen.append((label, total))

        def update(self, done):
            seen.append(done)

        def close(self, done):
            seen.append(("closed", done))

    protection.protect_images(collect(root), root=None, **settings(tmp_path / "out", progress=Bar))
    assert seen == [("protected", 6), 1, 2, 3, 4, 5, 6, ("closed", 6)]
