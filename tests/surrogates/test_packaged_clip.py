import dataclasses
import io
import json
import zipfile
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image
from safetensors.numpy import load_file
from transformers import FlaxCLIPModel, FlaxCLIPVisionModel

from tools.packaged_clip import data, measure, prompts, train, views
from tools.packaged_clip.model import PREPROCESSING, Recipe
from ucjax import surrogates
from ucjax.errors import UserError
from ucjax.runtime import checkpoint, parallel
from ucjax.surrogates.pretrained import normalize

RECIPE = Recipe(
    width=32, layers=1, heads=2, dimensions=16, text_width=64, text_layers=1, epochs=6,
    batch_size=8, learning_rate=3e-3,
)  # fmt: skip
STEPS = 3  # an epoch: 20 images, the last batch filled up
CLASSES = "n02\tscarlet tanager, Piranga olivacea\nn01\ttree frog, tree-frog\nn03\tunused\n"
COLOURS = {"n01": (40, 200, 40), "n02": (200, 40, 40)}


def picture(wnid, seed):
    rng = np.random.default_rng((seed, *wnid.encode()))
    small = rng.normal(COLOURS[wnid], 40, (8, 8, 3)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC)


def write_zip(path, classes=CLASSES):
    with zipfile.ZipFile(path, "w") as file:
        if classes is not None:
            file.writestr("classes.tsv", classes)
        for split, count in (("train", 10), ("val", 3)):
            for wnid in COLOURS:
                for i in range(count):
                    buffer = io.BytesIO()
                    picture(wnid, i + 100 * (split == "val")).save(buffer, "JPEG", quality=95)
                    file.writestr(f"{split}/{wnid}/{wnid}_{i}.JPEG", buffer.getvalue())
    return path


def flags(archive, folder):
    """The command line of `RECIPE`."""
    recipe = dataclasses.asdict(RECIPE).items()
    places = [f"--data={archive}", f"--workdir={folder}", f"--output={folder / 'shipped'}"]
    return [*places, *(f"--{name.replace('_', '-')}={value}" for name, value in recipe)]


@pytest.fixture(scope="module", autouse=True)
def fast_compilation():
    """Compiling takes most of this file's time; what it compiles runs for milliseconds."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The whole program, once: the zip, the workdir, the exported folder, what `prepare` made."""
    folder, made = tmp_path_factory.mktemp("packaged_clip"), []
    archive, run = write_zip(folder / "tiny.zip"), folder / "run"
    prepare = train.prepare

    def keep(*arguments):
        made.append(prepare(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "prepare", keep)
        train.main(flags(archive, run))
    return SimpleNamespace(archive=archive, run=run, shipped=run / "shipped", trainer=made[0])


@pytest.fixture
def trainer(trained):
    return trained.trainer


def test_pictures_labels_and_names_of_the_zip(trainer):
    pictures = trainer.pictures
    assert pictures.train.class_names == ("n01", "n02")
    assert pictures.names[1] == ("scarlet tanager", "Piranga olivacea")
    assert (len(pictures.train), len(pictures.val)) == (20, 6)
    for i, name in enumerate(pictures.val.names):
        wnid, number = name.split("/")[1], int(name[-6])
        assert pictures.val.labels[i] == ("n01", "n02").index(wnid)
        expected = np.asarray(picture(wnid, 100 + number), float)
        assert np.abs(pictures.val.image(i) - expected).mean() < 5  # JPEG


def test_data_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match="is not a zip file here"):
        data.load(tmp_path / "none.zip", tmp_path)
    with pytest.raises(UserError, match=r"no classes\.tsv"):
        data.load(write_zip(tmp_path / "a.zip", None), tmp_path)
    with pytest.raises(UserError, match="1 of 2 classes, such as n01, have no name"):
        data.load(write_zip(tmp_path / "b.zip", "n02\tbird\nn01\t\n"), tmp_path)


def test_captions_spell_every_synonym_in_every_template():
    made = prompts.make([("tree frog",), ("Scarlet tanager", "bird's nest")])
    count = len(prompts.TEMPLATES)
    assert made.starts.tolist() == [0, count, 3 * count]
    assert len({tuple(row) for row in made.ids}) == 3 * count
    for row in made.ids:
        length = int(np.argmax(row == made.end))
        assert (row[:length] > 0).all()
        assert (row[:length] < made.end).all()
        assert not row[length + 1 :].any()
    # "tree frog" and its other spelling have equal words.
    assert np.array_equal(*(prompts.make([(name,)]).ids for name in ("tree frog", "Tree-frog")))


