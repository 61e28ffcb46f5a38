"""The plan against what a run really does."""

import json
import math
from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pictures import SIZES, content, publish

from configs import cars, smoke
from ucjax import surrogates
from ucjax.cli import command
from ucjax.comparison import run
from ucjax.config import photos
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.ops import convolution
from ucjax.planning import cost, files, plan, schedule, steps
from ucjax.planning.schedule import Images
from ucjax.protections.uc import training as noise
from ucjax.protections.uc.perturbation import NoiseSpec
from ucjax.runtime import parallel
from ucjax.surrogates import Preprocessing, Surrogate, features
from ucjax.victims import training as victims

FEATURES, LITE0 = 6, "efficientnet_lite0"


def embed(kernel, images):
    return jnp.tanh(convolution.conv2d(images, kernel, padding=((1, 1), (1, 1)))).mean((1, 2))


def toy(size=32):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, FEATURES)).astype(np.float32)
    return Surrogate(embed, kernel, size, Preprocessing((0, 0, 0), (1, 1, 1)), "toy", "none")


@pytest.fixture
def toy_surrogate(monkeypatch):
    monkeypatch.setattr(surrogates, "load", lambda name, image_size, **kwargs: toy(image_size))


def image_set(n, side=8):
    rows = np.zeros((n * side, side, 3), np.uint8)
    starts, labels = np.arange(n + 1) * side, np.zeros(n, np.int32)
    names = tuple(map(str, range(n)))
    return ImageSet(rows, starts, np.zeros(n, bool), labels, names, ("a",))


def counts(config, images, mesh):
    asked = run.check(config, mesh)
    return {x.name: x.count for x in schedule.schedule(config, asked, images, mesh)}


def test_what_is_learnt_without_labels_is_planned(mesh):
    config = smoke.get_config()
    config.victims, config.seeds = ("simclr_rn18:pretrain_epochs=3:epochs=2",), (0, 1)
    asked, images = run.check(config, mesh), Images(19, 5, 3, "")
    (victim,) = asked.columns
    batches = math.ceil(19 / victim.spec.batch_size)
    found = counts(config, images, mesh)
    trained = 2 * len(config.protections)
    name = f"{trained} × {victim.name}"
    assert found[f"pretrain {name}"] == trained * 3 * batches
    assert found[f"train {name}"] == trained * 2 * batches
    step = steps._victim(victim, images, mesh)[f"pretrain {victim.name}"]
    state, loss = jax.eval_shape(step.program, *step.arguments)
    assert (loss.shape, state.step.shape) == ((), ())


