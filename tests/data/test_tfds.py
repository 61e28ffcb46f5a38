"""On tiny data sets that TFDS itself writes, in ArrayRecord and without TensorFlow."""

import importlib.util
import io
import json
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ucjax.data import sources, tfds
from ucjax.errors import UserError


def load(tmp_path, **options):
    return sources.load(
        source="tfds", root=str(tmp_path / "d"), cache_dir=tmp_path / "cache", short_side=8,
        **options,
    )  # fmt: skip


def encoded(label, kind):
    """A picture whose grey says its label."""
    file = io.BytesIO()
    Image.new("RGB", (11, 8), (label, label, label)).save(file, kind)
    return file.getvalue()


def write_tfds(root, name, splits, classes, *, config=None, version="4.0.0", kind="png"):
    """Prepares a data set in ArrayRecord; `splits` gives the labels of each."""
    import tensorflow_datasets

    core, features = tensorflow_datasets.core, tensorflow_datasets.features

    def info(self):
        return core.DatasetInfo(
            builder=self,
            features=features.FeaturesDict(
                {
                    "image": features.Image(encoding_format=kind),
                    "label": features.ClassLabel(names=classes),
                    "file_name": features.Text(),
                    "bbox": features.BBoxFeature(),
                }
            ),
        )

    def examples(self, labels):
        for i, label in enumerate(labels):
            box = features.BBox(0.0, 0.0, 1.0, 1.0)
            image = encoded(label, kind)
            yield i, {"image": image, "label": label, "file_name": f"{i}", "bbox": box}

    members = {
        "name": name,
        "VERSION": core.Version(version),
        "BUILDER_CONFIGS": [core.BuilderConfig(name=config)] if config else [],
        "_info": info,
        "_split_generators": lambda self, _: {
            split: self._generate_examples(labels) for split, labels in splits.items()
        },
        "_generate_examples": examples,
    }
    builder = type("Tiny", (core.GeneratorBasedBuilder,), members, skip_registration=True)
    tensorflow_datasets.disable_progress_bar()
    prepared = builder(data_dir=root, file_format="array_record")
    prepared.download_and_prepare()
    return prepared


def check(image_set):
    """Every picture shows the grey of its label."""
    assert len({*image_set.names}) == len(image_set)
    for i, label in enumerate(image_set.labels):
        assert image_set.image(i).shape == (8, 11, 3)
        np.testing.assert_allclose(image_set.image(i), label, atol=2)


def test_pets_without_tensorflow(tmp_path):
    labels = {"train": [0, 1, 1, 2, 0, 2, 2], "test": [2, 1, 0]}
    write_tfds(tmp_path / "d", "oxford_iiit_pet", labels, ["Abyssinian", "beagle", "pug"])
    splits = load(tmp_path, name="oxford_iiit_pet")
    for split, image_set in (("train", splits.train), ("test", splits.test)):
        check(image_set)
        assert Counter(image_set.labels.tolist()) == Counter(labels[split])
        assert image_set.class_names == ("Abyssinian", "beagle", "pug")
        for name, label in zip(image_set.names, image_set.labels, strict=True):
            assert name.startswith(image_set.class_names[label] + "/")
            assert name.endswith(".png")
    assert splits.root is None
    assert "tensorflow" not in sys.modules


def test_a_second_load_reads_no_record(tmp_path):
    write_tfds(tmp_path / "d", "cifar10", {"train": [0, 1] * 4, "test": [0, 1]}, ["a", "b"])
    bars = []

    class Bar:
        def __init__(self, label, total):
            bars.append((label, total))

        def update(self, done):
            pass

        close = update

    first = load(tmp_path, name="cifar10", progress=Bar)
    assert bars == [
        ("reading labels", 8), ("reading labels", 2),
        ("decoding cifar10-train", 8), ("decoding cifar10-test", 2),
    ]  # fmt: skip
    second = load(tmp_path, name="cifar10", progress=Bar)
    assert len(bars) == 4
    assert first.train.names == second.train.names
    np.testing.assert_array_equal(first.train.rows, second.train.rows)