def test_crops_equal_pillow():
    rng = np.random.default_rng(0)
    image = rng.random((24, 24), np.float32)
    height, width, top, left = 0.7, 0.45, 0.2, 0.9
    y, x = 24 * (1 - height) * top, 24 * (1 - width) * left
    box = (x, y, x + 24 * width, y + 24 * height)
    expected = Image.fromarray(image).resize((24, 24), Image.Resampling.BILINEAR, box=box)
    numbers = [np.float32([value, value]) for value in (height, width, top, left)]
    stack = np.broadcast_to(image[None, :, :, None], (2, 24, 24, 3))
    plain, mirrored = views.resized_crops(stack, *numbers, np.array([False, True]))
    np.testing.assert_allclose(plain[..., 0], np.asarray(expected), atol=1e-5)
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])


def test_views_differ_but_not_by_the_number_of_devices(mesh, one_device):
    images = np.random.default_rng(0).random((8, 16, 16, 3), np.float32)
    images[1] = images[0]

    def view(images):
        return views.random_views(jax.random.key(0), images, smallest_area=0.3, colour=0.2)

    shared, alone = (
        np.asarray(
            parallel.pmap(
                view, mesh=devices, in_specs=(parallel.SHARDED,), out_specs=parallel.SHARDED
            )(parallel.shard(images, devices))
        )
        for devices in (mesh, one_device)
    )
    np.testing.assert_allclose(shared, alone, atol=1e-6)
    assert np.abs(shared[0] - shared[1]).mean() > 0.05
    assert 0 <= shared.min() < shared.max() <= 1


def test_a_step_does_not_depend_on_the_number_of_devices(trained, trainer, one_device):
    alone = train.prepare(RECIPE, trained.archive, trained.run, one_device)
    results = []
    for each in (trainer, alone):
        seed = parallel.replicate(np.uint32(0), each.mesh)
        state = each.programs.init()
        images = parallel.shard(each.pictures.train.center_crops(64, range(8)), each.mesh)
        labels = parallel.shard(each.pictures.train.labels[6:14], each.mesh)
        results.append(parallel.to_host(each.programs.step(state, images, labels, seed)[1]))
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_it_learns(trained):
    lines = [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, RECIPE.epochs + 1))
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    facts = checkpoint.read_json(trained.shipped / "training.json")
    assert facts["zero_shot_top1"] == 1
    assert facts["epochs"] == RECIPE.epochs


class Interrupted(Exception):
    pass


def test_a_killed_run_ends_with_the_same_parameters(trained, trainer, tmp_path, monkeypatch):
    again = dataclasses.replace(trainer, folder=tmp_path)

    def save_and_die(*arguments):
        save(*arguments)
        raise Interrupted

    save = train.save
    settings = {"checkpoint_steps": 2 * STEPS + 1, "test_epochs": 99}
    monkeypatch.setattr(train, "save", save_and_die)
    with pytest.raises(Interrupted):
        train.train(again, **settings)
    monkeypatch.undo()
    state, seconds = train.restore(again)
    assert int(state.step) == 2 * STEPS + 1  # in the middle of an epoch
    train.train(again, **settings)
    assert train.restore(again)[1] > seconds > 0
    whole, resumed = (load_file(f / "checkpoint.safetensors") for f in (trained.run, tmp_path))
    del whole["seconds"], resumed["seconds"]
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


def test_what_is_shipped_equals_what_was_trained(trained, trainer):
    """transformers' own `get_image_features` on the checkpoint is the oracle."""
    images = trainer.pictures.val.center_crops(64) / np.float32(255)
    surrogate = surrogates.load("packaged_clip", path=str(trained.shipped), image_size=64)
    got = jax.jit(surrogate.embed)(surrogate.params, images)
    params = parallel.to_host(train.restore(trainer)[0].params)
    whole = FlaxCLIPModel(trainer.module.config, _do_init=False)
    pixels = np.asarray(normalize(images, PREPROCESSING)).transpose(0, 3, 1, 2)
    expected = jax.jit(lambda params: whole.get_image_features(pixels, params=params))(params)
    np.testing.assert_allclose(got, expected, rtol=0.01, atol=5e-3 * np.abs(expected).max())
    assert surrogate.preprocessing == PREPROCESSING
    assert {x.dtype for x in jax.tree.leaves(surrogate.params)} == {np.dtype(np.float32)}
    assert surrogates.load("packaged_clip", path=str(trained.shipped), image_size=128)


