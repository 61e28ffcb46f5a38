"""`ucjax evaluate`: which files the victims see, and what is said of them."""

import json
import shutil

import numpy as np
import odd_files
import pytest
from PIL import Image
from test_owner import SMALL, state, ucjax

from ucjax.cli import settings
from ucjax.data.images import file_item
from ucjax.errors import UserError
from ucjax.files.manifest import read_manifest
from ucjax.photos import evaluate as evaluation
from ucjax.photos import holdout
from ucjax.runtime import parallel
from ucjax.victims import treatments as defences

TINY = [
    "--config.victim.short_side=36",
    "--config.victim.crop=32",
    "--config.victim.width=4",
    "--config.victim.epochs=2",
    "--config.victim.batch_size=8",
]
ARMS = ["clean", "random", "cluster_random", "protected"]


@pytest.fixture(scope="module")
def protected_photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    photos, out = folder / "photos", folder / "out"
    for number in range(24):
        path = photos / ("cats", "dogs")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        odd_files.photo(50, 40 + number, seed=number).save(path)
    assert ucjax("protect", photos, out, "--clusters", 3, *SMALL)[0] == 0
    return photos, out


def halves_of(photos, out, **labels):
    config = settings.load(None, [])
    given = {"labels_by": "", "labels_path": ""} | labels
    place = holdout.find(photos, out)
    return place, holdout.split(place, config, parallel.make_mesh(), **given)


def test_victims_learn_from_copies_and_are_tested_on_other_originals(protected_photos):
    photos, out = protected_photos
    place, halves = halves_of(photos, out)
    assert halves.class_names == ("cats", "dogs")
    assert (len(halves.train), len(halves.test)) == (19, 5)
    assert not {item.name for item in halves.train} & {item.name for item in halves.test}
    clean = {item.name: np.asarray(item.open()).astype(int) for item in halves.train}
    for item in halves.test:
        np.testing.assert_array_equal(np.asarray(item.open()), Image.open(photos / item.name))
    for arm in ARMS[1:]:
        items = holdout.training_files(arm, place, halves, seed=0)
        assert [item.label for item in items] == [item.label for item in halves.train]
        folder = out if arm == "protected" else out / "evaluation" / arm
        records = {record["output"]: record for record in read_manifest(folder)}
        for item in items:
            delta = np.asarray(item.open()) - clean[records[item.name]["name"]]
            assert np.abs(delta).max() == 16
    # A fixed pattern follows the clusters of the protected files.
    ours = {record["name"]: record["cluster"] for record in read_manifest(out)}
    fixed = read_manifest(out / "evaluation" / "cluster_random")
    assert all(record["cluster"] == ours[record["name"]] for record in fixed)
    noises = {(record["cluster"], record["noise_sha256"]) for record in fixed}
    assert len(noises) == len({record["cluster"] for record in fixed})


def test_everything_is_said_and_a_rerun_costs_nothing(protected_photos):
    photos, out = protected_photos
    command = ("evaluate", photos, out, "--seeds", 2, "--arms", *ARMS, *TINY)
    code, text = ucjax(*command)
    assert code in (0, 1), text
    for line in (
        *[arm.replace("_", " ") for arm in ARMS],
        "protected + jpeg75",
        "protected + grey",
    ):
        assert f"\n{line} " in text
    assert "19 photos to train on, 5 to test, 2 classes by sub-folders; 2 epochs" in text
    assert "mean ± standard deviation over 2 seeds; guessing reaches 50.0 %" in text
    assert "least protected: " in text
    assert "After 2 epochs the victims of the clean files know " in text
    before = state(out)
    again, _ = ucjax(*command)
    after = state(out)
    assert again == code
    summary = out / "evaluation" / "evaluation.json"
    said = summary.with_name("evaluation.txt")
    assert {p for p in after if after[p] != before.get(p)} <= {summary, said, summary.parent}
    assert ucjax("report", out) == (0, said.read_text())
    assert said.read_text() in text
    found = json.loads(summary.read_text())
    for results in found["results"].values():
        assert results.keys() == {"0", "1"}
        for result in results.values():
            # 5 test photos, 3 of one class and 2 of the other.
            total = sum(share * n for share, n in zip(result["classes"], (2, 3), strict=True))
            other = sum(share * n for share, n in zip(result["classes"], (3, 2), strict=True))
            assert 5 * result["last"] in (pytest.approx(total), pytest.approx(other))


