"""The pages for owners: what they say follows the files, and nothing in them is code but ours."""

import base64
import hashlib
import json
import re
import shutil
import stat

import numpy as np
import odd_files
import pytest
import tables as made
from made_pages import NAMES, SCRIPT, publish
from PIL import ExifTags, Image
from test_report import Checker

from ucjax.errors import UserError
from ucjax.files.manifest import read_manifest
from ucjax.photos import account, measured, preview
from ucjax.report import document, owner, previews
from ucjax.runtime import checkpoint

ROWS = ("clean", "random", "cluster_random", "protected")


def text_of(path):
    return " ".join(" ".join(Checker(path.read_text()).text).split())


def evaluate(out):
    """Leaves what an evaluation leaves."""
    means = (0.6, 0.55, 0.5, 0.2)
    entries = [made.entry(row, m, m + 0.02) for row, m in zip(ROWS, means, strict=True)]
    lines = [made.line(row, row="folder=out" if row == "protected" else row) for row in ROWS]
    table = made.table(*entries, rows=lines, chance=0.125, test_count=400)
    checkpoint.write_json(out / "evaluation" / "table.json", table.to_json())


@pytest.mark.parametrize("page", ["out/report.html", "preview.html"])
def test_names_are_text_and_the_only_script_is_ours(page, given):
    path = given / page
    checked = Checker(path.read_text())
    text = "".join(checked.text)
    assert text.count(SCRIPT.replace("/", ":")) >= 1
    assert "\\x1b[31m" in text
    assert "\x1b" not in path.read_text()
    assert checked.tags.count("script") == 1
    (body,) = re.findall(r"<script>(.*?)</script>", path.read_text(), re.DOTALL)
    policy = next(value for _, value in checked.attributes if value and "script-src" in value)
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    for name in ("src", "href"):
        values = [value for key, value in checked.attributes if key == name]
        assert all(value.startswith("data:") for value in values)
    assert "not a picture" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_picture_has_words_and_every_pair_its_clean_picture(given):
    for page in ("out/report.html", "preview.html"):
        checked = Checker((given / page).read_text())
        attributes = checked.attributes
        pictures = checked.tags.count("img")
        words = [value for key, value in attributes if key == "alt"]
        assert len(words) == pictures > 0
        assert all(words)
        ids = [value for key, value in attributes if key == "id"]
        assert len(ids) == len(set(ids))
        assert {value for key, value in attributes if key == "data-clean"} <= set(ids)


def test_the_page_of_protect_says_what_is_in_the_manifest(given):
    text = text_of(given / "out" / "report.html")
    records = read_manifest(given / "out")
    assert "3 photographs protected, 1 not." in text
    assert measured.STATE in text
    assert "Not measured yet: run ucjax evaluate" in text
    share = np.mean([record["mean_abs_delta_255"] for record in records]) / 16
    assert f"change by {share:.2f} of the budget" in text
    worst = max(records, key=lambda record: record["delta_e_mean_screen"])
    shown = text[text.index("differ most to the eye") :]
    assert shown.index(f"PSNR {worst['psnr']:.1f} dB") == shown.index("PSNR ")


def test_commands_are_as_typed_and_hold_no_path_of_the_machine(place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "photos").rename(place / "my photos")
    root = type(place)
    page = owner.write(root("my photos"), root("out"))
    text = text_of(page)
    assert "ucjax verify out --against 'my photos'" in text
    assert "ucjax evaluate 'my photos' out" in text
    assert str(place) not in page.read_text()


def test_a_page_that_is_up_to_date_costs_nothing(place, monkeypatch):
    photos, out = place / "photos", place / "out"
    page = owner.write(photos, out)
    before = page.stat().st_mtime_ns, page.read_bytes()

    def looked(*arguments):
        raise AssertionError("looked into the files again")

    monkeypatch.setattr(account, "of", looked)
    owner.write(photos, out)
    assert (page.stat().st_mtime_ns, page.read_bytes()) == before
    with pytest.raises(AssertionError):
        owner.write(photos, out, protector=place / "other")


