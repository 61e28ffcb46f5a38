import json

import jax
import numpy as np
import pytest
from flax import serialization
from golden import tiny_checkpoints as tiny
from golden import towers

from ucjax.errors import UserError
from ucjax.surrogates import load, resnet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_resnet(tmp_path_factory.mktemp("resnet") / "tiny", "transformers")


@pytest.mark.parametrize("layout", ["transformers", "torchvision"])
def test_features_equal_pytorch_in_both_layouts(tmp_path, layout):
    surrogate = load("rn50", path=str(tiny.write_resnet(tmp_path, layout)), image_size=64)
    assert towers.features_error("resnet", surrogate) < 1e-4


def test_features_equal_pytorch_at_another_size(folder):
    assert towers.features_error("resnet", resnet.load(str(folder), 80), "other_features") < 1e-4


def test_gradient_equals_pytorch(folder):
    assert towers.gradient_error("resnet", resnet.load(str(folder), 64)) < 1e-4


def test_msgpack_holds_the_same_model(folder, tmp_path):
    surrogate = resnet.load(str(folder), 64)
    tree = {key: {"resnet": value} for key, value in surrogate.params.items()}
    tree["params"]["classifier"] = {"1": {"kernel": np.ones((256, 5), np.float32)}}
    (tmp_path / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    again = resnet.load(str(tmp_path), 64)
    jax.tree.map(np.testing.assert_array_equal, again.params, surrogate.params)


def test_preprocessing_is_never_guessed(tmp_path):
    tiny.write(tmp_path, tiny.draw(tiny.resnet_shapes()))
    with pytest.raises(UserError, match=r"mean and std .* not stated: put .*preprocessor_config"):
        resnet.load(str(tmp_path), 64)


def test_image_smaller_than_the_stride(folder):
    with pytest.raises(UserError, match="image size 31 is below 32"):
        resnet.load(str(folder), 31)


def test_a_config_that_the_network_would_not_follow(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = tiny.RESNET_CONFIG | {"downsample_in_bottleneck": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="downsample_in_bottleneck True is not a ResNet-50"):
        resnet.load(str(tmp_path), 64)


def test_weights_of_another_architecture(tmp_path):
    tensors = tiny.draw(tiny.clip_shapes())
    statistics = {"image_mean": tiny.MEAN, "image_std": tiny.STD}
    tiny.write(tmp_path, tensors, preprocessor_config=statistics)
    with pytest.raises(UserError, match=r"not the weights of a ResNet-50: \d+ unknown .* missing"):
        resnet.load(str(tmp_path), 64)