def test_flowers_join_train_and_validation(tmp_path):
    labels = {"train": [0, 0, 1], "validation": [1, 1, 0], "test": [0, 1]}
    write_tfds(tmp_path / "d", "oxford_flowers102", labels, ["rose", "iris"])
    splits = load(tmp_path, name="oxford_flowers102")
    check(splits.train)
    assert (len(splits.train), len(splits.test)) == (6, 2)


def test_sun397_has_a_configuration_and_slashes(tmp_path):
    labels = {"train": [0, 1], "validation": [0], "test": [1]}
    write_tfds(
        tmp_path / "d", "sun397", labels, ["/a/abbey", "/z/zen garden"], config="tfds", kind="jpeg"
    )
    splits = load(tmp_path, name="sun397")
    check(splits.train)
    assert splits.test.names == ("z_zen_garden/000000.jpg",)


def test_imagenet100_is_the_first_hundred_classes(tmp_path):
    classes = [f"n{i:08d}" for i in range(120)]
    labels = {"train": [0, 99, 100, 119, 50], "validation": [100, 99]}
    write_tfds(tmp_path / "d", "imagenet2012", labels, classes, version="5.1.0")
    splits = load(tmp_path, name="imagenet100")
    check(splits.train)
    assert sorted(splits.train.labels) == [0, 50, 99]
    assert splits.test.labels.tolist() == [99]
    assert splits.train.class_names == tuple(classes[:100])


def test_the_newest_version_is_read(tmp_path):
    for version, count in (("9.0.0", 1), ("10.0.0", 2)):
        labels = {"train": [0] * count, "validation": [0]}
        write_tfds(tmp_path / "d", "food101", labels, ["pie"], version=version)
    splits = load(tmp_path, name="food101")
    assert len(splits.train) == 2


def test_a_set_in_another_format_is_refused(tmp_path):
    write_tfds(tmp_path / "d", "cars196", {"train": [0], "test": [0]}, ["car"])
    (info,) = (tmp_path / "d").rglob("dataset_info.json")
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(
        UserError, match=r"cars196/4\.0\.0 is not in the array_record format"
    ) as error:
        load(tmp_path, name="cars196")
    assert "\n" not in str(error.value)


def test_an_unprepared_set_without_tensorflow(tmp_path):
    with pytest.raises(UserError) as error:
        load(tmp_path, name="imagenet100")
    message = str(error.value)
    for part in (
        f"imagenet2012 is not prepared in {tmp_path / 'd'}",
        "pip install 'ucjax[prepare]'",
        f"ILSVRC2012_img_val.tar into {tmp_path / 'd'}/downloads/manual",
        "data.source=folder",
    ):
        assert part in message
    assert "\n" not in message


@pytest.fixture
def pretend_tensorflow(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name == "tensorflow" or find_spec(name)
    )


def test_preparing_that_fails(tmp_path, monkeypatch, pretend_tensorflow):
    import tensorflow_datasets

    def fail(name, **options):
        assert (name, options["file_format"]) == ("cifar10", "array_record")
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tensorflow_datasets, "builder", fail)
    with pytest.raises(UserError) as error:
        load(tmp_path, name="cifar10")
    assert "preparing it failed (ConnectionError: no route to host): run again" in str(error.value)


def test_preparing_that_succeeds(tmp_path, monkeypatch, pretend_tensorflow):
    import tensorflow_datasets

    def prepare(name, *, data_dir, file_format):
        return write_tfds(data_dir, name, {"train": [0, 1], "test": [1]}, ["a", "b"])

    monkeypatch.setattr(tensorflow_datasets, "builder", prepare)
    splits = load(tmp_path, name="cifar10")
    check(splits.train)
    assert len(splits.train) == 2


@pytest.mark.parametrize("name", tfds.SETS)
def test_the_table_names_what_tfds_has(name):
    import tensorflow_datasets

    builder, _, config = tfds.SETS[name].builder.partition("/")
    assert builder in tensorflow_datasets.list_builders(with_community_datasets=False)
    if config:
        configs = tensorflow_datasets.builder_cls(builder).BUILDER_CONFIGS
        assert config in {known.name for known in configs}


def test_the_extra_is_named_where_its_packages_are_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record", None)
    with pytest.raises(UserError, match=r"needs array_record: pip install 'ucjax\[tfds\]'"):
        tfds.listing("cifar10", str(tmp_path), cache_dir=tmp_path)