def test_the_chart_follows_the_evaluation_and_ends_with_it(place):
    photos, out = place / "photos", place / "out"
    evaluate(out)
    assert not re.search('class="fill"', owner.write(photos, out).read_text())
    page = owner.write(photos, out, evaluated=True)
    widths = re.findall(r'class="fill" style="width: ([\d.]+)%', page.read_text())
    assert [float(width) for width in widths] == pytest.approx([61, 56, 51, 21])
    assert "--chance: 12.5%" in page.read_text()
    (label,) = re.findall(r'class="bars"[^>]*aria-label="([^"]*)"', page.read_text())
    assert label.startswith("clean 61.0 ± 1.4 %, random 56.0")
    assert "Protection is shown" in text_of(page)
    # The same evaluation of other copies is none of these.
    (photos / NAMES[1]).unlink()
    odd_files.photo(80, 60, seed=9).save(photos / NAMES[1])
    publish(photos, out)
    text = text_of(owner.write(photos, out))
    assert "of copies that have changed since" in text
    assert "Protection is shown" not in text


def test_metadata_are_counted_in_originals_and_copies(place):
    photos, out = place / "photos", place / "out"
    exif = Image.Exif()
    exif[ExifTags.Base.Copyright], exif[ExifTags.Base.Model] = "me", "camera"
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.BodySerialNumber: "123"}
    odd_files.photo(80, 60, seed=9).save(photos / NAMES[1], exif=exif)
    publish(photos, out)
    found = account.of(photos, out)
    assert found.metadata == {
        "rights and authors": (1, 1),
        "camera and exposure": (1, 0),
        "place": (1, 0),
        "serial numbers, owner's name": (1, 0),
    }
    assert found.looked_into == 4
    assert "place 1 0" in text_of(owner.write(photos, out))


@pytest.mark.parametrize("theirs", ["<html>mine</html>", "", None, "preview"])
def test_no_page_of_anybody_else_is_replaced(theirs, place):
    page = place / "out" / "report.html"
    page.unlink()
    if theirs is None:
        page.symlink_to(place / "preview.html")
    else:
        page.write_text((place / "preview.html").read_text() if theirs == "preview" else theirs)
    before = page.read_bytes()
    for call in (lambda: owner.check(place / "out"), lambda: owner.write(*outs(place))):
        with pytest.raises(UserError, match="is there already"):
            call()
    assert page.read_bytes() == before


def outs(place):
    return place / "photos", place / "out"


def test_damaged_notes_of_an_evaluation_are_none(place):
    evaluate(place / "out")
    owner.write(*outs(place), evaluated=True)
    for damaged in ("", "[]", "{", json.dumps({"sha256": 1})):
        (place / "out" / "evaluation" / "evaluated.json").write_text(damaged)
        assert account.of(*outs(place)).table is None


def test_the_table_of_the_preview_is_the_medians(given):
    found = preview.preview(given / "photos", count=4)
    values = previews.summary(found)
    for number, budget in enumerate(found.budgets):
        psnr = sorted(shown.versions[number].fidelity.psnr for shown in found.shown)
        assert values[number]["psnr"] == psnr[1]  # of three
        assert f"eps={budget.epsilon_255}" in previews.titles(found)[number]
    text = text_of(given / "preview.html")
    for row in previews.text(found):
        assert row[0] in text or row[0] == "noise"


def test_a_render_depends_on_its_inputs_alone(given, tmp_path):
    shutil.copytree(given / "out", tmp_path / "out")
    pages = [owner.render(account.of(given / "photos", tmp_path / "out"), given) for _ in range(2)]
    assert pages[0] == pages[1]
    assert document.digest_of(given / "out" / "report.html", "owner")