def test_transformers_opens_the_shipped_folder(trained, trainer):
    images = trainer.pictures.val.center_crops(64) / np.float32(255)
    surrogate = surrogates.load("packaged_clip", path=str(trained.shipped), image_size=64)
    model, params = FlaxCLIPVisionModel.from_pretrained(trained.shipped, _do_init=False)
    pixels = np.asarray(normalize(images, surrogate.preprocessing)).transpose(0, 3, 1, 2)
    pooled = jax.jit(lambda params: model(pixels, params=params).pooler_output)(params)
    expected = np.asarray(pooled) @ surrogate.params["visual_projection"]["kernel"]
    got = jax.jit(surrogate.embed)(surrogate.params, images)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_only_the_image_tower_is_shipped_in_half_precision(trained):
    tensors = load_file(trained.shipped / "model.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"vision_model", "visual_projection"}
    assert {x.dtype for x in tensors.values()} == {np.dtype(np.float16)}
    card = (trained.shipped / "README.md").read_text()
    assert checkpoint.sha256(trained.shipped / "model.safetensors") in card
    assert "100.00 % of 6 validation images" in card
    assert "{" not in card


def test_export_of_what_is_not_there(trainer, tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint yet"):
        train.export_last(dataclasses.replace(trainer, folder=tmp_path), tmp_path / "out")


def test_a_workdir_belongs_to_one_recipe(trained):
    with pytest.raises(UserError, match="epochs = 6, this one has 7"):
        train.main([*flags(trained.archive, trained.run), "--epochs=7"])


def test_weights_that_are_missing_or_changed(trained, tmp_path):
    for file in trained.shipped.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2] + b"\0\0")
    with pytest.raises(UserError, match=r"has SHA-256 .* but training\.json states"):
        surrogates.load("packaged_clip", path=str(tmp_path), image_size=64)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        surrogates.load("packaged_clip", path=str(tmp_path), image_size=64)


def test_the_package_ships_what_its_card_says():
    facts = checkpoint.read_json(train.OUTPUT / "training.json")
    card = (train.OUTPUT / "README.md").read_text()
    assert f"{100 * facts['zero_shot_top1']:.2f} % of 10,000 validation images" in card
    assert facts["zero_shot_top1"] >= 0.12
    assert facts["sha256"] in card
    assert sum(file.stat().st_size for file in train.OUTPUT.iterdir()) <= 12e6
    surrogate = surrogates.load("packaged_clip", image_size=64)
    assert surrogate.id == "packaged_clip"
    assert surrogate.sha256 == facts["sha256"]
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    features = jax.jit(surrogate.embed)(surrogate.params, images)
    assert features.shape == (2, 256)
    assert not np.allclose(features[0], features[1], rtol=0.01)


def test_five_neighbours_vote_and_the_nearest_breaks_a_tie():
    angles = np.array([0, 1, 2, 3, 10, 11, 60, 61])
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    rows = np.stack([np.cos(angles / 40), np.sin(angles / 40)], axis=1) * (1 + angles[:, None])
    # Row 3 sees 0 0 0 1 1, rows 6 and 7 see one 2 against 1 1 1 0: all three are wrong. Rows 0
    # to 2, 4 and 5 see two of their own and two or three others: ties go to the nearer.
    votes = [sorted(range(8), key=lambda j: abs(angles[j] - a))[1:6] for a in angles]
    winners = [
        max(labels[v], key=lambda y, v=v: (list(labels[v]).count(y), -list(labels[v]).index(y)))
        for v in votes
    ]
    assert measure.neighbour_accuracy(rows, labels) == np.mean(winners == labels)


def test_shuffled_weights_are_the_same_numbers(trained):
    surrogate = surrogates.load("packaged_clip", path=str(trained.shipped), image_size=64)
    before = traverse_util.flatten_dict(surrogate.params)
    after = traverse_util.flatten_dict(measure.shuffled(surrogate).params)
    for name, value in before.items():
        np.testing.assert_array_equal(np.sort(after[name].ravel()), np.sort(value.ravel()))
    kernel = ("visual_projection", "kernel")
    assert not np.array_equal(before[kernel], after[kernel])
