import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import make_efficientnet_lite as golden
from safetensors.numpy import load_file, save_file

from ucjax.errors import UserError
from ucjax.ops import convolution
from ucjax.surrogates import efficientnet_lite, load


@pytest.fixture(scope="module")
def surrogate():
    return load("efficientnet_lite0", image_size=64)


@pytest.fixture(scope="module")
def expected():
    return np.load(golden.GOLDEN)


@pytest.fixture(scope="module")
def weights():
    return load_file(efficientnet_lite._FOLDER / "model.safetensors")


def embed(surrogate, images):
    return np.asarray(jax.jit(surrogate.embed)(surrogate.params, images))


@pytest.mark.parametrize("size", golden.SIZES)
def test_features_equal_pytorch(surrogate, expected, size):
    features = expected[f"features_{size}"]
    error = np.abs(embed(surrogate, golden.images(size)) - features).max()
    assert error < 1e-4 * np.abs(features).max()


@pytest.mark.parametrize("size", golden.SIZES)
def test_logits_equal_pytorch(surrogate, expected, size):
    found = jax.jit(surrogate.logits)(surrogate.params, golden.images(size))
    logits = expected[f"logits_{size}"]
    assert np.abs(found - logits).max() < 1e-4 * np.abs(logits).max()
    np.testing.assert_array_equal(found.argmax(1), logits.argmax(1))


def test_a_backbone_alone_has_no_logits(surrogate, weights, tmp_path):
    backbone = {name: x for name, x in weights.items() if not name.startswith("_fc.")}
    save_file(backbone, tmp_path / "model.safetensors")
    alone = load("efficientnet_lite0", path=str(tmp_path), image_size=64)
    assert alone.logits is None
    images = golden.images(64)
    np.testing.assert_array_equal(embed(alone, images), embed(surrogate, images))


def test_a_sliced_batch_and_its_gradient_equal_pytorch(surrogate, expected):
    images = np.random.default_rng(0).random((16, 64, 64, 3), np.float32)
    images[10] = golden.images(64)[0]

    @jax.jit
    def both(images):
        features, pull = jax.vjp(lambda x: surrogate.embed(surrogate.params, x), images)
        return features, pull(features)[0]

    features, gradient = both(images)
    error = np.abs(features[10] - expected["features_64"][0]).max()
    assert error < 1e-4 * np.abs(expected["features_64"]).max()
    # A rounding error that flips one ReLU changes the gradient, so not 1e-4 everywhere.
    error = np.linalg.norm(gradient[10] - expected["gradient"][0])
    assert error < 1e-3 * np.linalg.norm(expected["gradient"])


class FirstLayerReached(Exception):
    pass


def test_preprocessing_is_what_embed_applies_once(surrogate, monkeypatch):
    def stop(x, *arguments, **settings):
        raise FirstLayerReached(x)

    monkeypatch.setattr(convolution, "conv2d", stop)
    pixels = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1).repeat(3, 3) / 255
    with pytest.raises(FirstLayerReached) as reached:
        surrogate.embed(surrogate.params, jnp.asarray(pixels))
    (x,) = reached.value.args
    np.testing.assert_allclose(x, (255 * pixels - 127) / 128, atol=1e-6)
    mean, std = (np.reshape(v, (1, 1, 1, 3)) for v in surrogate.preprocessing.__dict__.values())
    np.testing.assert_allclose(x, (pixels - mean) / std, atol=1e-6)


def test_params_are_host_arrays_of_the_published_size(surrogate):
    leaves = jax.tree.leaves(surrogate.params)
    assert all(isinstance(leaf, np.ndarray) and leaf.dtype == np.float32 for leaf in leaves)
    # Scales and means are folded away.
    batch_norms = sum(leaf.size for leaf in leaves if leaf.ndim == 4 and leaf.shape[0] == 1)
    assert sum(leaf.size for leaf in leaves) + batch_norms == 4_652_008


def test_weights_from_a_safetensors_file(surrogate, weights, tmp_path):
    others = weights | {"_bn0.num_batches_tracked": np.int64([7])}  # as PyTorch writes them
    save_file(others, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        again = load("efficientnet_lite0", path=str(path), image_size=64)
        jax.tree.map(np.testing.assert_array_equal, again.params, surrogate.params)
    assert again.sha256 != surrogate.sha256 == efficientnet_lite.SHA256


def test_weights_that_do_not_fit(weights, tmp_path):
    wrong = dict(weights)
    wrong["_conv_stem.weight"] = wrong["_conv_stem.weight"][:, :1]
    wrong["extra"] = wrong.pop("_bn0.bias")
    wrong = {name: np.ascontiguousarray(tensor) for name, tensor in wrong.items()}
    save_file(wrong, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"1 unknown \(extra\); 1 missing .* 1 of another shape"):
        load("efficientnet_lite0", path=str(tmp_path / "x.safetensors"), image_size=64)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        load("efficientnet_lite0", path=str(tmp_path / "none"), image_size=64)


def test_missing_and_changed_assets(weights, monkeypatch, tmp_path):
    monkeypatch.setattr(efficientnet_lite, "_FOLDER", tmp_path / "assets")
    with pytest.raises(UserError, match="they come with ucjax, install it again"):
        load("efficientnet_lite0", image_size=64)
    (tmp_path / "assets").mkdir()
    other = weights | {"_bn0.bias": weights["_bn0.bias"] + np.float32(1e-6)}
    save_file(other, tmp_path / "assets" / "model.safetensors")
    with pytest.raises(UserError, match=r"has SHA-256 \w+…, expected 0c677c314df2…"):
        load("efficientnet_lite0", image_size=64)


def test_the_card_and_the_classifier(weights):
    card = (efficientnet_lite._FOLDER / "README.md").read_text(encoding="utf-8")
    assert efficientnet_lite.SHA256 in card
    assert "4,652,008" in card
    assert weights["_fc.weight"].shape == (1000, 1280)
    assert weights["_fc.bias"].shape == (1000,)


def test_image_smaller_than_the_stride():
    with pytest.raises(UserError, match="image size 31 is below 32"):
        load("efficientnet_lite0", image_size=31)
