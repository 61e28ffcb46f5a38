"""The report: honest words, valid self-contained HTML, plain JSON."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import tables as made
from PIL import Image
from sklearn.decomposition import PCA

from ucjax.cli.command import main
from ucjax.comparison import verdict
from ucjax.comparison.table import load
from ucjax.report import page, plots, tables, tiles
from ucjax.report.page import Pictures

ATTACK = "<script>alert('&')</script>"
VOID = {"meta", "img", "br"}


def make_table(*entries, **changes):
    hostile = {
        "config": {"seed": 0, "data": {"root": f"/photos/{ATTACK}"}},
        "environment": {"command": f"python -m ucjax.main {ATTACK}", "packages": {"jax": "0.10"}},
    }
    return made.table(*entries, **{**hostile, **changes})


def make_pictures(*, side=12, pairs=2, clusters=3, examples=2):
    rng = np.random.default_rng(0)
    noise = rng.uniform(-16 / 255, 16 / 255, (clusters, side, side, 3)).astype(np.float32)
    clean = rng.integers(0, 256, (pairs, side, side, 3), dtype=np.uint8)
    shown = np.arange(pairs) % clusters
    before = rng.standard_normal((12, 5)).astype(np.float32)
    return Pictures(
        row=f"uc:{ATTACK}",
        clean=clean,
        protected=np.rint(np.clip(clean / 255 + noise[shown], 0, 1) * 255).astype(np.uint8),
        clusters=shown,
        noise=noise,
        examples=rng.integers(0, 256, (clusters, examples, side, side, 3), dtype=np.uint8),
        before=before,
        after=before + 1,
        assignment=np.repeat(np.arange(3), (6, 4, 2)),
        purity=0.75,
        epsilon_255=16,
        loss=(0.02, 0.01),
        moved=(0.1, 0.6),
    )


class Checker(HTMLParser):
    """Fails on tags that do not nest; collects tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    page.write(make_table(), make_pictures(), folder)
    return folder


@pytest.fixture(scope="module")
def checked(written):
    return Checker((written / "report.html").read_text())


def values(checked, name):
    return [value for key, value in checked.attributes if key == name]


def test_html_nests_and_ids_are_unique(checked):
    ids = values(checked, "id")
    assert checked.tags.count("svg") == 6
    assert len(ids) == len(set(ids)) > 0
    targets = [link[1:] for link in values(checked, "xlink:href") if link.startswith("#")]
    assert targets
    assert set(targets) <= set(ids)
    clips = re.findall(r"url\(#([^)]*)\)", " ".join(filter(None, values(checked, "clip-path"))))
    assert clips
    assert set(clips) <= set(ids)


def test_html_needs_nothing_else(checked, written):
    for name in ("src", "href", "xlink:href"):
        assert all(value.startswith(("data:", "#")) for value in values(checked, name))
    assert not {"script", "link", "iframe"} & set(checked.tags)
    text = (written / "report.html").read_text()
    assert "@import" not in text
    outside = re.findall(r"https?://[^\"' <]*", text)
    assert set(outside) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_what_users_wrote_is_text(checked):
    text = "".join(checked.text)
    assert "script" not in checked.tags
    assert text.count(ATTACK) == 3  # the row, the command, the config
    assert "<div" not in text
    assert "<img" not in text
    assert "data.root = " in text


def test_labels_that_users_wrote_are_text():
    label = f"folder={ATTACK}"
    rows = (made.line("clean"), made.line(label, row="folder=x"))
    entries = [made.entry(x, 0.8, 0.82, column=ATTACK) for x in ("clean", label)]
    text = page.render(make_table(*entries, rows=rows), None)
    checked = Checker(text)
    assert "script" not in checked.tags
    assert "".join(checked.text).count(label) >= 3  # two tables and the legend


def test_page_says_the_headline_and_shows_the_tables(checked):
    text = "".join(checked.text).replace("\u00a0", " ")
    found = verdict.judge(make_table())
    assert found.result in text
    assert found.meaning in text
    for rows in (tables.accuracies(make_table()), tables.facts(make_table())):
        for row in rows:
            for cell in row:
                assert cell in text


def test_page_says_of_every_other_row_and_column_what_is_shown():
    weak = made.entry("uc:eps=2", 0.85, 0.86)
    other = [made.entry(e.label, 0.8, 0.81, column="vit_tiny") for e in (made.CLEAN, made.UC)]
    table = make_table(made.CLEAN, made.UC, weak, *other)
    text = "".join(Checker(page.render(table, None)).text)
    for label, column in (("uc:eps=2", made.COLUMN), ("uc", "vit_tiny")):
        said = verdict.judge(table, label, column).meaning
        assert f"{label} against {column}: {said}" in text
    assert f"uc against {made.COLUMN}:" not in text


