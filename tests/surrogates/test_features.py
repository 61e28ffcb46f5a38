import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.surrogates import Preprocessing, Surrogate
from ucjax.surrogates.features import features, predictions

SIZE, SHORT_SIDE = 8, 11


@pytest.fixture(scope="module")
def image_set():
    random = np.random.default_rng(0)
    long_sides = random.integers(SHORT_SIDE, 2 * SHORT_SIDE, 13)
    return ImageSet(
        rows=random.integers(0, 256, (long_sides.sum(), SHORT_SIDE, 3), np.uint8),
        starts=np.concatenate([[0], long_sides.cumsum()]),
        wide=random.random(13) < 0.5,
        labels=np.full(13, -1, np.int32),
        names=tuple(f"{i:02d}.jpg" for i in range(13)),
        class_names=(),
    )


def embed(params, images):
    return jnp.log(jnp.einsum("bhwc,hwcd->bd", images, params["weights"]))


@pytest.fixture(scope="module")
def surrogate():
    random = np.random.default_rng(1)
    weights = random.random((SIZE, SIZE, 3, 5), np.float32)
    head = random.standard_normal((5, 7), np.float32)
    grey = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    middle = np.log(weights.sum((0, 1, 2)) / 2)  # the features of mid-grey
    params = {"weights": weights, "head": head, "middle": middle}

    def logits(params, images):
        return (embed(params, images) - params["middle"][None]) @ params["head"]

    return Surrogate(embed, params, SIZE, grey, "a test", "", logits)


def expected(surrogate, image_set):
    crops = image_set.center_crops(SIZE) / 255
    return np.log(np.einsum("bhwc,hwcd->bd", crops, surrogate.params["weights"]))


@pytest.mark.parametrize("batch_size", [1, 4, 6, 13, 100])
def test_rows_are_those_of_the_center_crops_in_order(surrogate, image_set, mesh, batch_size):
    rows = features(surrogate, image_set, size=SIZE, mesh=mesh, batch_size=batch_size)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected(surrogate, image_set), rtol=1e-5)


def test_sharded_equals_unsharded(surrogate, image_set, mesh, one_device):
    many, one, again = (
        features(surrogate, image_set, size=SIZE, mesh=devices, batch_size=8)
        for devices in (mesh, one_device, mesh)
    )
    np.testing.assert_allclose(many, one, rtol=1e-6)
    np.testing.assert_array_equal(many, again)


@pytest.mark.parametrize("batch_size", [1, 6, 100])
def test_predictions_are_the_classes_of_the_largest_logits(
    surrogate, image_set, mesh, one_device, batch_size
):
    features = expected(surrogate, image_set) - surrogate.params["middle"]
    classes = (features @ surrogate.params["head"]).argmax(1)
    assert len(set(classes)) > 1
    for devices in (mesh, one_device):
        found = predictions(surrogate, image_set, size=SIZE, mesh=devices, batch_size=batch_size)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, classes)


def test_no_predictions_without_a_classifier(surrogate, image_set, mesh):
    headless = dataclasses.replace(surrogate, logits=None)
    with pytest.raises(UserError, match=r"a test has no ImageNet classifier.* choose rn50 or"):
        predictions(headless, image_set, size=SIZE, mesh=mesh, batch_size=4)


def test_it_says_how_far_it_is(surrogate, image_set, mesh, capsys):
    features(surrogate, image_set, size=SIZE, mesh=mesh, batch_size=4)
    assert "features 13/13" in capsys.readouterr().out


def test_a_feature_that_is_not_finite_names_its_image(surrogate, image_set, mesh):
    rows = image_set.rows.copy()
    rows[image_set.starts[9] : image_set.starts[10]] = 0  # log(0)
    black = ImageSet(rows, image_set.starts, image_set.wide, image_set.labels, image_set.names, ())
    for function in (features, predictions):
        with pytest.raises(UserError, match=r"feature of 09.jpg is not finite .* 1 of .* a test"):
            function(surrogate, black, size=SIZE, mesh=mesh, batch_size=8)


def test_crop_larger_than_the_images(surrogate, image_set, mesh):
    with pytest.raises(UserError, match=r"crop of 12 px .* short side of 11 px"):
        features(surrogate, image_set, size=12, mesh=mesh, batch_size=4)


def test_no_images(surrogate, mesh):
    none = ImageSet(
        rows=np.zeros((0, SHORT_SIDE, 3), np.uint8),
        starts=np.zeros(1, np.int64),
        wide=np.zeros(0, bool),
        labels=np.zeros(0, np.int32),
        names=(),
        class_names=(),
    )
    with pytest.raises(UserError, match="no images to embed"):
        features(surrogate, none, size=SIZE, mesh=mesh, batch_size=4)
