"""The report: honest words, valid self-contained HTML, plain JSON."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from ucjax.report import page, plots, tables, tiles, verdict
from ucjax.report.page import Pictures
from ucjax.report.summary import Arm, Summary, mean_std
from ucjax.victims.training import EpochRecord, VictimResult

ATTACK = "<script>alert('&')</script>"
VOID = {"meta", "img", "br"}


def victim(last, peak=None):
    peak = last if peak is None else peak
    curve = (EpochRecord(2.0, 0.5, peak), EpochRecord(1.0, 0.9, last))
    return VictimResult(last, peak, curve)


def make_arm(name, *accuracies, peaks=None):
    changed = name != "clean"
    peaks = peaks or accuracies
    return Arm(
        name=name,
        max_delta_255=16 * changed,
        mean_abs_delta_over_eps=0.8 * changed,
        psnr_median=25.3 if changed else float("inf"),
        ssim_median=0.71 if changed else 1.0,
        moved=0.6 if name == "protected" else 0.0,
        victims={i: victim(*pair) for i, pair in enumerate(zip(accuracies, peaks, strict=True))},
    )


CLEAN = make_arm("clean", 0.85, 0.86, 0.87)
RANDOM = make_arm("random", 0.83, 0.84, 0.85)
CLUSTER_RANDOM = make_arm("cluster_random", 0.60, 0.62, 0.64)
PROTECTED = make_arm("protected", 0.30, 0.31, 0.33)


def make_summary(*arms, **changes):
    summary = Summary(
        config={"seed": 0, "data": {"root": f"/photos/{ATTACK}"}},
        environment={"command": f"python -m ucjax.main {ATTACK}", "packages": {"jax": "0.10"}},
        train_count=12,
        test_count=4,
        class_names=("cat", ATTACK),
        cluster_sizes=(6, 4, 2),
        purity=0.75,
        noise_loss=(0.02, 0.01),
        noise_moved=(0.1, 0.6),
        arms=arms or (CLEAN, RANDOM, CLUSTER_RANDOM, PROTECTED),
    )
    return dataclasses.replace(summary, **changes)


def make_pictures(*, side=12, pairs=2, clusters=3, examples=2):
    rng = np.random.default_rng(0)
    noise = rng.uniform(-16 / 255, 16 / 255, (clusters, side, side, 3)).astype(np.float32)
    clean = rng.integers(0, 256, (pairs, side, side, 3), dtype=np.uint8)
    shown = np.arange(pairs) % clusters
    before = rng.standard_normal((12, 5)).astype(np.float32)
    return Pictures(
        clean=clean,
        protected=np.rint(np.clip(clean / 255 + noise[shown], 0, 1) * 255).astype(np.uint8),
        clusters=shown,
        noise=noise,
        examples=rng.integers(0, 256, (clusters, examples, side, side, 3), dtype=np.uint8),
        before=before,
        after=before + 1,
        assignment=np.repeat(np.arange(3), (6, 4, 2)),
        epsilon_255=16,
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
    page.write(make_summary(), make_pictures(), folder)
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
    assert text.count(ATTACK) == 3  # the class name, the command, the config
    assert "data.root = " in text


def test_page_says_the_headline_and_shows_the_table(checked):
    text = "".join(checked.text).replace("\u00a0", " ")
    assert verdict.judge(make_summary()).result in text
    for row in tables.rows(make_summary()):
        for cell in row:
            assert cell in text


def test_json_is_plain_and_complete(written):
    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads((written / "report.json").read_text(), parse_constant=refuse)
    arms = {arm["name"]: arm for arm in found["arms"]}
    assert list(arms) == ["clean", "random", "cluster_random", "protected"]
    assert arms["clean"]["psnr_median"] is None
    assert arms["random"]["psnr_median"] == 25.3
    accuracies = [0.30, 0.31, 0.33]
    assert arms["protected"]["last"]["mean"] == pytest.approx(np.mean(accuracies))
    assert arms["protected"]["last"]["std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert [v["seed"] for v in arms["protected"]["victims"]] == [0, 1, 2]
    curve = arms["protected"]["victims"][1]["curve"]
    assert [epoch["test_accuracy"] for epoch in curve] == [0.31, 0.31]
    assert found["cluster_sizes"] == [6, 4, 2]
    assert found["noise_loss"] == [0.02, 0.01]
    assert found["verdict"]["shown"] is True
    assert {field.name for field in dataclasses.fields(Summary)} <= set(found)


def test_equal_inputs_give_equal_bytes(written, tmp_path):
    page.write(make_summary(), make_pictures(), tmp_path)
    for name in ("report.html", "report.json"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_unlabelled_images_have_a_page_without_victims(tmp_path):
    arms = [dataclasses.replace(arm, victims={}) for arm in (CLEAN, PROTECTED)]
    summary = make_summary(*arms, class_names=(), purity=None, noise_loss=(), noise_moved=())
    page.write(summary, make_pictures(), tmp_path)
    checked = Checker((tmp_path / "report.html").read_text())
    assert checked.tags.count("svg") == 2
    text = "".join(checked.text)
    assert "None was trained" in text
    assert "60\u00a0% of the protected files" in text
    arms = json.loads((tmp_path / "report.json").read_text())["arms"]
    assert [arm["last"] for arm in arms] == [None, None]


def test_large_runs_stay_small(tmp_path):
    page.write(make_summary(), make_pictures(side=224, pairs=8, examples=6), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 3.5e6  # of pure noise, which packs worst


def test_verdict_claims_protection_only_beyond_every_control():
    found = verdict.judge(make_summary())
    assert found.shown is True
    assert "31.3 ± 1.5 %" in found.result
    assert "86.0 ± 1.0 % for the clean files" in found.result
    assert "30.7 points higher" in found.meaning  # cluster_random is the nearest
    assert "Not measured" not in found.meaning


@pytest.mark.parametrize(
    ("arms", "shown", "words"),
    [
        ((CLEAN, RANDOM, make_arm("protected", 0.84, 0.86, 0.88)), False, "not shown"),
        ((CLEAN, make_arm("protected", 0.95, 0.96)), False, "not shown"),
        ((CLEAN, CLUSTER_RANDOM, make_arm("protected", 0.60, 0.61)), False, "pattern per cluster:"),
        ((CLEAN, RANDOM, PROTECTED), True, "Not measured in this run: a fixed random pattern"),
        ((CLEAN, make_arm("protected", 0.3, 0.3, peaks=(0.86, 0.87))), False, "the best epoch"),
        ((CLEAN, make_arm("protected", 0.3)), None, "One seed"),
        ((RANDOM, PROTECTED), None, "nothing to compare"),
        ((CLEAN, make_arm("protected")), None, "not measured"),
    ],
)
def test_verdict_is_no_better_than_the_evidence(arms, shown, words):
    found = verdict.judge(make_summary(*arms))
    assert found.shown is shown
    assert words in found.meaning


def test_spread_needs_separate_seeds_and_a_wide_gap():
    high = make_arm("clean", 0.80, 0.82)
    assert verdict.beyond_spread(make_arm("protected", 0.70, 0.72), high, "last")
    assert not verdict.beyond_spread(make_arm("protected", 0.60, 0.81), high, "last")  # overlap
    assert not verdict.beyond_spread(make_arm("protected", 0.40, 0.78), high, "last")  # noisy
    assert not verdict.beyond_spread(high, high, "last")


def test_table_shows_no_spread_for_one_seed_and_no_word_inf():
    rows = tables.rows(make_summary(CLEAN, make_arm("protected", 0.3)))
    assert rows[0][1] == "86.0 ± 1.0"
    assert rows[1][1] == "30.0"
    assert "inf" not in tables.text(make_summary())
    assert all(len(row) == len(tables.HEADER) for row in rows)


def test_mean_std_is_the_sample_standard_deviation():
    assert mean_std([0.2, 0.4]) == pytest.approx((0.3, np.std([0.2, 0.4], ddof=1)))
    assert mean_std([0.5]) == (0.5, 0.0)


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
