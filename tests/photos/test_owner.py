"""The tool as an owner meets it: odd folders in, protected copies out."""

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import odd_files
import pytest
from pictures import content
from PIL import ExifTags, Image, ImageOps

from ucjax import surrogates
from ucjax.cli.command import main
from ucjax.data.decode import decode, resize
from ucjax.files.manifest import read_manifest, read_summary
from ucjax.photos import protect as owner
from ucjax.protections import protector
from ucjax.protections.gratings import STRENGTHS

# The tests look at damaged EXIF blocks as well.
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data")

SMALL = [
    "--config.data.short_side=36",
    "--config.data.crop=32",
    "--config.noise.epochs=1",
    "--config.noise.batch_size=8",
    "--protection=uc",
]


def ucjax(*arguments):
    """Runs a command; returns its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return code, out.getvalue() + err.getvalue()


def state(root):
    """Everything about a tree that a tool might change."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() else None
        found[path] = (status.st_mtime_ns, status.st_size, status.st_mode, data)
    return found


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    photos, out = folder / "photos", folder / "out"
    photos.mkdir()
    odd_files.make(photos)
    before = state(photos)
    code, text = ucjax("protect", photos, out, "--clusters", 3, *SMALL)
    return photos, out, code, text, state(photos) == before


def opened(path):
    with Image.open(path) as image:
        image.load()
        return image


@pytest.mark.parametrize("name", odd_files.FILES)
def test_a_file_is_protected_or_named_with_the_reason(name, hostile_run):
    photos, out, _, text, _ = hostile_run
    reason = odd_files.FILES[name][1]
    records = {record["name"]: record for record in read_manifest(out)}
    failures = dict(read_summary(out)["failures"])
    assert (name in records) != (name in failures)
    if reason:
        assert reason in failures[name]
        assert failures[name] in text
        return
    record = records[name]
    with Image.open(photos / name) as source:
        upright = ImageOps.exif_transpose(source).size
    assert opened(out / "images" / record["output"]).size == upright
    assert 0 < record["max_delta_255"] <= 16
    assert (out / "images" / record["output"]).parent == (out / "images" / name).parent


def test_the_run_ends_well_and_leaves_the_originals_alone(hostile_run):
    _, out, code, text, untouched = hostile_run
    assert untouched
    assert code == 3  # some files failed
    failed = sum(bool(reason) for _, reason in odd_files.FILES.values())
    assert f"{len(odd_files.FILES) - failed} protected, {failed} not" in text
    assert not any(name in text for name in ("notes.txt", ".hidden", "__MACOSX", ".keep"))
    assert sorted(path.name for path in out.iterdir()) == [
        ".ucjax.json", "images", "manifest.jsonl", "protector", "report.html", "summary.json",
    ]  # fmt: skip
    outputs = {record["output"] for record in read_manifest(out)}
    assert {p.relative_to(out / "images").as_posix() for p in (out / "images").rglob("*.png")} == (
        outputs
    )
    assert len({output.casefold() for output in outputs}) == len(outputs)


def test_an_independent_check_agrees(hostile_run):
    photos, out, *_ = hostile_run
    code, text = ucjax("verify", out, "--against", photos)
    assert (code, "0 faults" in text) == (0, True), text
    code, text = ucjax("verify", out, "--against", photos, "--json")
    found = json.loads(text)
    assert (found["failures"], found["max_delta_255"]) == ([], 16)
    assert len(found["notes"]) == 1 + sum(bool(reason) for _, reason in odd_files.FILES.values())


def test_what_is_worth_keeping_is_kept(hostile_run):
    photos, out, *_ = hostile_run
    outputs = {record["name"]: out / "images" / record["output"] for record in read_manifest(out)}
    assert (
        opened(outputs["profile.jpg"]).info["icc_profile"]
        == opened(photos / "profile.jpg").info["icc_profile"]
    )
    alpha = np.asarray(opened(photos / "alpha.png").getchannel("A"))
    np.testing.assert_array_equal(np.asarray(opened(outputs["alpha.png"]).getchannel("A")), alpha)
    for name in ("turned 6.jpg", "thumbnail.jpg", "place.jpg", "mirrored 5.webp"):
        exif = opened(outputs[name]).getexif()
        assert exif[0x8298] == "© Ünal"
        assert exif.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
        assert 0x0112 not in exif
    assert not opened(outputs["place.jpg"]).getexif().get_ifd(0x8825)


