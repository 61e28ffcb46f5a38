import collections
import dataclasses
import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from test_training import TEST, TRAIN

from ucjax import config
from ucjax.errors import UserError
from ucjax.victims import table
from ucjax.victims.contract import Labelling

CLASSES = tuple(f"class {i}" for i in range(37))


def many_classes(images, count):
    labels = (np.arange(len(images)) * 7 % count).astype(np.int32)
    return dataclasses.replace(images, labels=labels, class_names=CLASSES[:count])


def labelling(mesh, **changes):
    def features(name):
        raise AssertionError(f"{name} is not needed")

    settings = ConfigDict(config.paper().clusters)
    settings.n_init = 2
    given = {
        "argument": "", "train": TRAIN, "test": TEST, "seed": 0, "features": features,
        "mesh": mesh, "noise_surrogate": "clip", "clusters": settings,
    }  # fmt: skip
    return Labelling(**{**given, **changes})


def test_given_labels_are_the_images_own(mesh):
    labels = table.label("given", labelling(mesh))
    np.testing.assert_array_equal(labels.train, TRAIN.labels)
    np.testing.assert_array_equal(labels.test, TEST.labels)
    assert labels.class_names == TRAIN.class_names


@pytest.mark.parametrize("groups", [2, 5, 37])
def test_random_joins_whole_classes_to_groups_of_near_equal_size(mesh, groups):
    train, test = many_classes(TRAIN, 37), many_classes(TEST, 37)
    given = labelling(mesh, train=train, test=test)
    labels = table.label(f"random-{groups}", given)
    assert len(labels.class_names) == groups
    assert labels.train.dtype == labels.test.dtype == np.int32
    of = collections.defaultdict(set)
    for images, new in ((train, labels.train), (test, labels.test)):
        for old, group in zip(images.labels, new, strict=True):
            of[old].add(group)
    assert len(of) == 37
    assert all(len(found) == 1 for found in of.values())
    sizes = np.bincount([next(iter(found)) for found in of.values()], minlength=groups)
    assert sizes.min() >= 1
    assert np.ptp(sizes) <= 1
    again = table.label(f"random-{groups}", given)
    np.testing.assert_array_equal(again.train, labels.train)
    other = table.label(f"random-{groups}", dataclasses.replace(given, seed=1))
    assert (other.train != labels.train).any()


