import dataclasses

import jax
import numpy as np
import pytest
from tiny import Tiny

from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.runtime import checkpoint, parallel
from ucjax.runtime.progress import MetricsFile, Progress
from ucjax.victims import step as victim_step
from ucjax.victims import training as victim_train
from ucjax.victims.contract import VictimSpec

SPEC = VictimSpec(
    model="tiny", recipes=(), width=4, epochs=3, batch_size=16, optimizer="sgd",
    learning_rate=0.1, final_learning_rate=0.0, warmup_epochs=0, momentum=0.9, weight_decay=0.05,
    short_side=18, crop=16, mean=(0.5, 0.4, 0.3), std=(0.5, 0.6, 0.7), flip=True,
)  # fmt: skip
COLOURS = np.array([(200, 60, 60), (60, 200, 60), (60, 60, 200)])


def colored(count, seed):
    """Noisy images in the colour of their class, 18 wide and 18 to 24 high or the other way."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % 3
    lengths = rng.integers(18, 25, count)
    images = [
        rng.normal(COLOURS[y], 50, (long, 18, 3)).clip(0, 255).astype(np.uint8)
        for y, long in zip(labels, lengths, strict=True)
    ]
    return ImageSet(
        rows=np.concatenate(images),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        wide=rng.random(count) < 0.5,
        labels=labels,
        names=tuple(f"{i:03d}.png" for i in range(count)),
        class_names=("red", "green", "blue"),
    )


TRAIN, TEST = colored(156, seed=0), colored(13, seed=1)
TOTAL_STEPS = 3 * 10


class Interrupted(Exception):
    pass


class StopsAfter:
    """Metrics that end the run, as a kill would, when an epoch is reported."""

    def __init__(self, epoch):
        self._epoch = epoch

    def write(self, stage, step, **values):
        if step == self._epoch:
            raise Interrupted


def run(tmp_path, mesh, *, metrics=None, spec=SPEC, train=TRAIN, test=TEST):
    return victim_train.train(
        train, test, spec, seed=5, mesh=mesh, checkpoint=tmp_path / "victim.safetensors",
        metrics=metrics or MetricsFile(tmp_path / "metrics.jsonl"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, mesh):
    """The result of a run that saved every epoch, and its folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(victim_train, "_CHECKPOINT_SECONDS", 0.0)
        return run(folder, mesh), folder


def test_learns_colors(undisturbed):
    result, folder = undisturbed
    assert len(result.curve) == SPEC.epochs
    assert result.last == result.curve[-1].test_accuracy
    assert result.peak == max(record.test_accuracy for record in result.curve) >= 0.9
    assert result.curve[-1].train_accuracy > 0.8
    assert result.curve[-1].train_loss < result.curve[0].train_loss
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == SPEC.epochs


@pytest.mark.parametrize("epoch", [2, 3])
def test_an_interrupted_run_ends_with_the_same_bytes(
    undisturbed, tmp_path, mesh, monkeypatch, epoch
):
    expected, folder = undisturbed
    monkeypatch.setattr(victim_train, "_CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        run(tmp_path, mesh, metrics=StopsAfter(epoch))
    file = "victim.safetensors"
    assert (tmp_path / file).read_bytes() != (folder / file).read_bytes()
    assert run(tmp_path, mesh) == expected
    assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_a_finished_checkpoint_trains_no_more(undisturbed, mesh):
    expected, folder = undisturbed
    assert run(folder, mesh, metrics=StopsAfter(SPEC.epochs)) == expected


def test_short_runs_write_no_checkpoint(tmp_path, mesh):
    run(tmp_path, mesh)
    assert not (tmp_path / "victim.safetensors").exists()


def test_a_loss_that_is_not_finite_stops_the_run(undisturbed, tmp_path, mesh):
    programs = victim_step.compile_victim(SPEC, 3, TOTAL_STEPS, mesh)
    state = parallel.to_host(programs.init(parallel.replicate(np.uint32(5), mesh)))
    state.params["fc"]["bias"] = np.full(3, np.nan, np.float32)
    tree = {"state": state._replace(step=np.int32(10)), "curve": np.zeros((3, 3))}
    checkpoint.save_tree(tmp_path / "victim.safetensors", tree)
    with pytest.raises(UserError, match=r"nan at step 1 of 10 of epoch 2: lower .*\(now 0.1\)"):
        run(tmp_path, mesh)


def normalized(images):
    pixels = (images / 255 - np.array([[[SPEC.mean]]])) / np.array([[[SPEC.std]]])
    return pixels.astype(np.float32)


def plain_sgd(net, state, images, labels, steps):
    """The recipe in one place and on one device, torch's SGD and the cosine written out."""

    def loss(params, stats):
        logits, updates = net.apply(
            {"params": params, "batch_stats": stats}, normalized(images), train=True,
            mutable=["batch_stats"],
        )  # fmt: skip
        log_p = jax.nn.log_softmax(logits)[np.arange(len(labels)), labels]
        return -log_p.mean(), updates["batch_stats"]

    rates = [SPEC.learning_rate * (1 + np.cos(np.pi * i / TOTAL_STEPS)) / 2 for i in range(steps)]

    @jax.jit
    def update(params, stats, memory, rate):
        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params, stats)
        memory = jax.tree.map(
            lambda m, g, p: SPEC.momentum * m + g + SPEC.weight_decay * p, memory, grads, params
        )
        return jax.tree.map(lambda p, m: p - rate * m, params, memory), stats, memory, value

    params, stats = parallel.to_host((state.params, state.batch_stats))
    memory, losses = jax.tree.map(np.zeros_like, params), []
    for rate in rates:
        params, stats, memory, value = update(params, stats, memory, rate)
        losses.append(float(value))
    return losses, params, stats


