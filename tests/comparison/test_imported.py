"""Accuracies of a service that is a black box: its files go out, its results come back as cells."""

import csv

import numpy as np
import pytest
from PIL import Image
from runs import fill, of_folder
from tables import CLEAN, UC, table

from ucjax.cli import command
from ucjax.comparison import imported, verdict
from ucjax.comparison.table import drop, load
from ucjax.data.images import build, file_item
from ucjax.errors import UserError
from ucjax.exports.export import export
from ucjax.report import tables
from ucjax.report.finish import finish

CLASSES = ("day", "night")


def photograph(root, count):
    """Bright and dark pictures of which a service can learn the difference."""
    for i in range(count):
        coarse = np.random.default_rng(i).integers(0, 90, (4, 4, 3), np.uint8) + 120 * (i % 2 == 0)
        path = root / CLASSES[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse.astype(np.uint8)).resize((48, 40)).save(path)


def seen(path):
    """What the service's frozen layers make of a picture: 8 x 8 pixels, and a constant."""
    with Image.open(path) as image:
        return np.append(np.asarray(image.convert("RGB").resize((8, 8)), float).ravel() / 255, 1)


def trained(tree):
    """Fine-tunes the last layer on an uploaded tree; of it only predicted labels can be had."""
    with open(tree / "tags.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    known = sorted({row["tag"] for row in rows})
    x = np.stack([seen(tree / row["file"]) for row in rows])
    y = np.eye(len(known))[[known.index(row["tag"]) for row in rows]]
    layer = np.linalg.solve(x.T @ x + 1e-2 * np.eye(x.shape[1]), x.T @ y)
    return lambda paths: [known[i] for i in (np.stack([*map(seen, paths)]) @ layer).argmax(1)]


@pytest.fixture(scope="module")
def measured(mesh, tmp_path_factory):
    """A finished run, and the CSV that a service's answers gave."""
    place = tmp_path_factory.mktemp("service")
    photograph(place / "photos", 40)
    rows = ("clean", "cluster_random", "random")
    config = of_folder(place / "photos", place, protections=rows)
    filled = fill(config, place / "run", mesh)
    test = filled.ground.splits.test
    assert len(test) == 8
    accuracies = {}
    with open(place / "results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("protection", "victim", "seed", "accuracy"))
        for row in rows[:2]:
            files = place / "run" / "protections" / f"{row}-seed0" / "files"
            service = trained(export(files, "azure", place / f"azure-{row}").folder)
            told = service([place / "photos" / name for name in test.names])
            right = np.mean(
                [a == test.class_names[b] for a, b in zip(told, test.labels, strict=True)]
            )
            writer.writerow((row, "azure", 0, accuracies.setdefault(row, right)))
    again = fill(config, place / "run", mesh, elsewhere=place / "results.csv")
    return place / "run", filled, again, accuracies


def test_answers_of_a_black_box_come_back_as_marked_cells(measured):
    _, filled, again, accuracies = measured
    assert accuracies["clean"] == 1
    for row, accuracy in accuracies.items():
        entry = again.table.entry(row, "azure")
        assert entry.values("last") == entry.values("peak") == [accuracy]
        assert entry.train_accuracy() is None
    assert again.table.entry("random", "azure") is None
    column = again.table.column("azure")
    assert (column.imported, column.test_count, column.chance) == (True, 8, 0.5)
    # Its own cells are as they were.
    assert again.table.entries[:3] == filled.table.entries
    assert not any(c.imported for c in filled.table.columns)


def test_it_is_read_back_told_and_ranked(measured):
    folder, _, again, accuracies = measured
    assert load(folder) == again.table
    said = finish(again)
    assert "azure (imported)" in said
    ranked = tables.ranked([load(folder)], ["run"])
    assert "azure (imported)" in [cell for row in ranked for cell in row]
    lines = list(csv.DictReader(again.table.csv().splitlines()))
    assert {line["victim"]: line["imported"] for line in lines} == {"linear": "0", "azure": "1"}
    entry = again.table.entry("cluster_random", "azure")
    assert drop(again.table, entry)[0] == 1 - accuracies["cluster_random"]
    assert not list((folder / "cells").glob("*azure*"))


def written(path, text):
    path.write_text(text)
    return path


def images(folder, labels=(0, 1, 1)):
    photograph(folder, 3)
    items = [
        file_item(p, p.name, y) for p, y in zip(sorted(folder.rglob("*.png")), labels, strict=True)
    ]
    return build(items, short_side=40, cache_dir=folder / "c", label="x", class_names=CLASSES)


def test_several_seeds_make_a_verdict(tmp_path):
    lines = [f"{row},paddle,{seed},{a}" for row, low in (("clean", 0.8), ("uc", 0.2))
             for seed, a in enumerate((low, low + 0.01))]  # fmt: skip
    text = "\n\n".join(["protection,victim,seed,accuracy", *lines, ""])
    found = imported.add(table(CLEAN, UC), written(tmp_path / "r.csv", text), images(tmp_path))
    told = verdict.judge(found, "uc", "paddle")
    assert "trained on the files of uc reach 20.5 ± 0.7 % on 3 clean test images" in told.result
    assert "3 test images leave the clean accuracy between" in told.meaning
    assert found.column("paddle").chance == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has the columns none: give protection, victim, accuracy"),
        ("protection,victim\nuc,azure", "has the columns protection, victim: give"),
        ("protection,victim,accuracy,notes\n", "accuracy, notes: give"),
        ("protection,victim,accuracy\n", "no line below its header"),
        ("protection,victim,accuracy\nuc,azure", "line 2 has 2 values, not 3"),
        ("protection,victim,accuracy\nuk,azure,.5", "unknown protection in .*line 2 'uk'"),
        ("protection,victim,accuracy\nuc,resnet18,.5", "'resnet18' is a model of ucjax"),
        ("protection,victim,accuracy\nuc,my azure,.5", "'my azure' is no plain word"),
        ("protection,victim,accuracy\nuc,azure,73.1", "accuracy is 73.1: give a share of 1"),
        ("protection,victim,accuracy\nuc,azure,nan", "accuracy is nan"),
        ("protection,victim,accuracy\nuc,azure,high", "is 'high': give a number"),
        ("protection,victim,accuracy\nuc,azure,.5\nuc,azure,.6", "line 3: uc, azure with these"),
        ("protection,victim,accuracy,seed\nuc,azure,.5,-1", "seed is -1"),
        ("protection,victim,accuracy,test_images\nuc,azure,.5,4", "test_images is 4, of 3"),
        ("protection,victim,accuracy,test_images\nuc,a,.5,2\nclean,a,.5,3", "another number of"),
    ],
)
def test_files_that_are_wrong_are_refused_in_one_line(text, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        imported.add(table(CLEAN, UC), written(tmp_path / "r.csv", text), images(tmp_path))
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        imported.add(table(CLEAN, UC), tmp_path / "none.csv", images(tmp_path))
    (tmp_path / "r.csv").write_bytes(b"protection,victim,accuracy\n\xff,azure,0.5\n")
    with pytest.raises(UserError, match="cannot be read"):
        imported.add(table(CLEAN, UC), tmp_path / "r.csv", images(tmp_path))
    with pytest.raises(UserError, match="need clean test images with a class"):
        imported.add(table(CLEAN, UC), tmp_path / "r.csv", images(tmp_path, (-1, 0, 1)))


def test_the_option(tmp_path):
    given = command.parse(["compare", str(tmp_path), "--import", "results.csv"])
    assert str(given.elsewhere) == "results.csv"