def test_copies_of_the_clean_picture_are_not(hostile_run):
    photos, out, *_ = hostile_run
    outputs = {record["name"]: out / "images" / record["output"] for record in read_manifest(out)}
    assert opened(photos / "thumbnail.jpg").getexif().get_ifd(ExifTags.IFD.IFD1)
    assert not opened(outputs["thumbnail.jpg"]).getexif().get_ifd(ExifTags.IFD.IFD1)
    assert b"a preview" in (photos / "maker note.jpg").read_bytes()
    assert b"a preview" not in outputs["maker note.jpg"].read_bytes()


def test_a_credential_of_the_clean_picture_is_dropped(hostile_run):
    photos, out, *_ = hostile_run
    outputs = {record["name"]: out / "images" / record["output"] for record in read_manifest(out)}
    assert b"c2pa credential" in (photos / "credential.jpg").read_bytes()
    assert b"c2pa" not in outputs["credential.jpg"].read_bytes()


def test_gratings_reach_every_file_and_it_stays_what_it_is(hostile_run, tmp_path):
    photos, out = hostile_run[0], tmp_path / "out"
    code, text = ucjax(
        "protect", photos, out, "--protection", "gratings", "--clusters", 3, *SMALL[:2]
    )
    assert code == 3
    found = {record["name"]: record for record in read_manifest(out)}
    expected = {name for name, (_, reason) in odd_files.FILES.items() if not reason}
    assert expected - {*found} == {"one bit.png"}
    assert "one bit.png: black and white alone, which leaves a wave no room" in text
    jpeg = {".jpg", ".jpeg", ".jfif"}
    for name, record in found.items():
        path = out / "images" / record["output"]
        lossy = Path(name).suffix.lower() in jpeg
        assert (opened(path).format == "JPEG") == (path.suffix == ".jpg") == lossy
        assert record["cue"] > 0.9 if lossy else record["max_delta_255"] == 16
    code, text = ucjax("verify", out, "--against", photos)
    assert (code, "0 faults" in text) == (0, True), text


@pytest.fixture(scope="module")
def family(hostile_run, tmp_path_factory):
    """A protector, and a few more photos for it."""
    _, out, *_ = hostile_run
    photos = tmp_path_factory.mktemp("family") / "photos"
    for number, name in enumerate(["a/1.jpg", "a/2.png", "b/1.jpg", "b/2.webp", "b/3.jpg"]):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        odd_files.photo(60, 50, seed=10 + number).save(photos / name)
    odd_files.with_exif(place=True)(photos / "b" / "place.jpg")
    return photos, out / "protector"


def test_a_photo_gets_the_noise_of_the_nearest_centre(family, tmp_path):
    photos, given = family
    code, text = ucjax("protect", photos, tmp_path / "out", "--protector", given)
    assert code == 0, text
    chosen = protector.load(given)
    surrogate = surrogates.load("efficientnet_lite0", image_size=32)
    for record in read_manifest(tmp_path / "out"):
        with Image.open(photos / record["name"]) as image:
            small = np.asarray(resize(decode(image), 36))
        top, left = (round((side - 32) / 2) for side in small.shape[:2])
        crop = small[top : top + 32, left : left + 32]
        feature = np.asarray(surrogate.embed(surrogate.params, crop[None] / np.float32(255)))
        nearest = int(np.square(chosen.centers - feature).sum(axis=1).argmin())
        assert record["cluster"] == nearest
        assert owner.nearest_cluster(chosen, surrogate)(crop) == nearest


