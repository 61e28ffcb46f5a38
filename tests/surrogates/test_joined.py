import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import tiny_checkpoints as tiny

from ucjax import surrogates
from ucjax.errors import UserError
from ucjax.protections.uc.objective import Batch, make_objective
from ucjax.surrogates import Preprocessing, Surrogate

SIZE = 64


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    root = tmp_path_factory.mktemp("joined")
    return {
        "rn50": str(tiny.write_resnet(root / "resnet", "torchvision")),
        "clip_rn50": str(tiny.write_clip_resnet(root / "clip_resnet", "timm")),
    }


@pytest.fixture(scope="module")
def parts(paths):
    return [surrogates.load(name, path=path, image_size=SIZE) for name, path in paths.items()]


@pytest.fixture(scope="module")
def both(paths):
    return surrogates.load("rn50+clip_rn50", path="+".join(paths.values()), image_size=SIZE)


def features(surrogate):
    return np.asarray(jax.jit(surrogate.embed)(surrogate.params, tiny.images(SIZE)))


def test_features_are_those_of_each_side_by_side(both, parts):
    expected = np.concatenate([features(part) for part in parts], axis=1)
    np.testing.assert_allclose(features(both), expected, rtol=1e-5, atol=1e-6)
    assert expected.shape == (2, 256 + tiny.CLIP_RESNET_DIMENSIONS)


def test_what_is_recorded_names_both(both, parts, paths):
    assert both.id == f"rn50:{paths['rn50']} + clip_rn50:{paths['clip_rn50']}"
    hashes = "".join(part.sha256 for part in parts)
    assert both.sha256 == hashlib.sha256(hashes.encode()).hexdigest()
    assert list(both.params) == [part.id for part in parts]
    assert both.preprocessing == parts[0].preprocessing
    assert both.image_size == SIZE
    assert both.logits is None


def dense(name, dimensions, seed):
    """A surrogate of one layer, its features of about 1."""
    kernel = np.random.default_rng(seed).standard_normal((8 * 8 * 3, dimensions), np.float32) / 8

    def embed(params, images):
        return jnp.tanh(images.reshape(len(images), -1) @ params)

    nothing = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Surrogate(embed, kernel, 8, nothing, name, "")


@pytest.mark.parametrize("distance", ["kl", "cosine", "l2"])
def test_the_gradient_of_a_distance_answers_to_both(distance):
    """Centers are moved in the features of one of the two, and the noise's gradient follows."""
    both, images = surrogates.join([dense("a", 5, 1), dense("b", 7, 2)]), tiny.images(8)
    cluster, share = np.array([0, 1], np.int32), np.full(2, 1 / 2, np.float32)
    batch = Batch(images, cluster, share, share)
    noise = np.random.default_rng(0).uniform(-0.03, 0.03, (2, 8, 8, 3)).astype(np.float32)
    objective = jax.jit(make_objective(both.embed, distance=distance, scope="cluster"))
    centers = np.asarray(both.embed(both.params, images))

    def gradient(centers):
        return objective(noise, both.params, centers, np.array([1, 0]), batch).gradient

    plain = gradient(centers)
    for part in (slice(5), slice(5, None)):
        moved = centers.copy()
        moved[:, part] = moved[::-1, part]
        assert np.linalg.norm(gradient(moved) - plain) > 0.05 * np.linalg.norm(plain)


def test_defaults_are_those_of_each(monkeypatch, parts):
    asked = []

    def loader(part):
        return lambda path, image_size, precision: asked.append((path, precision)) or part

    for name, part in zip("ab", parts, strict=True):
        monkeypatch.setitem(surrogates.SURROGATES, name, loader(part))
    assert surrogates.load("a+b", image_size=SIZE, precision="float32").image_size == SIZE
    assert asked == [("", "float32")] * 2


def test_mistakes(paths):
    with pytest.raises(
        UserError, match=r"'rn50\+clip_rn50' is 2 networks but its path 'x' 1: give"
    ):
        surrogates.load("rn50+clip_rn50", path="x", image_size=SIZE)
    with pytest.raises(UserError, match=r"unknown surrogate 'clip_rn51'"):
        surrogates.load("rn50+clip_rn51", path=f"{paths['rn50']}+x", image_size=SIZE)
    twice = f"{paths['rn50']}+{paths['rn50']}"
    with pytest.raises(UserError, match=r"surrogate rn50:\S+ is joined to itself"):
        surrogates.load("rn50+rn50", path=twice, image_size=SIZE)


def test_surrogates_of_different_sizes_cannot_be_joined(parts, paths):
    other = surrogates.load("rn50", path=paths["rn50"], image_size=32)
    with pytest.raises(ValueError, match=r"\[32, 64\] px cannot be joined"):
        surrogates.join([other, parts[1]])


def test_a_path_of_one_surrogate_may_hold_a_plus(tmp_path):
    path = str(tiny.write_resnet(tmp_path / "a+b", "torchvision"))
    assert surrogates.load("rn50", path=path, image_size=SIZE).id == f"rn50:{path}"