@pytest.mark.parametrize(("n", "m"), [(24, 12), (19, 5), (64, 33)])
def test_steps_are_those_that_a_run_takes(n, m, mesh, monkeypatch):
    config = smoke.get_config()
    config.noise.epochs, config.victim.epochs, config.seeds = 3, 4, (0, 1)
    planned = counts(config, Images(n, m, 10, ""), mesh)
    spec = NoiseSpec(**config.noise, seed=0)
    (victim,) = run.check(config, mesh).columns

    taken = [p for e in range(3) for p in noise._plan(np.arange(n) % 3, spec, e)]
    assert planned["noise uc"] == len(taken)

    runs = len(config.protections) * 2
    batches = [b for e in range(4) for b in victims.epoch_batches(n, victim.spec.batch_size, 0, e)]
    assert planned[f"train {runs} × resnet18"] == runs * len(batches)

    tested = victims.tested_at_once(m, victim.spec.batch_size, mesh)
    assert tested % mesh.size == 0
    padded, _ = parallel.pad(np.arange(m), tested)
    # Each of the ten classes once more at the end.
    assert planned[f"test {runs} × resnet18"] == runs * (4 * len(padded) // tested + 10)

    embedded, make_step = [], features.make_step
    monkeypatch.setattr(
        features,
        "make_step",
        lambda *args: lambda *given: embedded.append(1) or make_step(*args)(*given),
    )
    features.features(toy(8), image_set(n), size=8, mesh=mesh, batch_size=8)
    assert planned[f"features {LITE0}"] == len(embedded)


def test_rows_seeds_and_columns_multiply(mesh):
    config = smoke.get_config()
    config.protections = ("clean", "clean_original", "random", "uc", "uc:k=2")
    config.victims, config.noise_seeds, config.seeds = ("resnet18", "resnet18+jpeg75"), (0, 1), (5,)
    planned = counts(config, Images(24, 12, 10, ""), mesh)
    assert planned["protected files"] == 2 * 2 * 24
    assert planned["files of other rows"] == (1 + 2) * 24  # clean files are drawn from nothing
    rows = 1 + 1 + 3 * 2
    for column in config.victims:
        assert planned[f"decode for {column}"] == rows * 24
        assert planned[f"train {rows} × {column}"] == rows * 2 * 3
    assert planned[f"k-means {LITE0}, k = 3"] == planned[f"k-means {LITE0}, k = 2"] == 2 * 2 * 300
    assert planned["noise uc:k=2"] == 2 * 2 * 3
    assert planned["noise random"] == 2
    for unlabelled in (Images(24, 12, 0, ""), Images(24, 0, 10, "")):
        assert not [name for name in counts(config, unlabelled, mesh) if "resnet18" in name]
    config.victims = ("resnet18:labels=random-4",)  # which need no labels
    assert "train 8 × resnet18:labels=random-4" in counts(config, Images(24, 12, 0, ""), mesh)


def test_images_are_counted_where_they_are(tmp_path):
    config = smoke.get_config()
    assert schedule.count(config, files.listing(config))[:3] == (24, 12, 10)
    publish(tmp_path / "photos")
    assert schedule.count(config, files.photos(tmp_path / "photos")).train == len(SIZES)
    config = cars.get_config()
    config.data.root = str(tmp_path)  # nothing is prepared there
    assert files.listing(config) is None
    with pytest.raises(UserError, match=r"'cars196' is not on this machine.*--images=N"):
        schedule.count(config, None)
    assert "assumed" in schedule.assume(config, 500).origin
    with pytest.raises(UserError, match=r"--images=5 is fewer than config\.clusters\.k = 10"):
        schedule.assume(config, 5)


def test_a_step_is_not_run_where_its_memory_is_more_than_there_is(one_device, monkeypatch):
    config = smoke.get_config()
    asked, images = run.check(config, one_device), Images(24, 12, 10, "")
    built = steps.build(config, asked, {LITE0: toy()}, images, one_device)
    assert set(built) == {f"features {LITE0}", "noise uc", "train resnet18", "test resnet18"}
    found = cost.compiled(built["noise uc"], run=True)
    batch, noises = 8 * 32 * 32 * 3, 4 * 3 * 32 * 32 * 3
    assert batch + noises < found.memory_bytes < 1e9
    assert 0 < found.seconds < 60
    monkeypatch.setattr(cost, "available_bytes", lambda: found.memory_bytes)
    assert cost.compiled(built["noise uc"], run=True).seconds is None
    monkeypatch.setattr(cost, "available_bytes", lambda: found.memory_bytes - 1)
    (problem,) = plan._problems({"noise uc": found})
    assert "a step of noise uc needs" in problem


def test_a_plan_for_photos_ends_with_their_files_and_changes_nothing(toy_surrogate, mesh, tmp_path):
    publish(tmp_path / "photos")
    before = content(tmp_path)
    config = photos()
    config.data.update(short_side=36, crop=32)
    config.clusters.update(k=2, n_init=1, max_iterations=4)
    config.noise.update(epochs=2, batch_size=4)
    config.protections, config.victims = ("uc",), ()
    listed = files.photos(tmp_path / "photos")
    made = plan.make(config, listed=listed, mesh=mesh, say=lambda line: None)
    assert content(tmp_path) == before
    assert {row.stage.cost: row.stage.count for row in made.rows} == {
        "decode": 6, f"features {LITE0}": 1, f"k-means {LITE0} 2": 4, "noise uc": 4, "write": 6,
        "check": 6,
    }  # fmt: skip
    assert all(row.seconds > 0 for row in made.rows)
    steps_ = [row for row in made.rows if row.stage.unit == "steps"]
    assert all(row.memory_bytes > 4 * 32 * 32 * 3 // mesh.size for row in steps_)
    sizes = [len(data) for name, data in before.items() if name.startswith("photos/")]
    assert made.files.source_bytes == pytest.approx(np.mean(sizes))
    pixels = np.mean([h * w * 3 for h, w in SIZES])
    assert 0.3 * pixels < made.files.written_bytes < 1.5 * pixels  # noise hardly compresses
    assert "6 images to protect" in plan.text(made)
    assert json.loads(json.dumps(asdict(made)))["images"][0] == 6


def test_without_weights_the_surrogates_steps_are_not_timed(mesh, tmp_path):
    config, said = smoke.get_config(), []
    config.surrogate.path = str(tmp_path / "nowhere")
    made = plan.make(config, run=False, mesh=mesh, say=said.append)
    assert any("not timed: the steps of efficientnet_lite0 /" in line for line in said)
    memory = {row.stage.cost.split()[0]: row.memory_bytes for row in made.rows}
    assert memory["features"] is memory["noise"] is None
    assert memory["train"] > 0
    assert all(row.seconds is None for row in made.rows)
    assert not math.isnan(made.free_bytes)
    assert "stages that were not timed" in plan.text(made)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give a folder of photos, or --config=FILE"),
        (["/nowhere/at/all"], "no pictures under /nowhere/at/all"),
        (["--config=configs/smoke.py", "--target=v5e-16"], "unexpected argument '--target=v5e-16'"),
        (["--config=configs/smoke.py", "--images=2"], "--images=2 is fewer"),
        (["--config=configs/imagenet100.py"], "give their number as --images=N"),
        (["--config=configs/smoke.py", "--config.noise.epocs=2"], "did you mean 'epochs'?"),
    ],
)
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections'
def test_mistakes_are_one_line(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("ucjax.runtime.parallel.initialize", lambda **_: None)
    assert command.main(["plan", *arguments]) == 2
    assert message in capsys.readouterr().err
