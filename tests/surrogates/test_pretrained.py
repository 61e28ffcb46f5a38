import hashlib
import json
import shutil

import huggingface_hub
import ml_dtypes
import numpy as np
import pytest
from golden import tiny_checkpoints as tiny
from safetensors.numpy import save_file

from ucjax import config, surrogates
from ucjax.errors import UserError
from ucjax.surrogates import pretrained

STATISTICS = {"image_mean": tiny.MEAN, "image_std": tiny.STD}
TENSORS = {
    "tower.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "tower.bias": np.ones(2, np.float16),
    "text.weight": np.zeros(4, np.float32),
}


def is_tower(name):
    return name.startswith("tower.")


@pytest.fixture
def folder(tmp_path):
    return tiny.write(tmp_path / "model", TENSORS, preprocessor_config=STATISTICS)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """The hub client as it is under HF_HUB_OFFLINE=1, with an empty cache: the cache folder."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    huggingface_hub.utils.reset_sessions()
    yield cache
    huggingface_hub.utils.reset_sessions()


def test_reads_only_what_is_wanted_as_float32(folder):
    tensors = pretrained.read_tensors(pretrained.find(str(folder)), is_tower)
    assert set(tensors) == {"tower.weight", "tower.bias"}
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
    np.testing.assert_array_equal(tensors["tower.weight"], TENSORS["tower.weight"])


def test_bfloat16_is_widened(tmp_path):
    save_file(
        {"tower.x": np.asarray([1.5, -2], ml_dtypes.bfloat16)}, tmp_path / "model.safetensors"
    )
    tensors = pretrained.read_tensors(pretrained.find(str(tmp_path)), is_tower)
    np.testing.assert_array_equal(tensors["tower.x"], np.asarray([1.5, -2], np.float32))


def test_shards_are_one_model(tmp_path):
    names = {"tower.weight": "model-1.safetensors", "tower.bias": "model-2.safetensors"}
    for name, file in names.items():
        save_file({name: TENSORS[name]}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    checkpoint = pretrained.find(str(tmp_path))
    assert pretrained.read_tensors(checkpoint, is_tower).keys() == names.keys()
    content = b"".join((tmp_path / file).read_bytes() for file in sorted(names.values()))
    assert pretrained.sha256(checkpoint) == hashlib.sha256(content).hexdigest()
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"1 of its 2 shards missing, such as .*model-2"):
        pretrained.find(str(tmp_path))


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_file_is_one_line(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model.safetensors: damaged .* bytes") as caught:
        pretrained.read_tensors(pretrained.find(str(folder)), is_tower)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x93\x01\x02", b"\x81\xa1a", b"garbage"])
def test_a_damaged_msgpack_is_one_line(tmp_path, content):
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    with pytest.raises(UserError, match=r"flax_model.msgpack: damaged"):
        pretrained.read_tensors(pretrained.find(str(tmp_path)), is_tower)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "resnet50.pth"])
def test_pickles_are_refused_with_the_cure(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x02.")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UserError, match=rf"{name} is a pickle.* convert it .*safetensors"):
            pretrained.find(str(path))


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(UserError, match=r"no weights there: it needs one of model.safetensors"):
        pretrained.find(str(tmp_path))


@pytest.mark.parametrize("path", ["/no/such/folder", "a/b/c", "./here"])
def test_a_path_that_cannot_be_a_hub_id(path):
    with pytest.raises(UserError, match="neither a folder here nor a public model"):
        pretrained.find(path)


@pytest.mark.parametrize("name", config.SURROGATES)
def test_a_default_without_network_says_how_to_pass_a_folder(offline, name):
    with pytest.raises(UserError) as caught:
        surrogates.load(name, image_size=224)
    message = str(caught.value)
    assert config.SURROGATES[name] in message
    assert "--config.surrogate.path=FOLDER" in message
    assert "model.safetensors, config.json and, if it has one, preprocessor_config.json" in message
    assert "\n" not in message


def test_hub_id_without_network_is_found_in_the_cache(offline, folder):
    model = offline / "models--someone--model"
    shutil.copytree(folder, model / "snapshots" / "0123abcd")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0123abcd")
    checkpoint = pretrained.find("someone/model")
    assert checkpoint.name == "someone/model"
    assert pretrained.read_preprocessing(checkpoint).mean == tiny.MEAN


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["a.bin", "model.safetensors", "flax_model.msgpack"], ["model.safetensors"]),
        (["pytorch_model.bin", "flax_model.msgpack", "tf_model.h5"], ["flax_model.msgpack"]),
        (
            ["model.safetensors.index.json", "model-00001-of-00001.safetensors"],
            ["model.safetensors.index.json", "model-*.safetensors"],
        ),
    ],
)
def test_only_the_weights_to_be_read_are_downloaded(folder, monkeypatch, files, wanted):
    siblings = [huggingface_hub.hf_api.RepoSibling(rfilename=name) for name in files]
    info = type("Info", (), {"siblings": siblings})
    asked = {}

    def download(repo, *, allow_patterns):
        asked[repo] = allow_patterns
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, timeout: info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert pretrained.find("someone/model").folder == folder
    assert asked == {"someone/model": ["*config.json", *wanted]}


def test_a_hub_model_with_pickled_weights_only(monkeypatch):
    siblings = [huggingface_hub.hf_api.RepoSibling(rfilename="pytorch_model.bin")]
    info = type("Info", (), {"siblings": siblings})
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, timeout: info)
    with pytest.raises(UserError, match=r"pytorch_model.bin is a pickle"):
        pretrained.find("someone/model")


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("preprocessor_config.json", STATISTICS),
        ("open_clip_config.json", {"preprocess_cfg": {"mean": tiny.MEAN, "std": tiny.STD}}),
        ("config.json", {"pretrained_cfg": {"mean": tiny.MEAN, "std": tiny.STD}}),
    ],
)
def test_preprocessing_is_read_from_each_library_s_file(tmp_path, file, values):
    tiny.write(tmp_path, TENSORS)
    (tmp_path / file).write_text(json.dumps(values))
    preprocessing = pretrained.read_preprocessing(pretrained.find(str(tmp_path)))
    assert (preprocessing.mean, preprocessing.std) == (tiny.MEAN, tiny.STD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_mean": None}, "not stated"),
        ({"image_mean": [0.5, 0.5]}, "expected 3 numbers"),
        ({"image_std": [0.5, 0.5, 0]}, "std above 0"),
        ({"image_std": ["a", "b", "c"]}, "expected 3 numbers"),
        ({"rescale_factor": 1 / 127.5}, "scaled by 0.0078.* only 1/255"),
        ({"rescale_factor": "1/255"}, "scaled by 1/255"),
        ({"do_rescale": False}, "do_rescale: False"),
        ({"do_normalize": False}, "do_normalize is false"),
    ],
)
def test_preprocessing_we_do_not_do(folder, change, message):
    values = {key: value for key, value in (STATISTICS | change).items() if value is not None}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=message):
        pretrained.read_preprocessing(pretrained.find(str(folder)))


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_damaged_config(folder, content):
    (folder / "preprocessor_config.json").write_text(content)
    with pytest.raises(UserError, match=r"preprocessor_config.json: (not JSON|holds a list)"):
        pretrained.read_preprocessing(pretrained.find(str(folder)))
