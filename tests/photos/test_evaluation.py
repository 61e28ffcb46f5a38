"""`ucjax evaluate`: which files the victims see, and what is said of them."""

import json
import shutil

import numpy as np
import odd_files
import pytest
from counted import Counted
from PIL import Image
from test_owner import SMALL, state, ucjax

from ucjax.cli import settings
from ucjax.comparison import columns
from ucjax.comparison.table import load
from ucjax.errors import UserError
from ucjax.files.manifest import read_manifest
from ucjax.photos import evaluate as evaluation
from ucjax.runtime import parallel

TINY = [
    "--config.victim.short_side=36",
    "--config.victim.crop=32",
    "--config.victim.width=4",
    "--config.victim.epochs=2",
    "--config.victim.batch_size=8",
    "--config.availability=False",
]
FAST = ["--victims", "linear", *TINY]
ROWS = ["clean", "random", "cluster_random", "protected"]


@pytest.fixture(scope="module")
def protected_photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    photos, out = folder / "photos", folder / "out"
    for number in range(24):
        path = photos / ("cats", "dogs")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        odd_files.photo(50, 40, seed=number).save(path)
    assert ucjax("protect", photos, out, "--clusters", 3, *SMALL)[0] == 0
    return photos, out


@pytest.fixture
def copy(protected_photos, tmp_path):
    """The photos and their protected copies, to be damaged."""
    return [shutil.copytree(place, tmp_path / place.name) for place in protected_photos]


def test_everything_is_said_and_a_rerun_costs_nothing(protected_photos, monkeypatch):
    photos, out = protected_photos
    command = ("evaluate", photos, out, "--seeds", 2, *TINY)
    code, text = ucjax(*command)
    assert code in (0, 1), text
    said = text[text.index("19 images to train on") :]
    assert "accuracy in % on 5 clean test images" in said
    table = load(out / "evaluation")
    assert [line.label for line in table.lines] == ROWS
    assert [column.name for column in table.columns] == list(evaluation.COLUMNS)
    # Controls are measured by the first victim only.
    assert [(e.label, e.column) for e in table.entries] == [
        (row, column)
        for row in ROWS
        for column in evaluation.COLUMNS
        if row in ("clean", "protected") or column == evaluation.COLUMNS[0]
    ]
    for row in ROWS:
        assert f"\n{row} " in said
    assert "Victims (resnet18) trained on the protected files reach" in said
    assert "It cannot be told whether protection holds: " in said
    assert code == 1
    before, counted = state(out), Counted(monkeypatch)
    again, _ = ucjax(*command)
    after = state(out)
    assert (again, counted.labels) == (code, [])
    names = {path.name for path in after if after[path] != before.get(path)}
    written = {"config.json", "env.json", "table.json", "table.csv", "report.html"}
    written.add("evaluated.json")
    assert names <= {*written, "evaluation", "metrics.jsonl"}
    assert ucjax("report", out)[1].strip() in said
    for entry in table.entries:
        for result in entry.results.values():
            # 5 test photos, 3 of one class and 2 of the other.
            assert 5 * result.last == pytest.approx(round(5 * result.last))
            sums = [5 * result.last - np.dot(result.classes, n) for n in ((2, 3), (3, 2))]
            assert min(np.abs(sums)) < 1e-6