def test_photos_without_classes_are_labelled_by_another_surrogate(protected_photos, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(protected_photos[0] / "cats", photos)
    given = ("--protector", protected_photos[1] / "protector")
    assert ucjax("protect", photos, out, *given)[0] == 0
    with pytest.raises(UserError, match="made the noise's own clusters"):
        halves_of(photos, out, labels_by="efficientnet_lite0")
    assert halves_of(photos, out)[1].labels_by == "packaged_clip"
    summary = json.loads((out / "summary.json").read_text())
    summary["job"]["surrogate"] = "clip"
    (out / "summary.json").write_text(json.dumps(summary))
    _, halves = halves_of(photos, out)
    assert halves.labels_by == "efficientnet_lite0"
    assert len(halves.class_names) == 10
    assert {item.label for item in halves.train} <= set(range(10))


def test_defences_treat_the_file_and_not_what_is_left_of_it(tmp_path):
    odd_files.photo(90, 70).save(tmp_path / "a.png")
    item = file_item(tmp_path / "a.png", "a.png", 3)
    clean = np.asarray(item.open()).astype(int)
    grey = np.asarray(defences.defend(item, "grey").open())
    assert (grey == grey[..., :1]).all()
    np.testing.assert_array_equal(grey[..., 0], np.asarray(item.open().convert("L")))
    jpeg = np.asarray(defences.defend(item, "jpeg75").open())
    assert jpeg.shape == clean.shape
    assert 0 < np.abs(jpeg - clean).mean() < 8
    item.open().save(tmp_path / "b.jpg", quality=75)
    np.testing.assert_array_equal(jpeg, np.asarray(Image.open(tmp_path / "b.jpg")))
    keys = {defences.defend(item, name).content_key for name in defences.DEFENCES}
    assert len(keys | {item.content_key}) == 3  # caches of their own


def test_a_time_budget_shortens_the_training(protected_photos, monkeypatch):
    photos, out = protected_photos
    _, halves = halves_of(photos, out)
    spec = evaluation.VictimSpec(
        **{
            key: value
            for key, value in settings.load(None, TINY).victim.items()
            if key not in ("arms", "seeds")
        }
    )
    monkeypatch.setattr(evaluation, "_images_per_second", lambda *_: 100.0)
    answer = out / "budget.json"
    mesh = parallel.make_mesh()
    epochs = evaluation._affordable(spec, halves, 2.0, mesh, answer)
    assert epochs == int(200 / (19 + 5 / 3))
    # Asked again, a machine that is slower by now trains the same victims.
    monkeypatch.setattr(evaluation, "_images_per_second", lambda *_: 50.0)
    assert evaluation._affordable(spec, halves, 2.0, mesh, answer) == epochs
    with pytest.raises(UserError, match="--minutes allows 2 epochs a victim at 50 images/s"):
        evaluation._affordable(spec, halves, 1.0, mesh, answer)
    answer.unlink()


def test_mistakes_are_one_line_and_code_2(protected_photos, tmp_path):
    photos, out = protected_photos
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(photos / "cats", elsewhere)
    for arguments, message in [
        ((photos, photos), "no finished protected files"),
        ((tmp_path / "nowhere", out), "is not a folder"),
        ((elsewhere, out), "24 of 24 originals are not in"),
        ((photos, out, "--arms", "clean"), "the arms lack 'protected'"),
        ((photos, out, "--arms", "clean", "wrong"), "unknown arm 'wrong'"),
        ((photos, out, "--defences", "prayer"), "unknown defence 'prayer'"),
        ((photos, out, "--seeds", 0), "--seeds is 0"),
        ((photos, out, "--minutes", -1), "--minutes is -1"),
    ]:
        code, text = ucjax("evaluate", *arguments)
        lines = [line for line in text.splitlines() if line.startswith("error: ")]
        assert (code, len(lines)) == (2, 1), (arguments, text)
        assert message in lines[0], lines