def test_steps_on_four_devices_equal_plain_sgd(mesh):
    images, labels = TRAIN.center_crops(16, list(range(16))), TRAIN.labels[:16]
    images = np.maximum(images, images[:, :, ::-1])  # So that flips change nothing.
    seed = parallel.replicate(np.uint32(5), mesh)
    programs = victim_step.compile_victim(SPEC, 3, TOTAL_STEPS, mesh)
    state = programs.init(seed)
    losses, params, stats = plain_sgd(Tiny(3, SPEC.width), state, images, labels, steps=3)
    ours = []
    for _ in losses:
        state, (value, _) = programs.step(state, *parallel.shard((images, labels), mesh), seed)
        ours.append(float(value))
    np.testing.assert_allclose(ours[0], losses[0], rtol=1e-5)
    # At this learning rate rounding grows from step to step.
    np.testing.assert_allclose(ours, losses, rtol=1e-3)
    assert np.ptp(losses) > 0.1
    for got, expected in ((state.params, params), (state.batch_stats, stats)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), got, expected
        )


def test_accuracy_counts_every_test_image_once(tmp_path, mesh):
    programs = victim_step.compile_victim(SPEC, 3, TOTAL_STEPS, mesh)
    state = programs.init(parallel.replicate(np.uint32(5), mesh))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = jax.jit(lambda v, x: Tiny(3, SPEC.width).apply(v, x, train=False))(
        parallel.to_host(variables), normalized(TEST.center_crops(16))
    )
    predicted = np.argmax(logits, -1)
    # Wrong for the last image alone: its copies in the padding must not count.
    labels = np.append(predicted[:-1], 2 - predicted[-1] // 2).astype(np.int32)
    test = dataclasses.replace(TEST, labels=labels)
    cell = victim_train.Cell(TRAIN, test, 5, tmp_path / "victim.safetensors")
    place = {"mesh": mesh, "metrics": MetricsFile(tmp_path / "metrics.jsonl"), "progress": Progress}
    for batch_size in (4, 16):
        spec = dataclasses.replace(SPEC, batch_size=batch_size)
        running = victim_train._begin(cell, spec, programs, budget_bytes=None, **place)
        for rows, expected in ((None, 12 / 13), (np.array([11, 12]), 1 / 2)):
            accuracy = victim_train._test_accuracy(programs, running, rows, spec, mesh)
            assert accuracy == pytest.approx(expected)


@pytest.mark.parametrize(("count", "steps"), [(16, 2), (13, 2), (5, 1)])
def test_an_epoch_sees_every_image(count, steps):
    batches = victim_train.epoch_batches(count, 8, seed=0, epoch=0)
    assert batches.shape == (steps, 8)
    times = np.bincount(batches.ravel(), minlength=count)
    assert times.min() >= 1
    assert times.max() - times.min() <= 1
    assert (batches != victim_train.epoch_batches(count, 8, seed=0, epoch=1)).any()
    assert (batches != victim_train.epoch_batches(count, 8, seed=1, epoch=0)).any()


def replaced(**changes):
    return dataclasses.replace(SPEC, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"spec": replaced(batch_size=18)},
            "batch_size is 18, not divisible by the 4 devices: try 16",
        ),
        ({"spec": replaced(batch_size=0)}, "batch_size is 0"),
        ({"spec": replaced(model="resnet19")}, "model 'resnet19': did you mean resnet18?"),
        ({"spec": replaced(recipes=("mixip",))}, "recipe 'mixip': did you mean mixup"),
        ({"spec": replaced(optimizer="adam")}, "optimizer 'adam': did you mean adamw"),
        ({"spec": replaced(warmup_epochs=3)}, "warmup_epochs is 3 and config.victim.epochs 3"),
        ({"spec": replaced(clip_norm=-1.0)}, "clip_norm is -1: give a norm, or 0"),
        ({"spec": replaced(learning_rate=0.0)}, "learning_rate is 0 and final_learning_rate 0"),
        ({"spec": replaced(final_learning_rate=0.2)}, "learning_rate is 0.1 and final.* 0.2"),
        ({"spec": replaced(crop=20)}, "crop is 20 and config.victim.short_side 18"),
        (
            {"spec": replaced(model="vit_tiny", crop=15)},
            "15 px do not divide into patches of 4 px: config.victim.crop may be 12",
        ),
        ({"spec": replaced(short_side=32)}, "training images is 18 pixels, the victim's 32"),
        (
            {"train": dataclasses.replace(TRAIN, labels=np.full(156, -1, np.int32))},
            "156 of 156 training images have no label",
        ),
        (
            {"test": dataclasses.replace(TEST, names=(), labels=TEST.labels[:0])},
            "there are no test images",
        ),
        (
            {"test": dataclasses.replace(TEST, class_names=("a", "b"))},
            "training images have 3 classes and the test images 2",
        ),
    ],
)
def test_mistakes_are_explained(tmp_path, mesh, changes, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, mesh, **changes)
