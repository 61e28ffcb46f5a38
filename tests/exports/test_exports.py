"""Exports are read back by each ecosystem's own loader."""

import importlib
import itertools

import pytest
from loaders import READERS, check, expected, protect, read_hf, reencode, write_manifest
from pictures import content

from ucjax.errors import UserError
from ucjax.exports import TARGETS, protected_files
from ucjax.exports.export import export
from ucjax.files.manifest import read_manifest

# webdataset 1.0.2 leaves the closing of its files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file .*tar:ResourceWarning")


@pytest.fixture
def out(tmp_path):
    return protect(tmp_path)


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))


@pytest.mark.parametrize("target", READERS)
def test_loaders_read_the_published_bytes(target, out, tmp_path):
    done = export(out, target, tmp_path / "export")
    wanted = expected(out)
    found = READERS[target](tmp_path / "export", tmp_path)
    if target == "imagefolder":  # the class is the folder
        found, wanted = sorted(found), sorted(wanted)
    check(found, wanted, labels=target != "imagefolder")
    assert (done.images, done.classes) == (5, 2)
    assert done.size == sum(len(row.data) for row in wanted)


@pytest.mark.parametrize("target", READERS)
def test_unlabelled_sets_have_no_labels(target, tmp_path):
    out = protect(tmp_path, ("b.png", "sub/a.png", "sub/a.jpg"), (-1, -1, -1))
    assert export(out, target, tmp_path / "export").classes == 0
    wanted = expected(out)
    found = READERS[target](tmp_path / "export", tmp_path)
    if target == "imagefolder":
        found, wanted = sorted(found), sorted(wanted)
    check(found, wanted, labels=False)
    assert not [name for name in content(tmp_path / "export") if "label" in name]


@pytest.mark.parametrize("target", ["hf", "tfds", "webdataset"])
@pytest.mark.parametrize("suffix", [".webp", ".jpg"])
def test_other_formats_keep_their_bytes(target, suffix, out, tmp_path):
    reencode(out, suffix)
    export(out, target, tmp_path / "export")
    check(READERS[target](tmp_path / "export", tmp_path), expected(out))


@pytest.mark.parametrize("target", ["hf", "tfds", "webdataset"])
def test_shards_hold_the_same_rows(target, out, tmp_path, monkeypatch):
    sizes = [len(row.data) for row in expected(out)]
    monkeypatch.setattr(protected_files, "SHARD_BYTES", max(sizes) + min(sizes))
    counts = protected_files.load(out).shards()
    assert sum(counts) == 5
    assert 1 < len(counts) < 5
    ends = [0, *itertools.accumulate(counts)]
    for start, end in itertools.pairwise(ends):
        assert sum(sizes[start:end]) <= max(sizes) + min(sizes) < sum(sizes[start : end + 1]) or (
            end == 5
        )
    done = export(out, target, tmp_path / "export")
    check(READERS[target](tmp_path / "export", tmp_path), expected(out))
    shards = [n for n in content(tmp_path / "export") if ".tar" in n or "-of-" in n]
    assert len(shards) == len(counts)
    if target == "webdataset":
        assert f"train-{{000000..{len(counts) - 1:06d}}}.tar" in done.reading


def test_parquet_carries_its_features_without_the_card(out, tmp_path):
    export(out, "hf", tmp_path / "export")
    (tmp_path / "export" / "README.md").unlink()
    check(read_hf(tmp_path / "export", tmp_path, "parquet"), expected(out))


def test_row_groups_are_small(out, tmp_path, monkeypatch):
    import pyarrow.parquet

    from ucjax.exports import huggingface

    monkeypatch.setattr(huggingface, "_GROUP_ROWS", 2)
    export(out, "hf", tmp_path / "export")
    (path,) = (tmp_path / "export" / "data").iterdir()
    metadata = pyarrow.parquet.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [2, 2, 1]
    check(read_hf(tmp_path / "export", tmp_path), expected(out))


