"""The leaderboard ranks rightly and has rows and columns that exist; CI runs it from end to end."""

import zipfile

import pytest
from tables import CLEAN, RANDOM, UC, entry, line, table

from benchmarks import leaderboard, tiny_imagenet
from ucjax.comparison import run
from ucjax.comparison.availability import Availability
from ucjax.data import folder as folders
from ucjax.errors import UserError
from ucjax.names import parse
from ucjax.protections.table import PROTECTIONS
from ucjax.victims import table as victims

IDS = ("n00000003", "n00000001", "n00000002")


def archive(path, names, annotations=""):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, name)
        if annotations:
            file.writestr("tiny-imagenet-200/val/val_annotations.txt", annotations)
    return path


def ours(path):
    """Class folders in both splits, as the data's README describes them."""
    names = [
        f"{split}/{i}/{split}_{n}.JPEG" for split in ("train", "val") for i in IDS for n in "01"
    ]
    return archive(path, [*names, "classes.tsv"])


def official(path):
    """As Stanford's file: pictures in `images/`, those of validation in one folder with a list."""
    root, lines = "tiny-imagenet-200", []
    names = [f"{root}/train/{i}/images/{i}_{n}.JPEG" for i in IDS for n in "01"]
    for number, wordnet in enumerate(IDS):
        names.append(f"{root}/val/images/val_{number}.JPEG")
        lines.append(f"val_{number}.JPEG\t{wordnet}\t0\t0\t62\t62\n")
    return archive(path, [*names, f"{root}/test/images/test_0.JPEG"], "".join(lines))


@pytest.mark.parametrize(("make", "tests"), [(ours, 2), (official, 1)])
def test_the_first_classes_become_a_tree_that_is_read_with_its_splits(make, tests, tmp_path):
    root = tiny_imagenet.unpack(make(tmp_path / "x.zip"), tmp_path / "pictures", 2)
    found = folders.listing(root, test_fraction=0.5, seed=0)
    assert found.class_names == ("n00000001", "n00000002")
    assert [len(found.train), len(found.test)] == [4, 2 * tests]
    for file in root.rglob("*.JPEG"):  # each holds its name in the archive
        if make is ours or file.parts[-3] == "train":
            assert file.parent.name in file.read_text()
    (tmp_path / "x.zip").unlink()
    assert tiny_imagenet.unpack(tmp_path / "x.zip", tmp_path / "pictures", 2) == root


def test_names_that_lead_out_are_passed_over(tmp_path):
    strange = ["../train/n00000009/a.JPEG", "/train/n00000009/a.JPEG", "train/n00000009/../b.JPEG"]
    good = [f"train/{i}/0.JPEG" for i in IDS]
    path = archive(tmp_path / "x.zip", [*strange, *good])
    root = tiny_imagenet.unpack(path, tmp_path / "in" / "pictures", 3)
    assert sorted(p.parent.name for p in root.rglob("*.JPEG")) == sorted(IDS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "x.zip"]


def test_archives_of_something_else(tmp_path):
    with pytest.raises(UserError, match="has 0 classes of Tiny-ImageNet, and 40 are asked"):
        tiny_imagenet.unpack(archive(tmp_path / "x.zip", ["a.txt"]), tmp_path / "pictures", 40)
    (tmp_path / "y.zip").write_text("no archive")
    with pytest.raises(UserError, match="cannot be read as a zip file"):
        tiny_imagenet.unpack(tmp_path / "y.zip", tmp_path / "pictures", 40)
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize("given", [["--textures"], ["--photos", "p"], ["--tfds", "cifar10"]])
def test_every_row_and_column_can_be_filled(given, mesh, tmp_path):
    (tmp_path / "p" / "cat").mkdir(parents=True)
    given = [str(tmp_path / "p") if word == "p" else word for word in given]
    config = leaderboard.config_of(leaderboard.parse(given), tmp_path)
    columns = [victims.resolve(parse(text, "column"), config) for text in config.victims]
    config.victims = ("linear",)  # to check a network a column takes seconds
    plan = run.check(config, mesh)
    # Every protection but those of files that are there already.
    made = {name for name, protection in PROTECTIONS.items() if protection.fit is not None}
    assert {row.base for row in plan.rows} == made
    assert [str(victim.name) for victim in columns] == [*leaderboard.COLUMNS]


def test_rows_are_ranked_by_their_mean_drop_over_the_columns():
    other = [
        entry("clean", 0.5, 0.5, column="vgg6"),
        entry("random", 0.1, 0.1, column="vgg6"),
        entry("uc", 0.45, 0.45, column="vgg6"),
    ]
    found = table(CLEAN, RANDOM, UC, *other)
    places = leaderboard.ranking(found)
    assert [place.label for place in places] == ["uc", "random", "clean"]
    assert places[0].drop == pytest.approx((0.86 - (0.30 + 0.31 + 0.33) / 3 + 0.05) / 2)
    assert places[1].drop == pytest.approx((0.02 + 0.4) / 2)
    assert places[2].drop == 0


def test_the_table_says_what_made_it():
    about = {"command": "python -m x", "commit": "abc", "devices": "1 × cpu", "seconds": 3}
    text = leaderboard.markdown(table(CLEAN, UC), about)
    assert text.startswith("`python -m x`\n\nCommit abc, 1 × cpu, 3 s; 12 images to train on, 1000")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[2] == ("| 1 | `uc` | 54.7 | 31.3 ± 1.5 (54.7) | – | 25.3 | 0.710 | 60 | 2 |")
    assert lines[3] == "| 2 | `clean` | 0.0 | 86.0 ± 1.0 | – | ∞ | 1.000 | 0 | – |"
    assert len({line.count("|") for line in lines}) == 1


def test_how_far_seen_early_ranks_as_victims_do():
    gains = {"uc": 0.4, "random": 0.0, "lsp": 0.3, "em": 0.1}
    lasts = {"uc": 0.3, "random": 0.8, "lsp": 0.2, "em": 0.6}  # the first and third change places
    rows = [line("clean")]
    for label, gain in gains.items():
        rows.append(line(label, availability=Availability((0.2 + gain,) * 3, (0.2,) * 3, 0.1)))
    entries = [entry(label, last, last) for label, last in lasts.items()]
    found = table(CLEAN, *entries, rows=rows)
    assert leaderboard.agreement(found) == (pytest.approx(0.8), 4)
    about = dict.fromkeys(("command", "commit", "devices", "seconds"), "")
    text = leaderboard.markdown(found, about)
    assert text.endswith("of *seen early* with the mean drop: 0.80 over 4 rows.\n")
    assert leaderboard.agreement(table(CLEAN, UC)) is None
    few = table(CLEAN, *entries[:2], rows=rows[:3])
    assert leaderboard.agreement(few) is None
