import importlib.util

import numpy as np
import pytest

from ucjax import surrogates
from ucjax.errors import UserError
from ucjax.surrogates import Preprocessing, Surrogate


def test_unknown_name_lists_the_near_ones():
    with pytest.raises(UserError, match=r"unknown surrogate 'clip_rn51': did you mean clip_rn50"):
        surrogates.load("clip_rn51", image_size=64)


def test_unknown_precision_lists_the_known():
    with pytest.raises(UserError, match=r"precision 'half': choose one of auto, bfloat16, float32"):
        surrogates.load("rn50", image_size=64, precision="half")


def test_every_name_has_its_module():
    for module in surrogates.SURROGATES.values():
        assert importlib.util.find_spec(module)


def test_arguments_reach_the_module(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        surrogates.load("efficientnet_lite0", path=str(tmp_path / "none"), image_size=64)
    with pytest.raises(UserError, match="image size 8 is below 32"):
        surrogates.load("efficientnet_lite0", image_size=8)


def load_means(path, image_size, precision):
    """A surrogate of a user's own: the mean color, times the number that is its path."""

    def embed(params, images):
        return params["scale"] * images.mean((1, 2))

    nothing = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    params = {"scale": np.float32(path)}
    return Surrogate(embed, params, image_size, nothing, f"means:{path}:{precision}", path)


@pytest.mark.parametrize("kind", ["function", "module"])
def test_a_user_s_own_surrogate(monkeypatch, tmp_path, kind):
    if kind == "module":
        (tmp_path / "a_users_module.py").write_text(
            "from test_surrogates import *\nload = load_means"
        )
        monkeypatch.syspath_prepend(tmp_path)
    value = load_means if kind == "function" else "a_users_module"
    monkeypatch.setitem(surrogates.SURROGATES, "means", value)
    surrogate = surrogates.load("means", path="2", image_size=4, precision="float32")
    assert (surrogate.image_size, surrogate.id) == (4, "means:2:float32")
    images = np.full((1, 4, 4, 3), 0.25, np.float32)
    np.testing.assert_array_equal(surrogate.embed(surrogate.params, images), [[0.5] * 3])
