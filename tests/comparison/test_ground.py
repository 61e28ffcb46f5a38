import dataclasses

import numpy as np
import pytest

from configs import smoke
from ucjax import surrogates
from ucjax.comparison.ground import Ground
from ucjax.data.images import ImageSet
from ucjax.data.sources import Splits
from ucjax.surrogates import Preprocessing, Surrogate

CROP, N = 8, 6


def load_means(name, *, path, image_size, precision):
    """Mean colors, of which those in float32 are told apart by a sign."""
    nothing = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    sign = np.float32(-1 if precision == "float32" else 1)

    def embed(params, images):
        return params * images.mean((1, 2))

    return Surrogate(embed, sign, image_size, nothing, f"means {precision}", "")


@pytest.fixture
def ground(monkeypatch, mesh, tmp_path):
    monkeypatch.setattr(surrogates, "load", load_means)
    rows = np.random.default_rng(0).integers(0, 256, (N * CROP, CROP, 3), np.uint8)
    names, labels = tuple(map(str, range(N))), np.zeros(N, np.int32)
    images = ImageSet(rows, np.arange(N + 1) * CROP, np.zeros(N, bool), labels, names, ("a",))
    config = smoke.get_config()
    config.surrogate.update(name="means", path="")
    config.data.crop = CROP
    return Ground(config, tmp_path, mesh, None, Splits(images, images, None))


def test_each_precision_has_its_own_surrogate_and_features(ground):
    config = ground.config.copy_and_resolve_references()
    automatic = ground.features(config)
    config.surrogate.precision = "float32"
    assert ground.surrogate(config).id == "means float32"
    np.testing.assert_array_equal(ground.features(config), -automatic)
    again = dataclasses.replace(ground, _loaded={})
    np.testing.assert_array_equal(again.features(ground.config), automatic)
    kept = {file.name for file in (ground.folder / "features").iterdir()}
    assert {"means.safetensors", "means-float32.safetensors"} <= kept
