"""The plan against what the pipeline really does, and its costs against counts by hand."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pictures import SIZES, content, publish

from configs import cars, pets, smoke
from ucjax import job
from ucjax.cli import command
from ucjax.config import photos
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.ops import convolution
from ucjax.planning import cost, files, plan, schedule, stand_ins, steps, targets
from ucjax.planning.steps import Images, Step
from ucjax.protections.uc import training as noise
from ucjax.runtime import parallel, platforms
from ucjax.surrogates import Preprocessing, Surrogate, features
from ucjax.victims import training as victims

FEATURES = 6


def embed(kernel, images):
    return jnp.tanh(convolution.conv2d(images, kernel, padding=((1, 1), (1, 1)))).mean((1, 2))


def toy(size=32):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, FEATURES)).astype(np.float32)
    return Surrogate(embed, kernel, size, Preprocessing((0, 0, 0), (1, 1, 1)), "toy", "none")


@pytest.fixture
def toy_surrogate(monkeypatch):
    monkeypatch.setattr(stand_ins, "load", lambda name, path, image_size: toy(image_size))


def image_set(n, side=8):
    rows = np.zeros((n * side, side, 3), np.uint8)
    starts, labels = np.arange(n + 1) * side, np.zeros(n, np.int32)
    names = tuple(map(str, range(n)))
    return ImageSet(rows, starts, np.zeros(n, bool), labels, names, ("a",))


def counts(config, images, mesh):
    return {(x.name, x.cost): x.count for x in schedule.schedule(config, images, mesh)}


@pytest.mark.parametrize(("n", "m"), [(24, 12), (19, 5), (64, 33)])
def test_steps_are_those_that_the_pipeline_takes(n, m, mesh, monkeypatch):
    config = smoke.get_config()
    config.noise.epochs, config.victim.epochs, config.victim.seeds = 3, 4, (0, 1)
    planned = counts(config, Images(n, m, 10, ""), mesh)
    this = job.check(config, Path(), mesh)

    taken = [p for e in range(3) for p in noise._plan(np.arange(n) % 3, this.noise, e)]
    assert planned["noise", "noise"] == len(taken)

    runs = len(config.victim.arms) * 2
    batches = [b for e in range(4) for b in victims.epoch_batches(n, this.victim.batch_size, 0, e)]
    assert planned[f"train {runs} victims", "victim"] == runs * len(batches)

    tested = victims.tested_at_once(m, this.victim.batch_size, mesh)
    assert tested % mesh.size == 0
    padded, _ = parallel.pad(np.arange(m), tested)
    # Each of the ten classes once more at the end.
    assert planned["test them", "victim test"] == runs * (4 * len(padded) // tested + 10)

    embedded, make_step = [], features.make_step
    monkeypatch.setattr(
        features,
        "make_step",
        lambda *args: lambda *given: embedded.append(1) or make_step(*args)(*given),
    )
    features.features(toy(8), image_set(n), size=8, mesh=mesh, batch_size=8)
    assert planned["features", "features"] == len(embedded)
    # Two arms, "clean" and "protected", are embedded again.
    assert planned["features of files", "features"] == 2 * len(embedded)


def test_files_are_those_of_all_arms_and_labels_make_victims(mesh):
    config = smoke.get_config()
    config.victim.arms = ("clean", "random")  # protected files are written all the same
    planned = counts(config, Images(24, 12, 10, ""), mesh)
    assert planned["protected files", "write"] == 24
    assert planned["control files", "write"] == 2 * 24
    assert planned["decode files for victims", "reread"] == 2 * 24  # 36 px instead of crops of 32
    for unlabelled in (Images(24, 12, 0, ""), Images(24, 0, 10, "")):
        kinds = {cost for _, cost in counts(config, unlabelled, mesh)}
        assert not kinds & {"victim", "victim test"}


def test_images_are_counted_where_they_are_and_else_taken_from_the_catalogue(mesh, tmp_path):
    config = smoke.get_config()
    listed = files.listing(job.check(config, Path(), mesh))
    assert schedule.count(config, listed)[:3] == (24, 12, 10)
    publish(tmp_path / "photos")
    assert schedule.count(config, files.photos(tmp_path / "photos")).train == len(SIZES)
    config = cars.get_config()
    config.data.root = str(tmp_path)  # nothing is prepared there
    assert files.listing(job.check(config, Path(), mesh)) is None
    known = schedule.count(config, None)
    assert known[:3] == (8144, 8041, 196)
    assert "not on this machine" in known.origin
    assert "assumed" in schedule.assume(config, 500).origin
    with pytest.raises(UserError, match=r"--images=5 is fewer than config\.clusters\.k = 10"):
        schedule.assume(config, 5)


def multiply(length):
    def program(x):
        return jax.lax.scan(lambda x, _: (x @ x, None), x, length=length)[0]

    return Step(jax.jit(program), (on_one_device((64, 64)),), carries=False)


def on_one_device(shape):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(shape, np.float32, sharding=sharding)


def test_loops_count_as_often_as_they_run():
    for length in (1, 3, 40):
        products = length * 2 * 64**3
        for found in (
            cost.lowered_flops(multiply(length)),
            cost.compiled(multiply(length), run=False).flops,
        ):
            assert found == pytest.approx(products, rel=0.02)


@pytest.mark.parametrize(("platform", "names"), [("cpu", ["features"]), ("tpu", ["noise"])])
def test_flops_grow_with_the_batch_in_either_form(platform, names, one_device):
    """At 64 px the CPU's form embeds slices of 16 images in a loop, which must not be lost."""
    config, found = smoke.get_config(), []
    config.data.update(short_side=64, crop=64)
    surrogate = stand_ins.load("efficientnet_lite0", path="", image_size=64)
    for batch in (32, 64):
        config.noise.batch_size = config.surrogate.batch_size = config.victim.batch_size = batch
        with platforms.traced_for(platform):
            this = job.check(config, Path(), one_device)
            built = steps.build(this, surrogate, Images(1000, 0, 10, ""))
            found.append([cost.lowered_flops(built[name]) for name in names])
    assert np.divide(*found[::-1]) == pytest.approx(2, rel=0.03)
    # 390 M products and sums at 224 px (the paper's 407 M less the classifier and a few), and as
    # much again for the gradient of the images.
    forward = 32 * 2 * 390e6 * (64 / 224) ** 2
    assert found[0][0] / forward == pytest.approx({"cpu": 1, "tpu": 2}[platform], rel=0.15)


