import json

import jax
import numpy as np
import pytest
from flax import serialization, traverse_util
from golden import tiny_checkpoints as tiny
from golden import towers
from safetensors.numpy import load_file, save_file

from ucjax.errors import UserError
from ucjax.runtime import parallel
from ucjax.surrogates import clip, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_clip(tmp_path_factory.mktemp("clip") / "tiny")


def edit(folder, tmp_path, name, **changes):
    """Copies a checkpoint, changing (or with None removing) keys of one of its JSON files."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    values = json.loads((folder / name).read_text()) | changes
    values = {key: value for key, value in values.items() if value is not None}
    (tmp_path / name).write_text(json.dumps(values))
    return str(tmp_path)


@pytest.mark.parametrize(("size", "key"), [(32, "features"), (48, "other_features")])
def test_features_equal_pytorch(folder, size, key):
    surrogate = load("clip", path=str(folder), image_size=size)
    assert towers.features_error("clip", surrogate, key) < 1e-4


def test_gradient_equals_pytorch(folder):
    surrogate = clip.load(str(folder), 32)
    assert towers.gradient_error("clip", surrogate) < 1e-4


def test_only_the_image_tower_is_kept_on_the_host(folder):
    surrogate = clip.load(str(folder), 32)
    assert set(surrogate.params) == {"vision_model", "visual_projection"}
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(surrogate.params))
    assert surrogate.preprocessing.mean == tiny.MEAN
    assert surrogate.preprocessing.std == tiny.STD


def test_sharded_images_give_the_same_features(folder, mesh):
    surrogate = clip.load(str(folder), 32)
    images = np.random.default_rng(0).random((8, 32, 32, 3), np.float32)
    sharded = parallel.pmap(
        surrogate.embed, mesh=mesh, in_specs=(parallel.REPLICATED, parallel.SHARDED),
        out_specs=parallel.SHARDED,
    )  # fmt: skip
    expected = jax.jit(surrogate.embed)(surrogate.params, images)
    got = sharded(parallel.replicate(surrogate.params, mesh), parallel.shard(images, mesh))
    np.testing.assert_allclose(np.asarray(got), expected, atol=1e-5)


def test_msgpack_holds_the_same_model(folder, tmp_path):
    surrogate = clip.load(str(folder), 32)
    tree = surrogate.params | {"text_projection": {"kernel": np.ones((24, 16), np.float32)}}
    (tmp_path / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    again = clip.load(str(tmp_path), 32)
    jax.tree.map(np.testing.assert_array_equal, again.params, surrogate.params)
    assert again.sha256 != surrogate.sha256


def test_a_tower_saved_without_text_has_its_config_at_the_top(folder, tmp_path):
    vision = tiny.CLIP_CONFIG["vision_config"]
    path = edit(folder, tmp_path, "config.json", vision_config=None, **vision)
    jax.tree.map(
        np.testing.assert_array_equal,
        clip.load(path, 32).params,
        clip.load(str(folder), 32).params,
    )


def test_resizing_positions_keeps_constants_and_reproduces_straight_lines():
    row, column = np.meshgrid(np.arange(6.0), np.arange(6.0), indexing="ij")
    grid = np.stack([np.ones_like(row), row, 2 * column - row], axis=-1).reshape(36, 3)
    positions = np.concatenate([np.full((1, 3), 9.0), grid])
    resized = clip._resize_positions(positions, 12)
    assert resized.shape == (145, 3)
    np.testing.assert_array_equal(resized[0], 9)
    constant, rows, _ = np.moveaxis(resized[1:].reshape(12, 12, 3), -1, 0)
    np.testing.assert_allclose(constant, 1, atol=1e-6)
    # Doubling puts new centres at -0.25, 0.25, 0.75, …: antisymmetric, away from the edges a
    # line within the small error that torch's a = -0.75 makes (exact for a = -0.5).
    np.testing.assert_allclose(rows + rows[::-1], 5, atol=1e-5)
    np.testing.assert_allclose(rows[4:8, 0], [1.75, 2.25, 2.75, 3.25], atol=0.05)


@pytest.mark.parametrize(("size", "cure"), [(30, "32"), (44, "48"), (3, "8")])
def test_image_size_that_patches_do_not_tile(folder, size, cure):
    with pytest.raises(UserError, match=rf"image size {size} .* multiple of 8.*choose {cure}"):
        clip.load(str(folder), size)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "siglip"}, "model_type 'siglip' instead of 'clip'"),
        ("config.json", {"projection_dim": None}, "no vision_config or projection_dim"),
        ("config.json", {"projection_dim": 20}, r"visual_projection.kernel \[32, 16\] instead of"),
        ("preprocessor_config.json", {"crop_size": 224}, "crops to 224 pixels .* says 32"),
        ("preprocessor_config.json", {"crop_size": {"height": 24}}, "crops to 24 pixels"),
    ],
)
def test_files_that_contradict_each_other(folder, tmp_path, file, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        clip.load(edit(folder, tmp_path, file, **changes), 32)
    assert "\n" not in str(caught.value)


def test_all_unknown_and_missing_tensors_are_named_at_once(folder, tmp_path):
    path = edit(folder, tmp_path, "config.json")
    tensors = load_file(folder / "model.safetensors")
    tensors["vision_model.extra.weight"] = tensors.pop("visual_projection.weight")
    del tensors["vision_model.post_layernorm.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError) as caught:
        clip.load(path, 48)
    message = str(caught.value)
    assert "1 unknown (vision_model.extra.kernel)" in message
    assert "2 missing (vision_model.post_layernorm.bias, visual_projection.kernel)" in message


def test_every_weight_matters(folder, tmp_path):
    """No tensor is read and then ignored: changing any of them changes the features."""
    surrogate = clip.load(str(folder), 32)
    embed = jax.jit(surrogate.embed)
    images = tiny.images(32)
    before = embed(surrogate.params, images)
    flat = traverse_util.flatten_dict(surrogate.params)
    for name, value in flat.items():
        if name[-2:] == ("k_proj", "bias"):
            continue  # the same for all keys, so the softmax removes it
        changed = embed(traverse_util.unflatten_dict(flat | {name: value * 1.5}), images)
        assert towers.relative_error(changed, before) > 1e-5, name
