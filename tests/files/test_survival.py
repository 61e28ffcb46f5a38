"""What platforms leave of a cue: files that were resized, recompressed, cut and renamed."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
import wavy
from PIL import Image

from ucjax.cli.command import main
from ucjax.errors import UserError
from ucjax.files import cue, registration, survival
from ucjax.protections import gratings
from ucjax.protections.noise import on_whole
from ucjax.protections.waves import Gratings

NAMES = ("a/1.png", "a/2.png", "b/1.png", "b/4.png")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Originals, and what was published of them."""
    folder = tmp_path_factory.mktemp("published")
    photos, out = folder / "photos", folder / "out"
    for number, name in enumerate(NAMES):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        wavy.photo(number).save(photos / name, compress_level=1)
    wavy.protect(photos, NAMES, out)
    return photos, out


def encoded(image, form, **settings):
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def resized(image, share, method=Image.Resampling.LANCZOS):
    return image.resize([round(side * share) for side in image.size], method)


def cut(image, left, top, right, bottom):
    width, height = image.size
    return image.crop((left * width, top * height, right * width, bottom * height))


# Of photographs of 2,000 px and a wave of a twentieth: these are a quarter as large.
PLATFORMS = {
    "1080 px, JPEG 80": lambda x: encoded(
        resized(x, 1080 / 2000), "JPEG", quality=80, subsampling="4:2:0"
    ),
    "2048 px, JPEG 85": lambda x: encoded(x, "JPEG", quality=85, subsampling="4:2:0"),
    "WebP 75": lambda x: encoded(x, "WEBP", quality=75),
    "cut by a tenth": lambda x: encoded(
        cut(x, 0.03, 0.1, 0.93, 1), "JPEG", quality=90, subsampling="4:4:4"
    ),
    "a square of it, 1080 px": lambda x: encoded(
        resized(cut(x, 0.125, 0, 0.875, 1), 0.7), "JPEG", quality=85, subsampling="4:2:0"
    ),
    "a screenshot": lambda x: encoded(resized(x, 1.37, Image.Resampling.BILINEAR), "PNG"),
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_a_platform_leaves_is_found(platform, published, tmp_path):
    """Against the truth: what the same pipeline does to clean and protected, nothing else known."""
    photos, out = published
    for name in NAMES[:2]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with Image.open(out / "images" / name) as image:
            (tmp_path / name).write_bytes(PLATFORMS[platform](image))
    found = survival.survives(out, tmp_path, photos=photos)
    without = survival.survives(out, tmp_path, patterns=wavy.made_protector().patterns())
    assert [left.photo for left in found.files] == [*NAMES[:2]]
    for left, other in zip(found.files, without.files, strict=True):
        # The protector knows the wave but not the picture: what its pixels have no room for.
        assert other.cue == pytest.approx(left.cue, abs=0.03)
        row = NAMES.index(left.photo)
        assert left.cue == pytest.approx(true_share(photos, out, row, platform), abs=0.06)
        assert left.cue > 0.4
        assert left.likeness > 0.96


def true_share(photos, out, row, platform):
    """The change of the pixels beside that of the same clean picture, projected on its wave."""
    name = NAMES[row]
    with Image.open(photos / name) as clean, Image.open(out / "images" / name) as protected:
        before = np.asarray(protected).astype(float) - np.asarray(clean)
        after = [decoded(PLATFORMS[platform](x)) for x in (clean, protected)]
    change = after[1] - after[0]
    # What the pipeline without its codec leaves of a picture that shows ten times the wave alone.
    grey = np.clip(128 + 6 * before, 0, 255).astype(np.uint8)
    ideal = decoded(PLATFORMS[platform](Image.fromarray(grey))) - 128
    norm = np.sqrt(np.square(ideal).mean() * np.square(before).mean())
    return (change * ideal).mean() / norm


def decoded(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(float)


def test_a_file_as_published_holds_all_and_a_clean_one_nothing(published, tmp_path):
    photos, out = published
    shutil.copytree(out / "images" / "a", tmp_path / "a")
    for left in survival.survives(out, tmp_path, photos=photos).files:
        assert (left.cue, left.kept, left.scale, left.matched) == (1, 1, 1, "name")
        assert left.likeness > 0.999
    for name in ("a/1.png", "a/2.png"):
        with Image.open(photos / name) as image:
            resized(image, 0.6).save(tmp_path / name)
    for left in survival.survives(out, tmp_path, photos=photos).files:
        assert abs(left.cue) < 0.05
        assert left.scale == pytest.approx(0.6, abs=0.01)


def test_renamed_files_are_recognised_and_strangers_named(published, tmp_path):
    photos, out = published
    with Image.open(out / "images" / "b" / "4.png") as image:
        resized(cut(image, 0.1, 0, 1, 0.9), 0.7).save(tmp_path / "IMG_1.jpg", quality=85)
        width, height = image.size
        turned = cut(image, 0, 0, 1, 1)
    with Image.open(out / "images" / "a" / "2.png") as image:
        (tmp_path / "b").mkdir()
        image.save(tmp_path / "b" / "1.webp", quality=90)  # the name of another one
    wavy.photo(77).save(tmp_path / "strange.jpg")
    Image.new("RGB", (300, 200), "red").save(tmp_path / "plain.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    turned.save(tmp_path / "two.gif", save_all=True, append_images=[wavy.photo(5, width, height)])
    found = survival.survives(out, tmp_path, photos=photos)
    assert {(left.file, left.photo, left.matched) for left in found.files} == {
        ("IMG_1.jpg", "b/4.png", "picture"),
        ("b/1.webp", "a/2.png", "picture"),
    }
    (cutout,) = (left for left in found.files if left.file == "IMG_1.jpg")
    assert cutout.kept == pytest.approx(0.81, abs=0.005)
    reasons = dict(found.unmatched)
    assert sorted(reasons) == ["broken.jpg", "plain.png", "strange.jpg", "two.gif"]
    assert reasons["strange.jpg"] == "shows none of the published pictures"
    assert "not a picture" in reasons["broken.jpg"]
    assert "2 frames" in reasons["two.gif"]
    assert "4 others were not measured" in found.sentence()


def test_the_command_with_a_mapping_prints_all_and_a_sentence(published, tmp_path, capsys):
    photos, out = published
    back = tmp_path / "back"
    back.mkdir()
    for number, name in enumerate(("a/1.png", "b/4.png", "a/2.png")):
        shutil.copy(out / "images" / name, back / f"{number}.png")
    mapping, table = tmp_path / "mapping.csv", tmp_path / "table.csv"
    mapping.write_text('0.png,a/1.png\n"1.png","b/4.png"\n2.png,b/1.png\nelsewhere.png,a/1.png\n')
    command = ["survives", str(out), str(back), "--mapping", str(mapping), "--threads", "1"]
    assert main([*command, "--csv", str(table)]) == 3
    text = capsys.readouterr().out
    assert "100% of the cue is left in 2 files taken back" in text
    assert "not measured: 2.png: does not show b/1.png" in text
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(r["file"], r["photo"], r["matched"], r["cue"]) for r in rows[:2]] == [
        ("0.png", "a/1.png", "mapping", "1.0"),
        ("1.png", "b/4.png", "mapping", "1.0"),
    ]
    assert "does not show" in rows[2]["reason"]
    (back / "2.png").unlink()
    assert main([*command, "--against", str(photos), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [left["cue"] for left in found["files"]] == [1, 1]
    assert found["sentence"].startswith("100% of the cue is left in 2 files")


def test_mistakes_are_one_line(published, tmp_path):
    photos, out = published
    back, empty = tmp_path / "back", tmp_path / "empty"
    for folder in (back, empty):
        folder.mkdir()
    wavy.photo(9).save(back / "1.png")
    mapping = tmp_path / "mapping.csv"
    for given, settings, message in [
        ((out, tmp_path / "nowhere"), {}, "is not a folder: give the folder of the files"),
        ((out, empty), {}, "no pictures under"),
        ((out, back), {"photos": tmp_path / "none"}, "folder of the originals"),
        ((out, back), {"photos": photos}, "none of 1 files in"),
        ((out, back), {"mapping": {"1.png": "c.png"}}, "which the manifest lacks"),
        ((tmp_path, back), {}, "cannot read"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            survival.survives(*given, **settings)
        assert "\n" not in str(caught.value)
    for text, message in [
        ("1.png\n", "1 columns, not 2"),
        ("1.png,\n", "2 columns, not 2"),
        ("1.png,a\n1.png,b\n", "row 2: '1.png' is 'a' above"),
    ]:
        mapping.write_text(text)
        with pytest.raises(UserError, match=message):
            survival.read_mapping(mapping)
    with pytest.raises(UserError, match="cannot read the mapping"):
        survival.read_mapping(tmp_path / "none.csv")


@pytest.mark.parametrize("share", [0.35, 1, 1.6])
def test_a_piece_is_found_to_a_tenth_of_a_pixel(share):
    whole = wavy.photo(3)
    edges = (31, 17, 31 + 372, 17 + 301)
    piece = resized(whole.crop(edges), share)
    place = registration.locate(np.asarray(piece), np.asarray(whole))
    np.testing.assert_allclose(place.box(whole.size), edges, atol=0.1)
    assert place.likeness > 0.98
    brighter = np.clip(np.asarray(piece) * 0.8 + 40, 0, 255).astype(np.uint8)
    np.testing.assert_allclose(
        registration.locate(brighter, np.asarray(whole)).box(whole.size), edges, atol=0.1
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 2), (3, 3)])
def test_odd_sizes_are_no_place_and_no_error(size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    whole = np.asarray(wavy.photo(1, 90, 60))
    for one, other in ((picture, whole), (whole, picture), (picture, picture)):
        place = registration.locate(one, other)
        assert -1 <= place.likeness <= 1 + 1e-9
        assert 0 <= place.left < place.right <= 1
        assert 0 <= place.top < place.bottom <= 1
    flat = np.full((50, 40, 3), 90, np.uint8)
    assert registration.locate(flat, whole).likeness == 0
    assert registration.locate(whole, flat).likeness == 0


def test_what_resizing_takes_counts():
    clean = np.full((240, 320, 3), 128, np.uint8)
    target = on_whole(Gratings(gratings.draw(0, 1, "1/20", "luma"), 16, 240, "sine"), 0, clean)
    half = [np.asarray(resized(Image.fromarray(x), 0.5)) for x in (clean, target, target)]
    assert cue.share_of_resized(clean, target, tuple(half)) == pytest.approx(1, abs=0.06)
    tiny = [np.asarray(resized(Image.fromarray(x), 0.06)) for x in (clean, target, target)]
    assert cue.share_of_resized(clean, target, tuple(tiny)) < 0.2  # a period is 0.7 pixels
    nothing = (half[0], half[0], half[1])
    assert cue.share_of_resized(clean, target, nothing) == 0
    with pytest.raises(ValueError, match="no cue"):
        cue.share_of_resized(clean, clean, tuple(half))
