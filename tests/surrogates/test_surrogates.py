import importlib.util

import pytest

from ucjax import surrogates
from ucjax.errors import UserError


def test_unknown_name_lists_the_known():
    with pytest.raises(UserError, match=r"unknown surrogate 'clip_rn51': choose .*clip_rn50"):
        surrogates.load("clip_rn51", image_size=64)


def test_every_name_has_its_module():
    for module in surrogates._MODULES.values():
        assert importlib.util.find_spec(f"ucjax.surrogates.{module}")


def test_arguments_reach_the_module(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        surrogates.load("efficientnet_lite0", path=str(tmp_path / "none"), image_size=64)
    with pytest.raises(UserError, match="image size 8 is below 32"):
        surrogates.load("efficientnet_lite0", image_size=8)
