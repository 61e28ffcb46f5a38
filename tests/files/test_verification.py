import hashlib
import json

import numpy as np
import pytest
from pictures import CROP, EPS, NAMES, collect, publish, settings
from PIL import Image

from ucjax.files import protect as protection
from ucjax.files import verification


def write(tmp_path, geometry):
    """Writes a collection and returns its folder and the clean images to compare with."""
    root, folder = tmp_path / "photos", tmp_path / "out"
    publish(root)
    images = collect(root)
    given = settings(folder, clusters=None)
    if geometry == "crop":
        protection.protect_images(images, root=None, **given)
        return folder, verification.clean_crops(images, CROP)
    protection.protect_images(images, root=root, **given)
    return folder, verification.clean_files(root, images.names)


def check(folder, clean, epsilon_255=EPS, norm="linf"):
    return verification.verify(folder, clean, verification.Budget(epsilon_255, norm))


@pytest.mark.parametrize("geometry", ["crop", "native"])
def test_what_was_written_is_right(geometry, tmp_path):
    folder, clean = write(tmp_path, geometry)
    assert check(folder, clean) == verification.Verification(len(NAMES), (), EPS)
    assert check(folder, clean, norm="rms").failures == ()


@pytest.mark.parametrize("geometry", ["crop", "native"])
def test_a_smaller_budget_is_broken_by_every_file(geometry, tmp_path):
    folder, clean = write(tmp_path, geometry)
    found = check(folder, clean, epsilon_255=EPS - 1)
    assert len(found.failures) == len(NAMES)
    assert all("changed by 16 levels (linf), over 15" in line for line in found.failures)
    assert check(folder, clean, epsilon_255=4, norm="rms").failures


def repaint(folder, output, change):
    """Rewrites an output's pixels without telling the manifest."""
    path = folder / "images" / output
    with Image.open(path) as image:
        pixels = np.asarray(image).copy()
    Image.fromarray(change(pixels)).save(path)
    return path


def one_pixel(amount):
    def change(pixels):
        pixels[3, 4, 1] = (int(pixels[3, 4, 1]) + amount) % 256
        return pixels

    return change


def edit_manifest(folder, change):
    """Applies `change` to the list of records, or to what it leaves of them."""
    path = folder / "manifest.jsonl"
    records = change([json.loads(line) for line in path.read_text().splitlines()])
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def forge(folder, output, change):
    """Rewrites an output's pixels and makes the manifest agree."""
    path = repaint(folder, output, change)

    def agree(records):
        for record in records:
            if record["output"] == output:
                record["output_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        return records

    edit_manifest(folder, agree)


def set_first(key, value):
    return lambda folder: edit_manifest(folder, lambda rs: [rs[0] | {key: value}, *rs[1:]])


TAMPERED = {
    "changed pixel": (
        lambda folder: repaint(folder, "grey.png", one_pixel(100)),
        ["grey.png: is not the file that", "levels (linf), over 16", "the manifest says 16"],
    ),
    "changed pixel, manifest agreeing": (
        lambda folder: forge(folder, "grey.png", one_pixel(100)),
        ["levels (linf), over 16", "the manifest says 16"],
    ),
    "cropped, manifest agreeing": (
        lambda folder: forge(folder, "grey.png", lambda pixels: pixels[:-1]),
        ["grey.png: is 28 x 27 pixels, its source 28 x 28"],
    ),
    "missing file": (
        lambda folder: (folder / "images" / "grey.png").unlink(),
        ["grey.png: cannot be read: [Errno 2]"],
    ),
    "damaged file": (
        lambda folder: (folder / "images" / "grey.png").write_bytes(b"no picture"),
        ["grey.png: is not the file that was written (sha256)", "grey.png: cannot be read"],
    ),
    "extra file": (
        lambda folder: (folder / "images" / "b" / "clean.jpg").write_bytes(b""),
        ["b/clean.jpg: is not in the manifest"],
    ),
    "line removed": (
        lambda folder: edit_manifest(folder, lambda records: records[1:]),
        ["b/tall.png: is not in the manifest", "b/tall.png: has no protected file"],
    ),
    "line repeated": (
        lambda folder: edit_manifest(folder, lambda records: [*records, records[0]]),
        ["manifest.jsonl line 7: name 'b/tall.png' is that of line 1"],
    ),
    "smaller change stated": (
        set_first("max_delta_255", 8),
        ["b/tall.png: changed by 16, the manifest says 8"],
    ),
    "other source stated": (
        set_first("source_sha256", "0" * 64),
        ["b/tall.png: the clean image was changed since (sha256)"],
    ),
    "unknown source": (
        set_first("name", "b/new.png"),
        ["b/tall.png: there is no clean image 'b/new.png'", "b/tall.png: has no protected file"],
    ),
    "output elsewhere": (
        set_first("output", "../manifest.jsonl"),
        ["manifest.jsonl line 1: output '../manifest.jsonl' leads out of its folder"],
    ),
    "no manifest": (
        lambda folder: (folder / "manifest.jsonl").unlink(),
        ["manifest.jsonl (No such file or directory): delete"],
    ),
    "manifest of something else": (
        lambda folder: (folder / "manifest.jsonl").write_text("3\n"),
        ["manifest.jsonl line 1: no object"],
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_found(name, tmp_path):
    folder, clean = write(tmp_path, "crop")
    tamper, expected = TAMPERED[name]
    tamper(folder)
    failures = check(folder, clean).failures
    assert all("\n" not in line for line in failures)
    for text in expected:
        assert any(text in line for line in failures), failures
    assert len(failures) == len(expected)


def test_a_changed_original_is_found(tmp_path):
    folder, clean = write(tmp_path, "native")
    publish(tmp_path / "photos", NAMES[:1], [(150, 62)])
    (tmp_path / "photos" / NAMES[1]).unlink()
    changed, size, missing = sorted(check(folder, clean).failures)
    assert changed == "b/tall.png: is 61 x 150 pixels, its source 62 x 150"
    assert size == "b/tall.png: the clean image was changed since (sha256)"
    assert missing.startswith("b/wide.jpg: the clean image cannot be read: [Errno 2]")
