"""JPEG in, JPEG out: what is said of files that cannot keep a budget."""

import dataclasses
import hashlib
import io
import json

import numpy as np
import pytest
import wavy
from PIL import Image, JpegImagePlugin

from ucjax.errors import UserError
from ucjax.files import copies, cue, inspection, manifest, picture, verification
from ucjax.files.picture import PNG, Encoding
from ucjax.protections import protector
from ucjax.protections.noise import on_whole

NAMES = ("a.jpg", "a.png", "b.webp", "c.JPEG", "d.bmp")


@pytest.fixture
def written(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for number, name in enumerate(NAMES):
        wavy.photo(number, 150, 120).save(photos / name)
    return photos, out, wavy.protect(photos, NAMES, out, encoding=Encoding("same"))


def edited(out, change):
    path = out / manifest.MANIFEST
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        change(record)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_the_copy_is_what_the_photo_was_and_holds_its_wave(written):
    photos, out, summary = written
    outputs = {r["name"]: r["output"] for r in manifest.read_manifest(out)}
    assert outputs == {
        "a.jpg": "a.jpg", "a.png": "a.png", "b.webp": "b.webp", "c.JPEG": "c.jpg", "d.bmp": "d.png"
    }  # fmt: skip
    shares = []
    for number, record in enumerate(manifest.read_manifest(out)):
        with (
            Image.open(out / "images" / record["output"]) as image,
            Image.open(photos / record["name"]) as original,
        ):
            form, found, clean = image.format, np.asarray(image), np.asarray(original)
        assert form == {"jpg": "JPEG", "png": "PNG", "ebp": "WEBP"}[record["output"][-3:]]
        assert ("cue" in record) == (form == "JPEG")
        if form == "JPEG":
            target = on_whole(wavy.made_protector().gratings, number, clean)
            shares.append(cue.share(clean, target, found))
            assert record["cue"] == pytest.approx(shares[-1], abs=1e-4)
        else:
            assert record["max_delta_255"] == np.abs(found.astype(int) - clean).max() == 16
    assert summary.cue == pytest.approx((np.median(shares), min(shares)), abs=1e-4)
    assert manifest.load(out) == dataclasses.replace(summary, removed=())
    checked = verification.verify_folder(out, photos)
    assert checked.failures == ()
    assert checked.cue == (2, 2, *(pytest.approx(x, abs=1e-4) for x in summary.cue))
    assert checked.max_delta_255 == summary.max_delta_255 > 16


def test_the_lossless_among_them_are_held_to_the_budget(written):
    photos, out, _ = written
    path = out / "images" / "d.png"
    with Image.open(path) as image:
        pixels = np.asarray(image) // 2
    Image.fromarray(pixels).save(path)
    edited(
        out,
        lambda r: (
            r["output"] == "d.png"
            and r.update(output_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        ),
    )
    failures = verification.verify_folder(out, photos).failures
    assert any("d.png: changed by" in line and "(linf), over 16" in line for line in failures)
    assert not any("jpg" in line for line in failures)


def test_a_file_without_its_wave_is_found(written):
    photos, out, _ = written
    for name, output in (("a.jpg", "a.jpg"), ("c.JPEG", "c.jpg")):
        with Image.open(photos / name) as image:
            image.save(out / "images" / output, quality=95, subsampling="4:4:4")

    def agree(record):
        data = (out / "images" / record["output"]).read_bytes()
        record["output_sha256"] = hashlib.sha256(data).hexdigest()

    edited(out, agree)
    found = verification.verify_folder(out, photos)
    assert any("2 of 2 JPEG files hold less than 85% of their wave" in x for x in found.failures)
    assert abs(found.cue.least) < 0.2


def test_a_file_of_another_wave_is_found(written):
    photos, out, _ = written
    edited(out, lambda r: r["output"] == "c.jpg" and r.update(cluster=1))
    failures = verification.verify_folder(out, photos).failures
    assert any("1 of 2 JPEG files hold less than 85%" in line for line in failures)
    edited(out, lambda r: r["output"] == "c.jpg" and r.update(cluster=77))
    failures = verification.verify_folder(out, photos).failures
    assert failures == ("c.jpg: the protector has no wave 77",)


def test_without_the_protector_only_the_budget_counts(written, tmp_path):
    photos, out, _ = written
    (out / "protector").rename(tmp_path / "elsewhere")
    found = verification.verify_folder(out, photos)
    assert found.cue is None
    assert all("JPEG does not keep it" in line for line in found.failures)
    assert verification.verify_folder(out, photos, protector=tmp_path / "elsewhere").failures == ()


def test_damaged_waves_are_refused_in_one_line(tmp_path):
    protector.save(wavy.made_protector(), tmp_path)
    found = inspection.waves_of(tmp_path)
    np.testing.assert_array_equal(found.carriers, wavy.made_protector().gratings.carriers)
    data = (tmp_path / protector.TENSORS).read_bytes()
    for content in (data[:-1], b"", data[:-8] + b"\xff" * 8):
        (tmp_path / protector.TENSORS).write_bytes(content)
        with pytest.raises(UserError, match="holds no gratings") as caught:
            inspection.waves_of(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / protector.TENSORS).unlink()
    with pytest.raises(UserError, match="cannot read"):
        inspection.waves_of(tmp_path)


def test_a_rerun_in_another_format_is_refused_and_in_the_same_is_free(written):
    photos, out, summary = written
    before = (out / manifest.MANIFEST).stat().st_mtime_ns
    again = wavy.protect(photos, NAMES, out, encoding=Encoding("same"))
    assert (again.cue, (out / manifest.MANIFEST).stat().st_mtime_ns) == (summary.cue, before)
    with pytest.raises(UserError, match="format = 'same'"):
        wavy.protect(photos, NAMES, out, encoding=PNG)


def test_folders_of_a_protector_are_clusters(tmp_path):
    """A photo gets its folder's wave, wherever its content would put it, and moves with it."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    names = ["cats/1.png", "dogs/1.png", "dogs/2.png", "new/1.png", "top.png"]
    for number, name in enumerate(names):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        wavy.photo(number, 60, 40).save(photos / name)
    chosen = wavy.made_protector(folders=("dogs", "owls", "cats", "bees"))
    protector.save(chosen, tmp_path / "saved")
    assert protector.load(tmp_path / "saved").folders == chosen.folders

    def clusters():
        return {r["name"]: r["cluster"] for r in manifest.read_manifest(out)}

    wavy.protect(photos, names, out, chosen, cluster_of=lambda crop: 3)
    assert clusters() == dict(zip(names, (2, 0, 0, 3, 3), strict=True))
    before = {r["name"]: r["output_sha256"] for r in manifest.read_manifest(out)}
    (photos / "dogs" / "2.png").rename(photos / "cats" / "2.png")
    names[2] = "cats/2.png"
    wavy.protect(photos, sorted(names), out, chosen, cluster_of=lambda crop: 3)
    after = {r["name"]: r["output_sha256"] for r in manifest.read_manifest(out)}
    assert clusters()["cats/2.png"] == 2
    assert after["cats/2.png"] != before["dogs/2.png"]
    assert {**before, **after} == {"dogs/2.png": before["dogs/2.png"], **after}
    for folders in (("dogs", "cats"), ("a", "a", "b", "c"), (1, 2, 3, 4)):
        with pytest.raises(ValueError, match="folders"):
            protector.save(wavy.made_protector(folders=folders), tmp_path / "wrong")


@pytest.mark.parametrize(
    ("side", "quality", "subsampling", "mode", "expected", "largest"),
    [
        (1200, 90, "4:2:0", "RGB", (True, 2), 1.25),  # as it was
        (160, 90, "4:2:0", "RGB", (True, 0), 3.5),  # waves of a few pixels need colour in full
        (160, 10, "4:4:4", "RGB", (False, 0), 20),  # too coarse for any wave
        (160, 90, "4:4:4", "L", (True, 0), 6),
        (160, 90, "4:4:4", "CMYK", (False, 0), 6),
    ],
)
def test_a_jpeg_is_written_as_it_was_if_that_keeps_its_wave(
    side, quality, subsampling, mode, expected, largest, tmp_path
):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    image = wavy.photo(0, side, side + 8).convert(mode)
    image.save(photos / "a.jpg", quality=quality, subsampling=subsampling)
    summary = wavy.protect(photos, ["a.jpg"], out, encoding=Encoding("same"))
    with Image.open(out / "images" / "a.jpg") as copy, Image.open(photos / "a.jpg") as photo:
        same = copy.quantization[0] == photo.quantization[0]
        assert (same, JpegImagePlugin.get_sampling(copy)) == expected
        if not same:
            assert copy.quantization == standard(95)
    assert summary.output_bytes / summary.source_bytes < largest
    assert verification.verify_folder(out, photos).failures == ()
    photo = picture.read((photos / "a.jpg").read_bytes())
    target = on_whole(wavy.made_protector().gratings, 0, photo.pixels)
    written = (out / "images" / "a.jpg").read_bytes()
    assert copies.encoded(photo, target, Encoding("jpeg")) == written


def standard(quality):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    return Image.open(file).quantization


def test_each_component_of_a_strange_file_has_the_tables_that_it_names():
    file = io.BytesIO()
    wavy.photo(0, 40, 40).save(file, "JPEG", quality=90, subsampling="4:2:0")
    luminance, color = map(tuple, standard(90).values())
    data = file.getvalue()
    frame = data.index(b"\xff\xc0") + 11  # sampling and table of the first of three components
    tables = [i + 4 for i in range(frame) if data[i : i + 2] == b"\xff\xdb"]

    def read(changes):
        strange = bytearray(data)
        for place, value in changes.items():
            strange[place] = value
        return picture.read(bytes(strange))

    own = read({})
    assert own.jpeg == picture.Jpeg((luminance, color), 2)
    renumbered = {tables[0]: 3, tables[1]: 2, frame + 1: 3, frame + 4: 2, frame + 7: 2}
    assert read(renumbered).jpeg == own.jpeg
    assert read({frame + 1: 1}).jpeg == picture.Jpeg((color, color), 2)
    quarter = read({frame: 0x41})  # 4:1:1, which Pillow cannot write
    assert quarter.jpeg == picture.Jpeg((luminance, color), 0)
    assert picture.read(picture.write(quarter, Encoding("jpeg"))).jpeg == quarter.jpeg
    with pytest.raises(picture.UnreadableError):
        read({frame + 1: 3})
