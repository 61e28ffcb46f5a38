import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ucjax.data import folder, sources, textures
from ucjax.errors import UserError


def picture(path, color=(90, 60, 30), size=(9, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def tree(root, *names):
    for name in names:
        picture(root / name)
    return root


def listed(root, **options):
    return folder.listing(root, **{"test_fraction": 0.0, "seed": 0, **options})


def names(items):
    return [item.name for item in items]


def load(tmp_path, **options):
    return sources.load(**{"cache_dir": tmp_path / "cache", "short_side": 8, **options})


def test_no_accelerator_library_is_imported():
    script = (
        "import sys, ucjax.data.sources\n"
        "assert not {'jax', 'tensorflow', 'tensorflow_datasets', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=True)


# folders


def test_classes_are_the_first_sub_folders(tmp_path):
    root = tree(tmp_path / "in", "dog/b.jpg", "cat/deep/er/a.PNG", "cat/b.Jpeg", "cat/b.tif")
    listing = listed(root)
    assert names(listing.train) == ["cat/b.Jpeg", "cat/b.tif", "cat/deep/er/a.PNG", "dog/b.jpg"]
    assert [item.label for item in listing.train] == [0, 0, 0, 1]
    assert listing.class_names == ("cat", "dog")
    assert listing.root == root
    assert all((listing.root / item.name).is_file() for item in listing.train)


def test_every_extension(tmp_path):
    root = tmp_path / "in"
    # Pillow alone writes no HEIC.
    extensions = [x for x in folder.EXTENSIONS if x not in (".heic", ".heif")]
    files = [f"{i}{extension}" for i, extension in enumerate(extensions)]
    tree(root, *files, *(file.upper() for file in files))
    assert len(load(tmp_path, source="folder", root=str(root)).train) == 2 * len(files)


def test_what_is_passed_over(tmp_path):
    root = tree(
        tmp_path / "in", "a.png", ".hidden.png", ".git/b.png", "__MACOSX/c.png", "x/__MACOSX/d.png"
    )
    (root / "._a.png").write_bytes(b"resource fork")
    (root / "notes.txt").write_text("no picture")
    assert names(listed(root).train) == ["a.png"]


def test_links_are_followed_once(tmp_path):
    root = tree(tmp_path / "in", "a/x.png", "b/y.png")
    tree(tmp_path / "elsewhere", "z.png")
    (root / "a" / "loop").symlink_to(root)
    (root / "b" / "up").symlink_to(root / "b")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    assert names(listed(root).train) == ["a/x.png", "b/y.png", "c/z.png"]


def test_a_flat_folder_has_no_labels_and_is_protected_whole(tmp_path):
    root = tree(tmp_path / "in", *(f"{i}.png" for i in range(10)))
    splits = load(tmp_path, source="folder", root=str(root), test_fraction=0.4)
    assert len(splits.train) == 10
    assert set(splits.train.labels) == {-1}
    assert splits.train.class_names == ()
    assert len(splits.test) == 0
    assert splits.test.rows.shape == (0, 8, 3)


def test_pictures_beside_the_classes_have_no_label(tmp_path):
    root = tree(tmp_path / "in", "loose.png", *(f"{c}/{i}.png" for c in "ab" for i in range(2)))
    listing = listed(root, test_fraction=0.5)
    assert {item.name: item.label for item in listing.train}["loose.png"] == -1
    assert sorted(item.label for item in listing.test) == [0, 1]


def test_given_splits(tmp_path):
    root = tree(
        tmp_path / "in", "train/cat/a.png", "train/dog/b.png", "test/dog/a.png",
        "val/cat/a.png", "validation/cat/a.png",
    )  # fmt: skip
    listing = listed(root, test_fraction=0.5)
    assert listing.root == root / "train"
    assert names(listing.train) == ["cat/a.png", "dog/b.png"]
    assert names(listing.test) == ["test/dog/a.png", "val/cat/a.png", "validation/cat/a.png"]
    assert [item.label for item in listing.test] == [1, 0, 0]
    assert names(listed(root, add_validation=False).test) == ["test/dog/a.png"]
    for item in (*listing.train, *listing.test):
        item.open().close()
    assert {item.open.args[0] for item in (*listing.train, *listing.test)} == {*root.rglob("*.png")}


def test_a_train_folder_alone_is_split(tmp_path):
    root = tree(tmp_path / "in", *(f"Train/{c}/{i}.png" for c in "ab" for i in range(4)))
    listing = listed(root, test_fraction=0.25)
    assert listing.class_names == ("a", "b")
    assert listing.root == root / "Train"
    assert len(listing.test) == 2


def test_train_may_be_a_class(tmp_path):
    root = tree(tmp_path / "in", "train/a.png", "plane/a.png", "car/a.png")
    assert listed(root).class_names == ("car", "plane", "train")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/a/1.png", "test/a/1.png", "masks/1.png"], "test and train, but also .*'masks'"),
        (["train/a/1.png", "val/a/1.png", "1.png"], "train and val, but also .*'itself'"),
        (["train/a/1.png", "test/A/1.png"], "1 classes that train lacks, first 'A'"),
        (["test/a/1.png", "val/a/1.png"], "test and val but none in 'train'"),
        (["a.txt"], "no pictures under .*jpg"),
        ([], "no pictures under"),
    ],
)
def test_trees_that_are_refused(tmp_path, files, message):
    (tmp_path / "in").mkdir()
    for file in files:
        path = tmp_path / "in" / file
        if path.suffix == ".txt":
            path.write_text("")
        else:
            picture(path)
    with pytest.raises(UserError, match=message) as error:
        listed(tmp_path / "in")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "folder"}, "data.root is empty"),
        ({"source": "folder", "root": "/no/such"}, "/no/such is not a folder"),
        ({"source": "folder", "root": "/", "test_fraction": 0.7}, "test_fraction is 0.7"),
        ({"source": "zip"}, "unknown data.source 'zip': choose folder, tfds or textures"),
        ({"source": "tfds", "name": "pets"}, "unknown data.name 'pets': choose .*oxford_iiit_pet"),
        ({"source": "textures"}, "data.train_count is 0"),
        ({"source": "textures", "test_count": -1}, "below 0"),
    ],
)
def test_settings_that_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path, **options)
    assert "\n" not in str(error.value)