def blobs(count, seed):
    """Features around three far corners, in the order of `corner`."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 3, count)
    return corner, (10 * np.eye(3)[corner] + rng.normal(0, 0.5, (count, 3))).astype(np.float32)


@pytest.mark.parametrize(
    ("rule", "noise", "expected"),
    [
        ("clusters-3", "clip", "efficientnet_lite0"),
        ("clusters-3-packaged_clip", "efficientnet_lite0", "packaged_clip"),
        ("clusters-3-rn50", "clip", "rn50"),
    ],
)
def test_clusters_are_those_of_another_surrogate(mesh, rule, noise, expected):
    corner, train = blobs(len(TRAIN), 0)
    test_corner, test = blobs(len(TEST), 1)
    asked = []

    def features(name):
        asked.append(name)
        return train, test

    labels = table.label(rule, labelling(mesh, features=features, noise_surrogate=noise))
    assert asked == [expected]
    pairs = {*zip(corner, labels.train, strict=True), *zip(test_corner, labels.test, strict=True)}
    assert len(pairs) == 3  # one cluster a corner, the same in both sets
    assert len(labels.class_names) == 3
    assert labels.train.dtype == labels.test.dtype == np.int32


def test_the_noise_s_own_clusters_are_no_labels(mesh):
    given = labelling(mesh, noise_surrogate="rn50")
    with pytest.raises(
        UserError, match=r"made with rn50 too: name another surrogate, as in clusters-3"
    ):
        table.label("clusters-3-rn50", given)


def corners_of_classes(mesh, classes, inner, seed=0):
    """Features whose class lies at one of three far corners, in one of two places near it."""
    rng = np.random.default_rng(seed)
    train, test = many_classes(TRAIN, classes), many_classes(TEST, classes)
    halves = [rng.integers(0, 2, len(images)) for images in (train, test)]
    rows = tuple(
        (
            100 * np.eye(3)[images.labels % 3] + inner * half[:, None] * np.array([1, -1, 1])
            + rng.normal(0, 0.1, (len(images), 3))
        ).astype(np.float32)
        for images, half in zip((train, test), halves, strict=True)
    )  # fmt: skip
    given = labelling(mesh, train=train, test=test, features=lambda name: rows)
    return given, halves


def test_kmeans_joins_classes_that_are_near_each_other(mesh):
    given, _ = corners_of_classes(mesh, 9, inner=1)
    labels = table.label("kmeans-3", given)
    assert labels.class_names == ("group 0", "group 1", "group 2")
    for images, new in ((given.train, labels.train), (given.test, labels.test)):
        assert len({*zip(images.labels % 3, new, strict=True)}) == 3
        assert new.dtype == np.int32


def test_fine_splits_every_class_in_two(mesh):
    given, halves = corners_of_classes(mesh, 4, inner=20)
    labels = table.label("fine-rn50", given)
    assert len(labels.class_names) == 8
    assert labels.class_names[:2] == ("class 0 a", "class 0 b")
    np.testing.assert_array_equal(labels.train // 2, given.train.labels)
    np.testing.assert_array_equal(labels.test // 2, given.test.labels)
    of = {
        *zip(given.train.labels, halves[0], labels.train, strict=True),
        *zip(given.test.labels, halves[1], labels.test, strict=True),
    }
    assert len(of) == 8  # the halves are those of the features, in both sets


# As TFDS has them; the authors of the data set write the names of cats with a capital.
BREEDS = (
    "Abyssinian american_bulldog american_pit_bull_terrier basset_hound beagle Bengal Birman "
    "Bombay boxer British_Shorthair chihuahua Egyptian_Mau english_cocker_spaniel english_setter "
    "german_shorthaired great_pyrenees havanese japanese_chin keeshond leonberger Maine_Coon "
    "miniature_pinscher newfoundland Persian pomeranian pug Ragdoll Russian_Blue saint_bernard "
    "samoyed scottish_terrier shiba_inu Siamese Sphynx staffordshire_bull_terrier wheaten_terrier "
    "yorkshire_terrier"
)


def test_species_are_told_by_the_case_of_the_breeds(mesh):
    breeds = tuple(BREEDS.split())
    assert len(breeds) == 37
    train, test = (
        dataclasses.replace(many_classes(x, 37), class_names=breeds) for x in (TRAIN, TEST)
    )
    labels = table.label("species", labelling(mesh, train=train, test=test))
    assert labels.class_names == ("cat", "dog")
    for images, new in ((train, labels.train), (test, labels.test)):
        assert new.dtype == np.int32
        for old, group in zip(images.labels, new, strict=True):
            assert labels.class_names[group] == ("cat" if breeds[old][0].isupper() else "dog")
    assert sum(name[0].isupper() for name in breeds) == 12
    with pytest.raises(UserError, match="3 of 3 classes are none, first 'red': name a file"):
        table.label("species", labelling(mesh))
    with pytest.raises(UserError, match="species takes no argument"):
        table.label("species-2", labelling(mesh))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("kmeans-10", "kmeans-10 joins classes to 10 groups, but there are 9"),
        ("kmeans-x", "'x' is no number of classes"),
        ("kmeans-3-", "names no surrogate"),
        ("fine-clip", "made with clip too: name another surrogate, as in fine-packaged_clip"),
    ],
)
def test_mistakes_in_regroupings(mesh, rule, message):
    given, _ = corners_of_classes(mesh, 9, inner=1)
    with pytest.raises(UserError, match=message):
        table.label(rule, given)


def written(path, content):
    path.write_text(json.dumps(content) if isinstance(content, dict) else content)
    return str(path)


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_mapping_renames_classes_and_single_images(mesh, tmp_path, kind):
    pairs = {"red": "warm", "green": "cold", "blue": "cold", "000.png": "odd one"}
    text = "old,new\n" + "".join(f"{old},{new}\n" for old, new in pairs.items())
    path = written(tmp_path / f"m.{kind}", pairs if kind == "json" else text)
    labels = table.label(path, labelling(mesh))
    assert labels.class_names == ("cold", "odd one", "warm")
    for images, new in ((TRAIN, labels.train), (TEST, labels.test)):
        expected = [("warm", "cold", "cold")[y] for y in images.labels]
        expected[0] = "odd one"
        assert [labels.class_names[y] for y in new] == expected
        assert new.dtype == np.int32


def test_images_without_a_class_are_mapped_by_name(mesh, tmp_path):
    flat = dataclasses.replace(TEST, labels=np.full(len(TEST), -1, np.int32), class_names=())
    path = written(tmp_path / "m.json", {name: f"is {i % 2}" for i, name in enumerate(flat.names)})
    labels = table.label(path, labelling(mesh, train=flat, test=flat))
    assert labels.class_names == ("is 0", "is 1")
    np.testing.assert_array_equal(labels.train, np.arange(len(TEST)) % 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"red": "warm", "green": "cold"}, r"neither the image 002.png nor its class 'blue' \(52"),
        ('["red"]', "no mapping"),
        ('{"red": 1}', "no mapping"),
        ("{}", "no mapping"),
        ('{"red": ""}', "no mapping"),
        ('{"red": "a", "red": "b"}', "maps 'red' to 'a' and to 'b'"),
        ("{", "cannot be read"),
    ],
)
def test_mistakes_in_mappings(mesh, tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        table.label(written(tmp_path / "m.json", content), labelling(mesh))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("random", "'' is no number"),
        ("random-1", "give 2 or more"),
        ("random-x", "'x' is no number"),
        ("random-4", "4 groups, but there are 3 classes"),
        ("clusters-0-clip", "give 2 or more"),
        ("clusters-5-", "names no surrogate"),
        ("given-2", "given takes no argument"),
        ("randam-2", "unknown label rule 'randam-2': did you mean random"),
        ("nowhere.json", r"nowhere.json cannot be read"),
        ("nowhere.csv", r"nowhere.csv cannot be read"),
    ],
)
def test_unknown_rules_and_arguments(mesh, rule, message):
    with pytest.raises(UserError, match=message):
        table.label(rule, labelling(mesh))


def test_random_groups_need_classes(mesh):
    flat = dataclasses.replace(TEST, labels=np.full(len(TEST), -1, np.int32))
    with pytest.raises(UserError, match="images without any"):
        table.label("random-2", labelling(mesh, test=flat))
