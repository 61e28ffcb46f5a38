"""`ucjax preview`: what it shows is what would be written, and it writes nothing else."""

import json
import re
from pathlib import Path

import numpy as np
import odd_files
import pytest
from PIL import Image
from test_owner import state, ucjax

import ucjax as package
from ucjax.errors import UserError
from ucjax.files import picture
from ucjax.photos import measured, preview, regions
from ucjax.protections.noise import on_whole

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("preview") / "photos"
    for number in range(7):
        path = root / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        odd_files.photo(300 + number, 260, seed=number).save(path)
    (root / "damaged.jpg").write_bytes(b"no picture")
    return root


def test_a_page_and_nothing_else_is_written(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = state(photos)
    code, text = ucjax("preview", photos, "--count", 2)
    assert (code, state(photos)) == (3, before)
    assert "not shown: damaged.jpg: not a picture" in text
    assert measured.STATE in text
    assert [path.name for path in tmp_path.iterdir()] == ["preview.html"]
    (tmp_path / "preview.html").write_text((tmp_path / "preview.html").read_text()[:200])
    assert (
        ucjax("preview", photos, "--count", 1, "--rows", "gratings:eps=8")[0] == 0
    )  # its own page is replaced
    assert (tmp_path / "preview.html").stat().st_size > 200
    page = package.preview(
        [np.asarray(odd_files.photo(50, 40))], "other.html", rows=["gratings:eps=8"]
    )
    assert page.read_text().count("eps=8") > 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", 0), "--count is 0: from 1 to 24"),
        (("--count", 99), "--count is 99"),
        (("--rows", *(f"gratings:eps={n}" for n in (4, 5, 6, 7))), "--rows has 4 rows"),
        (("--rows", "gratings:eps=0"), "eps of row gratings is 0: give a whole number of 1 to 128"),
        (("--rows", "gratings:color=red"), "unknown color of row gratings 'red'"),
        (("--rows", "uc"), "--rows uc: only rows of gratings are drawn without training"),
        (("--rows", "gratngs"), "did you mean gratings"),
        (("--threads", 0), "--threads is 0"),
        (("--out", "notes.txt"), "notes.txt is there already"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    code, text = ucjax("preview", photos, *arguments)
    assert code == 2
    assert len(text.splitlines()) == 1
    assert message in text
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_no_readable_photo_is_a_mistake(tmp_path):
    for message in ("no pictures under", "none of 1 photos can be read, first x.jpg: not a"):
        with pytest.raises(UserError, match=message):
            preview.preview(tmp_path)
        (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="is not a folder"):
        preview.preview(tmp_path / "x.jpg")


def test_the_shown_are_spread_over_the_folder(photos):
    everything = [f"{n % 2}/{n}.png" for n in (0, 2, 4, 6, 1, 3, 5)] + ["damaged.jpg"]
    assert preview.chosen(photos, 24) == everything
    assert preview.chosen(photos, 1) == everything[:1]
    assert preview.chosen(photos, 3) == [everything[0], everything[4], everything[-1]]


def test_what_is_shown_is_what_the_budget_does(photos):
    rows = ("gratings:eps=4", "gratings:eps=16:wave=sine")
    found = preview.preview(photos, count=3, rows=rows, threads=1)
    assert [(b.row, b.epsilon_255) for b in found.budgets] == [*zip(rows, (4, 16)), ("uc", 16)]  # noqa: B905
    assert len(found.shown) == 2
    for number, shown in enumerate(found.shown):
        with Image.open(photos / shown.name) as image:
            clean = np.asarray(image)
        assert (shown.width, shown.height) == image.size
        for budget, version in zip(found.budgets, shown.versions, strict=True):
            noised = on_whole(budget.patterns, number, clean)
            square = np.square(noised.astype(float) - clean).mean()
            assert version.fidelity.psnr == pytest.approx(10 * np.log10(255**2 / square))
            assert version.fidelity.max_delta_255 == budget.epsilon_255
            assert version.size == len(picture.write(picture.Picture(noised), picture.PNG))
            np.testing.assert_array_equal(version.whole, noised)  # smaller than what is reduced
            for crop, ours in zip(shown.crops, version.crops, strict=True):
                change = np.abs(ours.astype(int) - crop)
                assert 0 < change.max() <= budget.epsilon_255


@pytest.mark.parametrize("alpha", [False, True])
def test_the_size_of_a_large_file_is_told_from_a_part(alpha, monkeypatch):
    rng = np.random.default_rng(0)
    pixels = np.asarray(odd_files.photo(200, 1500)).astype(int) + rng.integers(
        -9, 9, (1500, 200, 3)
    )
    mask = rng.integers(0, 2, (1500, 200), np.uint8) if alpha else None
    large = picture.Picture(pixels.clip(0, 255).astype(np.uint8), alpha=mask)
    whole = preview._size(large, large.pixels, picture.PNG)
    assert whole == len(picture.write(large, picture.PNG))
    monkeypatch.setattr(preview, "_ENCODED_PIXELS", 60_000)
    assert preview._size(large, large.pixels, picture.PNG) == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize("size", [(5, 9), (16, 16), (40, 700), (300, 90), (250, 333)])
def test_squares_lie_within_the_picture_and_do_not_overlap(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    found = regions.squares(pixels, 64)
    assert 1 <= len(found) <= 2
    for square in found:
        side = min(64, *size)
        assert regions.cut(pixels, square).shape == (side, side, 3)
    if len(found) == 2:
        (a, b, side), (c, d, _) = found
        assert abs(a - c) >= side or abs(b - d) >= side


def test_the_flattest_square_is_flat_and_has_room_for_noise():
    pixels = np.random.default_rng(0).integers(60, 200, (400, 500, 3), np.uint8)
    pixels[:, :120] = 255  # flatter still, but noise cannot show on white
    pixels[200:330, 300:440] = 128
    pixels[20:180, 300:480] = np.array([30, 225])[np.indices((160, 180)).sum(axis=0) % 2, None]
    flat, busy = regions.squares(pixels, 96)
    assert np.ptp(regions.cut(pixels, flat)) == 0
    assert np.ptp(regions.cut(pixels, busy)) == 195


def test_every_number_that_is_quoted_is_in_the_results():
    results = (ROOT / "docs" / "results.md").read_text()
    texts = [*measured._BY_BUDGET.values()]
    texts += [attack.known for kind in ("gratings", "pixels") for attack in measured.attacks(kind)]
    numbers = {n for text in texts for n in re.findall(r"\d[\d,.]*\d|\d", text)}
    assert len(numbers) > 10
    missing = []
    for number in numbers:
        forms = (number, f"{float(number.replace(',', '')) / 100:.2f}")
        found = (re.search(rf"(?<![\d.,]){re.escape(form)}(?!\d)", results) for form in forms)
        if not any(found):
            missing.append(number)
    assert missing == []
    assert measured.said("gratings", 3) == measured.said("", 16) == measured._NOTHING
    assert measured.said("gratings:eps=16:bands=1/9", 16) == measured._NOTHING
    assert (
        measured.said("gratings:eps=16", 16) == measured.said("gratings", 16) != measured._NOTHING
    )
    assert json.dumps(measured.attacks("another kind")) == json.dumps(measured._ATTACKS)
