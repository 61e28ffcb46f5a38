import pytest
from golden import tiny_checkpoints as tiny
from golden import towers
from safetensors.numpy import load_file, save_file

from ucjax.errors import UserError
from ucjax.surrogates import clip_resnet, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_clip_resnet(tmp_path_factory.mktemp("clip_resnet") / "tiny", "open_clip")


@pytest.mark.parametrize("layout", ["open_clip", "timm"])
def test_features_equal_pytorch_in_both_layouts(tmp_path, layout):
    path = tiny.write_clip_resnet(tmp_path, layout)
    surrogate = load("clip_rn50", path=str(path), image_size=64)
    assert towers.features_error("clip_resnet", surrogate) < 1e-4
    assert surrogate.preprocessing.mean == tiny.MEAN


def test_features_equal_pytorch_at_another_size(folder):
    surrogate = clip_resnet.load(str(folder), 96)
    assert towers.features_error("clip_resnet", surrogate, "other_features") < 1e-4


def test_gradient_equals_pytorch(folder):
    assert towers.gradient_error("clip_resnet", clip_resnet.load(str(folder), 64)) < 1e-4


def test_a_weight_file_can_be_named_itself(folder):
    surrogate = clip_resnet.load(str(folder / "model.safetensors"), 64)
    assert surrogate.sha256 == clip_resnet.load(str(folder), 64).sha256


@pytest.mark.parametrize(("size", "cure"), [(16, "32"), (100, "96")])
def test_image_size_that_strides_do_not_divide(folder, size, cure):
    with pytest.raises(UserError, match=rf"image size {size} .* multiple of 32.*choose {cure}"):
        clip_resnet.load(str(folder), size)


def test_preprocessing_is_never_guessed(tmp_path):
    tiny.write(tmp_path, tiny.draw(tiny.clip_resnet_shapes()))
    with pytest.raises(UserError, match=r"mean and std .* not stated: put .*preprocessor_config"):
        clip_resnet.load(str(tmp_path), 64)


def test_weights_of_another_architecture(tmp_path):
    path = tiny.write_clip(tmp_path)
    with pytest.raises(UserError, match=r"not the weights of a CLIP ResNet.*conv3.kernel"):
        clip_resnet.load(str(path), 64)


def test_unknown_and_missing_tensors(folder, tmp_path):
    (tmp_path / "open_clip_config.json").write_bytes(
        (folder / "open_clip_config.json").read_bytes()
    )
    tensors = load_file(folder / "model.safetensors")
    tensors["visual.layer9.bias"] = tensors.pop("visual.layer2.1.bn3.running_var")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(
        UserError, match=r"1 unknown \(layer9.bias\); 1 missing \(layer2_1.conv3.var"
    ):
        clip_resnet.load(str(tmp_path), 64)