def test_no_readable_picture(tmp_path, capsys):
    root = tmp_path / "in"
    root.mkdir()
    for name in "ab":
        (root / f"{name}.jpg").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"none of the 2 pictures in .* can be read"):
        load(tmp_path, source="folder", root=str(root))
    assert "skipped a.jpg: not a picture" in capsys.readouterr().out


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.1, 0.25, 1 / 3, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_split_is_stratified(fraction, seed):
    rng = np.random.default_rng(seed)
    sizes = {-1: 13, **{label: int(size) for label, size in enumerate(rng.integers(1, 30, 40))}}
    sizes[40] = 1
    labels = rng.permutation(np.repeat([*sizes], [*sizes.values()]))
    test = folder.stratified(labels, fraction, seed)
    held_out = Counter(labels[test].tolist())
    splittable = sum(n for label, n in sizes.items() if label >= 0 and n > 1)
    assert test.sum() == np.floor(splittable * fraction + 0.5)
    assert held_out[-1] == held_out[40] == 0
    for label, n in sizes.items():
        if label >= 0 and n > 1:
            assert abs(held_out[label] - n * fraction) < 1
            assert held_out[label] < n


def test_the_split_follows_its_seed():
    labels = np.repeat([0, 1], 50)
    splits = [folder.stratified(labels, 0.3, seed) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(splits[0], splits[1])
    assert (splits[0] != splits[2]).any()


def test_the_halves_are_disjoint_and_complete(tmp_path):
    root = tree(tmp_path / "in", *(f"{c}/{i}.png" for c in "abc" for i in range(10)))
    splits = load(tmp_path, source="folder", root=str(root), test_fraction=0.2, seed=3)
    assert len(splits.test) == 6
    assert len(splits.train) == 24
    everything = {str(path.relative_to(root)) for path in root.rglob("*.png")}
    assert {*splits.train.names, *splits.test.names} == everything
    assert [n[0] for n in splits.train.names] == ["abc"[label] for label in splits.train.labels]


def test_a_sample_is_seeded_and_in_order(tmp_path):
    root = tree(tmp_path / "in", *(f"{i}.png" for i in range(20)))
    samples = [
        load(tmp_path, source="folder", root=str(root), train_count=5, seed=seed).train.names
        for seed in (1, 1, 2)
    ]
    assert samples[0] == samples[1] != samples[2]
    assert len(samples[0]) == 5
    assert list(samples[0]) == sorted(samples[0])


def test_textures(tmp_path):
    splits = load(tmp_path, source="textures", train_count=20, test_count=10)
    assert splits.train.class_names == textures.FAMILIES
    assert len(splits.train) == 20
    assert Counter(splits.test.labels.tolist()) == dict.fromkeys(range(10), 1)
    assert splits.root is None