@pytest.mark.parametrize("target", TARGETS)
def test_equal_folders_give_equal_exports(target, out, tmp_path):
    for name in ("one", "two"):
        export(out, target, tmp_path / name)
    assert content(tmp_path / "one") == content(tmp_path / "two")


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_private_is_exported(target, out, tmp_path):
    export(out, target, tmp_path / "export")
    private = {b"protect", b"ucjax", b"cluster", b"two words.v2.bmp", str(tmp_path).encode()}
    for record in read_manifest(out):
        for key in ("source_sha256", "noise_sha256"):
            private |= {record[key].encode(), bytes.fromhex(record[key])}
    for name, data in content(tmp_path / "export").items():
        assert not [secret for secret in private if secret in name.encode() + data], name


@pytest.mark.parametrize("target", ["hf", "tfds", "webdataset"])
def test_the_line_that_opens_it_does(target, out, tmp_path):
    line = export(out, target, tmp_path / "export").reading
    module = importlib.import_module(line.partition(".")[0])
    assert len([*eval(line, {module.__name__: module})]) == 5


# Trees by class


@pytest.mark.parametrize(
    ("class_names", "folders"),
    [
        (("a/b", "../c"), ("a_b", "_.._c")),
        ((" x ", ""), (" x ", "_")),
        (("..", "日本 🐈"), ("_..", "日本 🐈")),
    ],
)
def test_labels_beside_the_tree_become_folders(class_names, folders, tmp_path):
    names = ("u/1.png", "u/2.png", "3.png")
    out = protect(tmp_path, names, (0, 1, 1), class_names)
    export(out, "imagefolder", tmp_path / "here" / "export")
    assert {*content(tmp_path / "here" / "export")} == {
        ".export.json",
        f"{folders[0]}/u/1.png",
        f"{folders[1]}/u/2.png",
        f"{folders[1]}/3.png",
    }
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["export"]


def test_folders_of_one_class_are_joined(tmp_path):
    out = protect(tmp_path, ("u/1.png", "v/2.png"), (1, 1))
    export(out, "imagefolder", tmp_path / "export")
    wanted = {".export.json", "Hündchen/u/1.png", "Hündchen/v/2.png"}
    assert {*content(tmp_path / "export")} == wanted


def test_trees_that_cannot_say_the_labels(tmp_path):
    out = protect(tmp_path, ("u/1.png", "u/2.png"), (0, -1))
    with pytest.raises(UserError, match=r"u/2.png has no label among labelled images"):
        export(out, "imagefolder", tmp_path / "export")
    out = protect(tmp_path / "b", ("u/1.png", "u/2.png"), (0, 1), ("a/b", "A_b"))
    with pytest.raises(UserError, match="several class names would give one folder"):
        export(out, "imagefolder", tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("target", ["hf", "tfds", "webdataset"])
def test_class_names_survive(target, tmp_path):
    class_names = ("/a/abbey: #1", "日本 'quoted' \"🐈\"")
    out = protect(tmp_path, ("u/1.png", "u/2.png"), (0, 1), class_names)
    export(out, target, tmp_path / "export")
    check(READERS[target](tmp_path / "export", tmp_path), expected(out))


@pytest.mark.parametrize("name", ["", " cat", "a\nb"])
def test_tfds_refuses_class_names_that_it_would_change(name, tmp_path):
    out = protect(tmp_path, ("u/1.png", "u/2.png"), (0, 1), ("a", name))
    with pytest.raises(UserError, match="TFDS cannot hold the class name"):
        export(out, "tfds", tmp_path / "export")


@pytest.mark.parametrize("target", ["hf", "tfds", "webdataset"])
def test_names_that_are_no_unicode(target, out, tmp_path):
    record, *rest = read_manifest(out)
    path = out / "images" / record["output"]
    record["output"] = "odd\udcff.png"
    path.rename(out / "images" / record["output"])
    write_manifest(out, [record, *rest])
    export(out, target, tmp_path / "export")
    found = READERS[target](tmp_path / "export", tmp_path)
    wanted = expected(out)
    check(found, [wanted[0]._replace(name=r"odd\udcff.png"), *wanted[1:]])
