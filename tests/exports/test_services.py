"""What is uploaded to training services: read back as their documentation says it is."""

import csv
import dataclasses
import io
import zipfile

import pytest
from loaders import LABELS, NAMES, expected, protect, reencode
from pictures import content

from ucjax.errors import UserError
from ucjax.exports import azure, paddle, protected_files
from ucjax.exports.export import export

MODULES = {"azure": azure, "paddle": paddle}


def tags(folder):
    """File and tag, as a script that uploads them reads it."""
    with open(folder / "tags.csv", encoding="utf-8", newline="") as file:
        return {row["file"]: row["tag"] for row in csv.DictReader(file)}


def paddlex(data):
    """The pictures of one archive with their classes, as PaddleX's ImageNet format defines them."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.read("labels.txt").decode().splitlines()
        lines = archive.read("train_list.txt").decode().splitlines()
        listed = [line.split(" ") for line in lines]
        return [(path, archive.read(path), names[int(number)]) for path, number in listed]


def test_azure_has_a_folder_a_tag_and_a_list(tmp_path):
    out = protect(tmp_path)
    done = export(out, "azure", tmp_path / "export")
    rows = {row.name: row for row in expected(out)}
    assert tags(done.folder) == {n: r.class_name for n, r in rows.items() if r.label >= 0}
    found = content(done.folder)
    assert {name: found[name] for name in rows} == {name: row.data for name, row in rows.items()}
    assert found.keys() - rows.keys() == {"tags.csv", ".export.json"}


def test_azure_tags_are_the_classes_where_folders_are_not(tmp_path):
    out = protect(tmp_path, ("u/1.png", "u/2.png"), (0, 1), ("a/b", "日本 🐈"))
    export(out, "azure", tmp_path / "export")
    assert tags(tmp_path / "export") == {"a_b/u/1.png": "a/b", "日本 🐈/u/2.png": "日本 🐈"}


@pytest.mark.parametrize(
    ("class_names", "folders"),
    [
        (("cat", "dog-2"), {"cat", "dog-2"}),
        (("big cats", "Hündchen"), {"class_000", "class_001"}),
        (("cat", "Cat"), {"class_000", "class_001"}),
        (("cat", "../x"), {"class_000", "class_001"}),
    ],
)
def test_paddle_lists_pictures_by_the_lines_of_their_classes(class_names, folders, tmp_path):
    out = protect(tmp_path, NAMES, LABELS, class_names)
    export(out, "paddle", tmp_path / "export")
    found = paddlex((tmp_path / "export" / "train-000000.zip").read_bytes())
    wanted = [(row.data, row.class_name) for row in expected(out) if row.label >= 0]
    assert [(data, name) for _, data, name in found] == wanted
    assert {path.split("/")[0] for path, _, _ in found} == folders
    assert all(path.isascii() and " " not in path for path, _, _ in found)


def test_paddle_archives_each_have_their_lists(tmp_path, monkeypatch):
    out = protect(tmp_path)
    monkeypatch.setattr(protected_files, "SHARD_BYTES", 1)
    export(out, "paddle", tmp_path / "export")
    archives = [x for n, x in sorted(content(tmp_path / "export").items()) if n.endswith(".zip")]
    found = [paddlex(data) for data in archives]
    assert [len(rows) for rows in found] == [1, 1, 1, 1, 0]  # the last has no label
    assert [rows[0][1] for rows in found[:4]] == [row.data for row in expected(out)[:4]]


@pytest.mark.parametrize("target", MODULES)
def test_unlabelled_pictures_have_no_lists(target, tmp_path):
    out = protect(tmp_path, ("b.png", "sub/a.png"), (-1, -1))
    export(out, target, tmp_path / "export")
    found = content(tmp_path / "export")
    if target == "paddle":
        with zipfile.ZipFile(tmp_path / "export" / "train-000000.zip") as archive:
            found = {name: archive.read(name) for name in archive.namelist()}
    found.pop(".export.json", None)
    assert sorted(found.values()) == sorted(row.data for row in expected(out))


def test_class_names_that_are_no_line(tmp_path):
    out = protect(tmp_path, ("u/1.png", "u/2.png"), (0, 1), ("a", "b\nc"))
    with pytest.raises(UserError, match="no line of text"):
        export(out, "paddle", tmp_path / "export")


@pytest.mark.parametrize("target", MODULES)
@pytest.mark.parametrize(
    ("limit", "refused", "message"),
    [
        ("size", lambda most: most - 1, "bytes, more than the"),
        ("pictures", lambda most: 4, "5 pictures, and"),
        ("classes", lambda most: 1, "2 classes, and"),
        ("shortest", lambda most: 33, "pixels a side, outside of 33 to"),
        ("longest", lambda most: 59, "pixels a side, outside of"),
        ("ratio", lambda most: 1.75, "sides of 60 : 34, beyond 1.75 : 1"),
        ("suffixes", lambda most: (".bmp",), "is no picture to be uploaded"),
    ],
)
def test_what_is_beyond_a_limit_is_named_and_nothing_is_left(
    target, limit, refused, message, tmp_path, monkeypatch
):
    out = protect(tmp_path)
    most = max(len(row.data) for row in expected(out))
    at = {"size": most, "pictures": 5, "classes": 2, "shortest": 32, "longest": 60}
    at |= {"ratio": 60 / 34, "suffixes": (".png",)}
    fitting = dataclasses.replace(MODULES[target].LIMITS, **at)
    monkeypatch.setattr(MODULES[target], "LIMITS", fitting)
    export(out, target, tmp_path / "fits")
    changed = dataclasses.replace(fitting, **{limit: refused(most)})
    monkeypatch.setattr(MODULES[target], "LIMITS", changed)
    with pytest.raises(UserError) as error:
        export(out, target, tmp_path / "export")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "export").exists()


def test_webp_is_no_format_of_either(tmp_path):
    out = protect(tmp_path)
    reencode(out, ".webp")
    for target in MODULES:
        with pytest.raises(UserError, match=r"\.webp is no picture to be uploaded"):
            export(out, target, tmp_path / "export")
