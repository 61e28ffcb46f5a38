import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import serialization
from golden import tiny_checkpoints as tiny
from golden import towers

from ucjax import config
from ucjax.errors import UserError
from ucjax.surrogates import load, resnet

GOLDEN = np.load(Path(towers.__file__).with_name("resnet50.npz"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_resnet(tmp_path_factory.mktemp("resnet") / "tiny", "transformers")


@pytest.mark.parametrize("layout", ["transformers", "torchvision"])
def test_features_equal_pytorch_in_both_layouts(tmp_path, layout):
    surrogate = load("rn50", path=str(tiny.write_resnet(tmp_path, layout)), image_size=64)
    assert towers.features_error("resnet", surrogate) < 1e-4


def test_timm_s_resnet50_gives_what_torchvision_s_does(tmp_path):
    """At full size, so that names, shapes and the stride's place are those of the real file."""
    surrogate = load("rn50", path=str(tiny.write_resnet50(tmp_path)), image_size=64)
    for name in ("features", "logits"):
        function = surrogate.embed if name == "features" else surrogate.logits
        found, expected = jax.jit(function)(surrogate.params, tiny.images(64)), GOLDEN[name]
        assert towers.relative_error(found, expected) < 1e-4
        np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
    stated = tiny.TIMM_CONFIG["pretrained_cfg"]
    assert list(surrogate.preprocessing.mean) == stated["mean"]
    assert list(surrogate.preprocessing.std) == stated["std"]
    trained = [surrogate.params["params"], surrogate.params["classifier"]]
    assert sum(leaf.size for leaf in jax.tree.leaves(trained)) == 25_557_032


def test_the_default_weights_are_those_of_the_paper_s_code():
    assert config.SURROGATES["rn50"] == resnet.DEFAULT == "timm/resnet50.tv_in1k"


@pytest.mark.parametrize("layout", ["transformers", "torchvision"])
def test_logits_are_the_head_on_the_features(tmp_path, layout):
    surrogate = resnet.load(str(tiny.write_resnet(tmp_path, layout)), 64)
    head = tiny.draw({"fc.weight": (5, 256), "fc.bias": (5,)})
    features = np.asarray(surrogate.embed(surrogate.params, tiny.images(64)), np.float64)
    expected = features @ head["fc.weight"].T + head["fc.bias"]
    found = surrogate.logits(surrogate.params, tiny.images(64))
    assert towers.relative_error(found, expected) < 1e-5


def test_a_backbone_alone_has_no_logits_and_half_a_head_is_a_mistake(tmp_path):
    tensors = tiny.draw(tiny.resnet_shapes())
    preprocessor = {"image_mean": tiny.MEAN, "image_std": tiny.STD}
    bias = tensors.pop("fc.bias")
    tiny.write(tmp_path, tensors, preprocessor_config=preprocessor)
    with pytest.raises(UserError, match=r"1 missing \(classifier.bias\)"):
        resnet.load(str(tmp_path), 64)
    tensors.pop("fc.weight")
    tiny.write(tmp_path, tensors, preprocessor_config=preprocessor)
    surrogate = resnet.load(str(tmp_path), 64)
    assert surrogate.logits is None
    assert towers.features_error("resnet", surrogate) < 1e-4
    tiny.write(tmp_path, tensors | {"fc.bias": bias}, preprocessor_config=preprocessor)
    with pytest.raises(UserError, match=r"1 missing \(classifier.kernel\)"):
        resnet.load(str(tmp_path), 64)


def test_features_equal_pytorch_at_another_size(folder):
    assert towers.features_error("resnet", resnet.load(str(folder), 80), "other_features") < 1e-4


def test_gradient_equals_pytorch(folder):
    assert towers.gradient_error("resnet", resnet.load(str(folder), 64)) < 1e-4


def test_msgpack_holds_the_same_model(folder, tmp_path):
    surrogate = resnet.load(str(folder), 64)
    tree = {key: {"resnet": surrogate.params[key]} for key in ("params", "batch_stats")}
    tree["params"]["classifier"] = {"1": surrogate.params["classifier"]}
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