def test_a_rerun_costs_nothing_and_added_photos_are_added(family, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(family[0], photos)
    command = ("protect", photos, out, "--protector", family[1])
    assert ucjax(*command)[0] == 0
    before = state(out)
    assert ucjax(*command)[0] == 0
    assert state(out) == before
    odd_files.photo(seed=99).save(photos / "a" / "1.png")  # its output's name is taken
    odd_files.photo(seed=98).save(photos / "b" / "1.jpg")  # changed
    shutil.copy(out / "images" / "a" / "2.png", photos / "a" / "again.png")
    code, text = ucjax(*command)
    assert (code, "again.png: protected already" in text) == (3, True)
    after = state(out)
    changed = {p.relative_to(out).as_posix() for p in after if after[p] != before.get(p)}
    written = {"images/a/1_png.png", "images/b/1.png"}
    said = {"manifest.jsonl", "summary.json", "report.html"}
    assert changed == written | said | {"images/a", "images/b"}
    assert ucjax("verify", out, "--against", photos)[0] == 0


@pytest.mark.parametrize("format_", ["webp", "jpeg"])
def test_other_formats_and_the_reservation(format_, family, tmp_path):
    photos, given = family
    options = ("--format", format_, "--opt-out")
    code, text = ucjax("protect", photos, tmp_path, "--protector", given, *options)
    assert code == 0, text
    largest = 0
    for record in read_manifest(tmp_path):
        path = tmp_path / "images" / record["output"]
        image = opened(path)
        assert image.format == format_.upper()
        assert b"DMI-PROHIBITED-AIMLTRAINING" in image.info["xmp"]
        assert not image.getexif().get_ifd(0x8825)
        clean = np.asarray(decode(opened(photos / record["name"]))).astype(int)
        assert np.abs(np.asarray(image) - clean).max() == record["max_delta_255"]
        largest = max(largest, record["max_delta_255"])
    # Compression adds to the noise, and what it adds is what is said.
    assert largest == 16 if format_ == "webp" else largest > 16
    assert f"largest change on disk   {largest} of 255" in text
    code, text = ucjax("verify", tmp_path, "--against", photos, "--protector", given)
    lossless = format_ == "webp"
    assert (code, "0 faults" in text) == (0 if lossless else 1, lossless)
    assert f"changed by {largest} levels (linf), over 16 by {largest - 16}" in text or lossless


def test_a_place_is_kept_if_asked_for_and_found_if_not(family, tmp_path):
    photos, given = family
    ucjax("protect", photos, tmp_path, "--protector", given, "--keep-metadata", "gps")
    place = opened(tmp_path / "images" / "b" / "place.png").getexif().get_ifd(0x8825)
    assert place[2] == (52.0, 30.0, 0.0)
    assert ucjax("verify", tmp_path, "--against", photos)[0] == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary["job"]["keep"] = []
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    code, text = ucjax("verify", tmp_path, "--against", photos)
    assert (code, "b/place.png: holds the EXIF tag 0x0001" in text) == (1, True)


def test_mistakes_are_one_line_and_code_2(family, hostile_run, tmp_path):
    (photos, given), (hostiles, learnt) = family, hostile_run[:2]
    out = tmp_path / "out"
    ucjax("protect", photos, out, "--protector", given)
    before = content(out)
    (tmp_path / "none").mkdir()
    (tmp_path / "one").mkdir()
    odd_files.photo().save(tmp_path / "one" / "1.jpg")
    for arguments, message in [
        (("protect", tmp_path / "nowhere", out), "is not a folder"),
        (("protect", tmp_path / "none", tmp_path / "x"), "no pictures under"),
        (("protect", photos, photos / "out"), "lie in each other"),
        (("protect", photos, photos.parent), "lie in each other"),
        (("protect", out, tmp_path / "x"), "protected files already"),
        (("protect", photos, out, "--protector", given, "--format", "webp"), "format = 'png'"),
        (("protect", photos, tmp_path / "x", "--protector", tmp_path), "no protector at"),
        (("protect", photos, out, "--protector", given, "--eps", 8), "--eps is for training"),
        (("protect", hostiles, learnt, *SMALL, "--eps", 8, "--clusters", 3), "= 16, now it is 8"),
        (("protect", photos, tmp_path / "x", "--eps", 300), "is 300"),
        (("protect", photos, tmp_path / "x", "--clusters", 99), "6 readable photos"),
        (("protect", tmp_path / "one", tmp_path / "x"), "1 readable photos"),
        (("protect", photos, tmp_path / "x", "--threads", 0), "--threads is 0"),
        (("protect", photos, tmp_path / "x", "--config.noise.epocs=1"), "did you mean 'epochs'"),
        (("protect", photos, tmp_path / "x", "--wrong"), "unexpected argument '--wrong'"),
        (("verify", photos, "--against", photos), "no finished protected files"),
        (("verify", out, "--against", tmp_path / "nowhere"), "is not a folder"),
        (("verify", out, "--against", photos, "--config.seed=1"), "unexpected argument"),
    ]:
        code, text = ucjax(*arguments)
        lines = [line for line in text.splitlines() if line.startswith("error: ")]
        assert (code, len(lines)) == (2, 1), (arguments, text)
        assert message in lines[0], lines
    assert content(out) == before


def test_a_full_disk_is_one_line_and_loses_nothing(family, tmp_path, monkeypatch):
    photos, given = family
    command = ("protect", photos, tmp_path / "out", "--protector", given, "--threads", 1)
    from ucjax.runtime import disk

    replace, calls = disk.os.replace, []

    def full(source, target):
        calls.append(target)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "replace", full)
        code, text = ucjax(*command)
    assert code == 1
    assert "No space left on device; see to it, then run again to go on" in text
    assert ucjax(*command)[0] == 0
    ucjax("protect", photos, tmp_path / "whole", "--protector", given)
    assert copies(tmp_path / "out") == copies(tmp_path / "whole")