def test_victims_learn_from_copies_and_are_tested_on_other_originals(copy, monkeypatch):
    photos, out = copy
    real, seen = columns.training_set, {}

    def training_set(row, clean, victim, labels, ground):
        seen[row.label], seen["test"] = row, ground.splits
        return real(row, clean, victim, labels, ground)

    monkeypatch.setattr(columns, "training_set", training_set)
    # The folder may hold an evaluation of the same photos in another place: it is made again.
    code, text = ucjax("evaluate", photos, out, "--seeds", 1, *FAST)
    assert code == 1, text
    splits = seen.pop("test")
    assert not {*splits.train.names} & {*splits.test.names}
    assert (len(splits.train), len(splits.test)) == (19, 5)
    for item in splits.test_items:
        np.testing.assert_array_equal(np.asarray(item.open()), Image.open(photos / item.name))
    assert list(seen) == ROWS
    clean = [np.asarray(Image.open(photos / name), int) for name in splits.train.names]
    for label, row in seen.items():
        changes = [np.abs(np.asarray(i.open(), int) - c) for i, c in zip(row.items, clean)]  # noqa: B905
        assert {change.max() for change in changes} == {0 if label == "clean" else 16}
        assert [item.label for item in row.items] == splits.train.labels.tolist()
    # A fixed pattern follows the clusters of the protected files.
    ours = {record["name"]: record["cluster"] for record in read_manifest(out)}
    fixed = read_manifest(seen["cluster_random"].folder / "files")
    assert all(record["cluster"] == ours[record["name"]] for record in fixed)
    noises = {(record["cluster"], record["noise_sha256"]) for record in fixed}
    assert len(noises) == len({record["cluster"] for record in fixed}) > 1


@pytest.mark.parametrize(("format_", "suffix"), [("jpeg", ".jpg"), ("webp", ".webp")])
def test_all_rows_go_through_the_encoder_of_the_copies(format_, suffix, protected_photos, tmp_path):
    photos, given = protected_photos
    out = tmp_path / "out"
    options = ("--protector", given / "protector", "--format", format_)
    assert ucjax("protect", photos, out, *options)[0] == 0
    code, text = ucjax("evaluate", photos, out, "--seeds", 1, *FAST)
    assert code == 1, text
    made = out / "evaluation" / "protections"
    folders = [out, *(made / f"{row}-seed0" / "files" for row in ROWS[:3])]
    encoded = set()
    for folder in folders:
        for record in read_manifest(folder):
            with Image.open(folder / "images" / record["output"]) as image:
                assert record["output"].endswith(suffix)
                tables = getattr(image, "quantization", None)
                encoded.add((image.format, str(tables), str(getattr(image, "layer", None))))
    assert len(encoded) == 1
    line = load(out / "evaluation").line("clean")
    assert (line.max_delta_255 > 0) == (format_ == "jpeg")


def test_rows_are_of_the_photos_formats_where_the_copies_are(copy, tmp_path):
    photos, given = copy
    for path in sorted(photos.rglob("*.png"))[::2]:
        Image.open(path).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    out = tmp_path / "same"
    options = ("--protector", given / "protector", "--format", "same")
    assert ucjax("protect", photos, out, *options)[0] == 0
    code, text = ucjax("evaluate", photos, out, "--seeds", 1, *FAST)
    assert code == 1, text
    made = out / "evaluation" / "protections"
    for folder in [out, *(made / f"{row}-seed0" / "files" for row in ROWS[:3])]:
        kinds = {(record["name"][-4:], record["output"][-4:]) for record in read_manifest(folder)}
        assert kinds == {(".jpg", ".jpg"), (".png", ".png")}


def first(out):
    return out / "images" / read_manifest(out)[0]["output"]


def truncate(photos, out):
    first(out).write_bytes(first(out).read_bytes()[:200])


def other_picture(photos, out):
    odd_files.photo(50, 40, seed=77).save(first(out))


def swap(photos, out):
    """The copies of two photos of one size, each a protected file in its own right."""
    records = read_manifest(out)
    one, two = (out / "images" / record["output"] for record in (records[0], records[2]))
    one.write_bytes(two.read_bytes())


def changed_source(photos, out):
    odd_files.photo(50, 40, seed=78).save(photos / read_manifest(out)[0]["name"])


def lost(photos, out):
    first(out).unlink()


@pytest.mark.parametrize("damage", [truncate, other_picture, swap, changed_source, lost])
def test_a_damaged_or_foreign_file_is_found_before_training(damage, copy, monkeypatch):
    photos, out = copy
    counted = Counted(monkeypatch)
    damage(photos, out)
    name = read_manifest(out)[0]["name"]
    code, text = ucjax("evaluate", photos, out, "--seeds", 1, *FAST)
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert (code, len(lines), counted.labels) == (2, 1, []), text
    assert name.split(".")[0] in lines[0]