def test_every_noise_for_every_image_is_p_times_the_work(one_device):
    config, found = smoke.get_config(), []
    for scope in ("cluster", "all"):
        config.noise.scope = scope
        this = job.check(config, Path(), one_device)
        found.append(cost.lowered_flops(steps.build(this, toy(), Images(24, 0, 0, ""))["noise"]))
    assert 2 < found[1] / found[0] < 3.5  # p is 3; rendering is done once


def test_stand_ins_have_the_published_numbers_of_parameters():
    published = {"clip": 87_849_216, "clip_rn50": 38_316_896, "rn50": 25_557_032 - 2_049_000}
    for name, number in published.items():
        surrogate = stand_ins.load(name, path="", image_size=224)
        leaves = jax.tree_util.tree_flatten_with_path(surrogate.params)[0]
        assert all(isinstance(leaf, jax.ShapeDtypeStruct) for _, leaf in leaves)
        running = ("mean", "var")  # of batch normalisation: torch calls them buffers
        trained = [leaf for path, leaf in leaves if str(path[-1].key) not in running]
        assert sum(math.prod(leaf.shape) for leaf in trained) == number
    assert steps.dimensions(surrogate) == 2048


def test_a_plan_for_photos_ends_with_their_files_and_changes_nothing(toy_surrogate, mesh, tmp_path):
    publish(tmp_path / "photos")
    before = content(tmp_path)
    config = photos()
    config.data.update(short_side=36, crop=32)
    config.clusters.update(k=2, n_init=1, max_iterations=4)
    config.noise.update(epochs=2, batch_size=4)
    listed = files.photos(tmp_path / "photos")
    made = plan.make(config, listed=listed, measured=False, mesh=mesh, say=lambda line: None)
    assert content(tmp_path) == before
    assert {row.stage.cost: row.stage.count for row in made.rows} == {
        "decode": 6, "features": 1, "k-means": 4, "noise": 4, "write": 6, "check": 6,
    }  # fmt: skip
    assert all(row.seconds > 0 for row in made.rows)
    steps_ = [row for row in made.rows if row.stage.cost in ("features", "noise")]
    assert all(row.memory_bytes > 4 * 32 * 32 * 3 // mesh.size for row in steps_)
    sizes = [len(data) for name, data in before.items() if name.startswith("photos/")]
    assert made.files.source_bytes == pytest.approx(np.mean(sizes))
    pixels = np.mean([h * w * 3 for h, w in SIZES])
    assert 0.3 * pixels < made.files.written_bytes < 1.5 * pixels  # noise hardly compresses
    said = plan.text(made)
    assert "6 images to protect" in said
    assert "optimal" not in json.dumps(asdict(made))


def test_a_target_without_its_compiler_is_an_estimate_marked_as_such(toy_surrogate, mesh):
    config = smoke.get_config()
    images = schedule.assume(config, 480)
    target = targets.parse("h100-4")
    made = plan.make(
        config, assumed=images, measured=False, target=target, run=False, mesh=mesh,
        say=lambda line: None,
    )  # fmt: skip
    said = plan.text(made)
    assert "estimate, nothing was compiled for it" in said
    assert "assumed, by --images" in said
    assert "× assumed utilisation of 0.4" in said
    noise_row = next(row for row in made.target_rows if row.step == "noise")
    assert noise_row.count == 2 * 60
    here = next(row for row in made.rows if row.stage.cost == "noise")
    assert here.seconds is None
    expected = 120 * (here.lowered_flops / 4) / (0.4 * 989e12)
    assert noise_row.seconds == pytest.approx(expected)
    assert json.loads(json.dumps(asdict(made)))["target_rows"][1]["memory_bytes"] is None


@pytest.mark.parametrize(
    ("name", "topology", "chips"),
    [
        ("v5e-1", "v5e:1x1", 1), ("v5e-8", "v5e:2x4", 8), ("v5e-256", "v5e:16x16", 256),
        ("v6e-16", "v6e:4x4", 16), ("v4-8", "v4:2x2x1", 4), ("v4-32", "v4:2x2x4", 16),
        ("v5p-128", "v5p:4x4x4", 64), ("H100-6", "", 6),
    ],
)  # fmt: skip
def test_targets_are_named_as_the_cloud_names_them(name, topology, chips):
    target = targets.parse(name)
    assert (target.topology, target.chips) == (topology, chips)


@pytest.mark.parametrize("name", ["v5e", "v5e-3", "v5e-0", "v4-4", "v9-8", "h100-0"])
def test_impossible_targets_are_refused(name):
    with pytest.raises(UserError, match="--target"):
        targets.parse(name)


def test_the_compilers_reason_comes_back_from_the_child():
    config = pets.get_config()
    target = targets.parse("v5e-16")._replace(topology="v5e:nonsense")
    with pytest.raises(UserError, match=r"cannot compile for v5e-16 \(v5e:nonsense\): .+"):
        targets.compile_for(target, config, Images(100, 100, 10, ""))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give a folder of photos, or --config=FILE"),
        (["/nowhere/at/all"], "no pictures under /nowhere/at/all"),
        (["--config=configs/smoke.py", "--target=v5e-3"], "powers of two"),
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