def test_equal_inputs_give_equal_bytes(written, tmp_path):
    page.write(make_table(), make_pictures(), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == (written / "report.html").read_bytes()
    assert len(list(tmp_path.iterdir())) == 1


def test_images_without_victims_have_a_page(tmp_path):
    table = make_table(made.entry("clean"), made.entry("uc"), columns=())
    pictures = dataclasses.replace(make_pictures(), purity=None, loss=(), moved=())
    page.write(table, pictures, tmp_path)
    checked = Checker((tmp_path / "report.html").read_text())
    assert checked.tags.count("svg") == 2
    text = "".join(checked.text)
    assert "None was trained" in text
    assert "Purity" not in text
    assert "accuracy" not in tables.text(table)
    page.write(table, None, tmp_path)
    assert Checker((tmp_path / "report.html").read_text()).tags.count("svg") == 0


def test_large_runs_stay_small(tmp_path):
    page.write(make_table(), make_pictures(side=224, pairs=8, examples=6), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 3.5e6  # of pure noise, which packs worst


def test_tables_show_no_spread_for_one_seed_and_no_word_inf():
    table = make_table(made.CLEAN, made.entry("uc", 0.3))
    rows = tables.accuracies(table)
    assert rows[0] == ("trained on", "resnet18")
    assert rows[1:] == [("clean", "86.0 ± 1.0 (86.0 ± 1.0)"), ("uc", "30.0 (30.0)")]
    clean, ours = tables.facts(table)[1:]
    assert clean == ("clean", "–", "0.0", "0", "∞", "1.000", "none", "0", "–")
    assert ours == ("uc", "–", "12.8 = 0.80 eps", "16", "25.3", "0.710", "none", "60", "2.0")
    assert "inf" not in tables.text(table)


def test_what_was_not_measured_is_a_dash():
    other = made.entry("clean", 0.5, column="vit_tiny")
    rows = tables.accuracies(make_table(made.CLEAN, made.UC, other))
    assert [len(row) for row in rows] == [3, 3, 3]
    assert rows[2][2] == "–"


def test_the_ranked_table_has_drops_in_points_with_their_intervals():
    header, first, *_, last = tables.ranked([make_table(), make_table(made.UC)], ["a", "b"])
    assert header == tables.RANKED
    assert first[:5] == ("uc", "resnet18", "3", "31.3 ± 1.5", "54.7")
    low, high = map(float, first[5].split(" to "))
    assert low < 54.7 < high
    assert last[:6] == ("uc", "resnet18", "3", "31.3 ± 1.5", "–", "–")
    assert (first[-1], last[-1]) == ("a", "b")


def test_columns_are_aligned():
    lines = tables.aligned([("a", "12"), ("long", "3")])
    assert lines == ["a     12", "long   3"]


def test_the_command_says_what_is_in_the_folder(tmp_path, capsys):
    (tmp_path / "evaluation").mkdir()
    path = tmp_path / "evaluation" / "table.json"
    path.write_text(json.dumps(make_table().to_json()))
    for folder in (tmp_path, tmp_path / "evaluation"):
        assert main(["report", str(folder)]) == 0
        said = capsys.readouterr().out
        assert tables.text(load(path.parent)) in said
        assert verdict.judge(make_table()).meaning in said


def test_plane_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50, 6)) * [5, 3, 1, 1, 1, 1] + 7
    mean, plane, share = plots.principal_plane(rows)
    oracle = PCA(2).fit(rows)
    np.testing.assert_allclose(mean, oracle.mean_)
    np.testing.assert_allclose(np.abs(plane.T @ oracle.components_.T), np.eye(2), atol=1e-6)
    assert share == pytest.approx(oracle.explained_variance_ratio_.sum())


def test_amplified_noise_spans_black_to_white():
    noise = np.array([-16, 0, 8, 16]) / 255
    assert tiles.amplified(noise, 16).tolist() == [0, 128, 191, 255]


def test_pictures_are_lossless_crops():
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    middle = tiles.middle(images, 5)
    np.testing.assert_array_equal(middle, images[:, 2:7, 2:7])
    data = re.search(r'base64,([^"]*)', tiles.lossless(middle[0], "x"))[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), middle[0])