def test_photos_without_classes_need_a_label_rule(protected_photos, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(protected_photos[0] / "cats", photos)
    given = ("--protector", protected_photos[1] / "protector")
    assert ucjax("protect", photos, out, *given)[0] == 0
    for rule, message in [
        ((), "has no folder for each class"),
        (("--labels", "clusters-3"), "the clusters that the noise follows"),
        (("--labels", "cluster"), "unknown label rule 'cluster': did you mean clusters"),
    ]:
        code, text = ucjax("evaluate", photos, out, "--seeds", 1, *FAST, *rule)
        assert (code, message in text) == (2, True), text
    (tmp_path / "map.csv").write_text(
        "".join(f"{path.name},{'odd' if number % 2 else 'even'}\n"
                for number, path in enumerate(sorted(photos.iterdir())))
    )  # fmt: skip
    rule = ("--labels", tmp_path / "map.csv")
    code, text = ucjax("evaluate", photos, out, "--seeds", 1, *FAST, *rule)
    assert code == 1, text
    table = load(out / "evaluation")
    assert {*table.columns[0].classes} == {"odd", "even"}
    assert table.train_count == 10


def test_a_time_budget_shortens_the_training(protected_photos, monkeypatch):
    _, out = protected_photos
    config = settings.load(None, TINY, seeds=(0, 1))
    config.unlock()
    config.update(victims=evaluation.COLUMNS, protections=ROWS)
    config.victim.epochs = 1000
    monkeypatch.setattr(evaluation, "_images_per_second", lambda *_: 100.0)
    mesh = parallel.make_mesh()
    evaluation._shorten(config, 24, 20.0, mesh, out)
    # Two seeds of four rows, and of two rows for each of the two other victims.
    assert config.victim.epochs == int(20 * 60 / 16 * 100 / (19 + 5 / 3))
    # Asked again, a machine that is slower by now trains the same victims.
    monkeypatch.setattr(evaluation, "_images_per_second", lambda *_: 50.0)
    epochs, config.victim.epochs = config.victim.epochs, 1000
    evaluation._shorten(config, 24, 20.0, mesh, out)
    assert config.victim.epochs == epochs
    config.victim.epochs = 1000
    with pytest.raises(UserError, match="--minutes allows 2 epochs a victim at 50 images/s"):
        evaluation._shorten(config, 24, 0.3, mesh, out)
    (out / "evaluation" / "budget.json").unlink()


def test_mistakes_are_one_line_and_code_2(protected_photos, tmp_path):
    photos, out = protected_photos
    elsewhere, foreign = tmp_path / "elsewhere", tmp_path / "foreign"
    shutil.copytree(photos / "cats", elsewhere)
    shutil.copytree(out, foreign)
    summary = json.loads((foreign / "summary.json").read_text())
    (foreign / "summary.json").write_text(json.dumps({**summary, "job": {}}))
    for arguments, message in [
        ((photos, photos), "no finished protected files"),
        ((photos, foreign), "was not written by ucjax protect"),
        ((tmp_path / "nowhere", out), "is not a folder"),
        ((elsewhere, out), "24 originals are not in"),
        ((photos, out, "--controls", "wrong"), "unknown control 'wrong'"),
        ((photos, out, "--controls", "uc"), "unknown control 'uc'"),
        ((photos, out, "--victims", "resnet18+prayer"), "unknown recipe or treatment 'prayer'"),
        ((photos, out, "--seeds", 0), "--seeds is 0"),
        ((photos, out, "--minutes", -1), "--minutes is -1"),
    ]:
        code, text = ucjax("evaluate", *arguments)
        lines = [line for line in text.splitlines() if line.startswith("error: ")]
        assert (code, len(lines)) == (2, 1), (arguments, text)
        assert message in lines[0], lines