def test_a_photo_added_after_a_kill_is_protected_with_the_others(tmp_path, monkeypatch):
    """Nothing is published before the protector, so nothing made before it may stop the next."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for number in range(9):
        odd_files.photo(60, 50, seed=number).save(photos / f"{number}.png")
    command = ("protect", photos, out, "--clusters", 2, *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(protector, "save", interrupted)
        code, text = ucjax(*command)
        assert (code, "goes on from here" in text) == (130, True)
    assert (out / ".training" / "noise" / "noise.safetensors").is_file()
    odd_files.photo(60, 50, seed=99).save(photos / "added.png")
    code, text = ucjax(*command)
    assert (code, "10 protected, 0 not" in text) == (0, True), text
    ucjax("protect", photos, tmp_path / "whole", "--clusters", 2, *SMALL)
    assert copies(out) == copies(tmp_path / "whole")


def copies(out):
    """All of an OUT but its page, which names it."""
    return {name: data for name, data in content(out).items() if name != "report.html"}


def interrupted(*_):
    raise KeyboardInterrupt


def test_an_owner_s_folders_are_clusters_at_a_strength(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    for number in range(6):
        path = photos / ("cats", "dogs")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        odd_files.photo(60, 50, seed=number).save(path)
    row = f"{STRENGTHS['balanced']}:labels=folders"
    small = [*SMALL[:2], "--clusters", 2]
    code, text = ucjax("protect", photos, out, "--protection", row, *small)
    assert code == 0, text
    assert re.search(r"seen at 1:1 +SSIM of luminance [01]\.\d+, CIEDE2000 \d+\.\d mean", text)
    records = {record["name"]: record["cluster"] for record in read_manifest(out)}
    assert {name.partition("/")[0]: c for name, c in records.items()} == {"cats": 0, "dogs": 1}
    assert all(c == ("dogs" in name) for name, c in records.items())
    found = protector.load(out / "protector")
    assert (found.folders, found.gratings.wave, found.epsilon_255) == (("cats", "dogs"), "sine", 16)
    # With an existing protector other folders go by content, these by their name.
    (photos / "cats").rename(photos / "birds")
    code, text = ucjax("protect", photos, tmp_path / "b", "--protector", out / "protector")
    assert code == 0, text
    assert all(r["cluster"] == 1 for r in read_manifest(tmp_path / "b") if "dogs" in r["name"])
    for arguments, message in [
        (("--strength", "strong", "--eps", 8), "--strength strong sets --eps as well"),
        (("--strength", "strong", "--protection", "uc"), "sets --protection as well"),
        (("--protector", out / "protector", "--strength", "strong"), "--strength is for training"),
    ]:
        code, text = ucjax("protect", photos, tmp_path / "c", *arguments)
        assert (code, message in text) == (2, True), text
