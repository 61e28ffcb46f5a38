"""What a step does with optimizers, schedules, models and losses other than the paper's."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_training import SPEC, TEST, TRAIN, Interrupted, StopsAfter, run

from ucjax.runtime import checkpoint, parallel
from ucjax.victims import step as steps
from ucjax.victims import table, training
from ucjax.victims.contract import Model, Recipe
from ucjax.victims.models.vit import ViT


def replaced(**changes):
    return dataclasses.replace(SPEC, **changes)


@pytest.fixture
def restored():
    """Takes out of the tables what a test puts in, and forgets what was compiled with it."""
    before = dict(table.MODELS), dict(table.RECIPES)
    yield
    steps.compile_victim.cache_clear()
    for kind, entries in zip((table.MODELS, table.RECIPES), before, strict=True):
        kind.clear()
        kind.update(entries)


def test_rates_without_a_warm_up_are_a_cosine():
    rate = steps.learning_rate(replaced(final_learning_rate=0.02), 30)
    expected = [0.02 + 0.08 * (1 + np.cos(np.pi * i / 30)) / 2 for i in range(31)]
    np.testing.assert_allclose([rate(i) for i in range(31)], expected, rtol=1e-5)


@pytest.mark.parametrize("warmup", [1, 2])
def test_rates_rise_over_the_warm_up(warmup):
    spec, steps_an_epoch = replaced(warmup_epochs=warmup, epochs=5), 4
    rates = np.array([steps.learning_rate(spec, 20)(i) for i in range(20)])
    rising = warmup * steps_an_epoch
    np.testing.assert_allclose(rates[:rising], 0.1 * np.arange(1, rising + 1) / rising, rtol=1e-5)
    rest = 20 - rising
    expected = [0.1 * (1 + np.cos(np.pi * i / rest)) / 2 for i in range(rest)]
    np.testing.assert_allclose(rates[rising:], expected, rtol=1e-5, atol=1e-8)


def test_a_warm_up_of_one_step_is_none():
    spec = replaced(warmup_epochs=1, epochs=3)
    rates = [steps.learning_rate(spec, 3)(i) for i in range(3)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.05], rtol=1e-5)


def sgd(x, grads, rates):
    """torch.optim.SGD(momentum=0.9, weight_decay=0.05), by hand."""
    memory = np.zeros_like(x)
    for g, rate in zip(grads, rates, strict=True):
        memory = 0.9 * memory + g + 0.05 * x
        x = x - rate * memory
    return x


def adamw(x, grads, rates):
    """torch.optim.AdamW(weight_decay=0.05), by hand."""
    m = v = np.zeros_like(x)
    for t, (g, rate) in enumerate(zip(grads, rates, strict=True), start=1):
        x = x - rate * 0.05 * x
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return x


@pytest.mark.parametrize("by_hand", [sgd, adamw])
def test_optimizers_are_torchs(by_hand):
    rng = np.random.default_rng(0)
    x, grads = rng.normal(size=5), rng.normal(size=(6, 5))
    optimizer = steps.make_optimizer(replaced(optimizer=by_hand.__name__), 10)
    params = jnp.asarray(x, jnp.float32)
    state = optimizer.init(params)
    for g in grads:
        updates, state = optimizer.update(jnp.asarray(g, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
    rates = [0.1 * (1 + np.cos(np.pi * i / 10)) / 2 for i in range(6)]
    np.testing.assert_allclose(params, by_hand(x, grads, rates), rtol=1e-4)


@pytest.mark.parametrize("by_hand", [sgd, adamw])
def test_clipped_gradients_are_torchs(by_hand):
    """As torch.nn.utils.clip_grad_norm_: of all parameters together, and only the longer ones."""
    rng = np.random.default_rng(0)
    x, grads = (
        rng.normal(size=(2, 5)),
        rng.normal(size=(6, 2, 5)) * np.geomspace(0.1, 10, 6)[:, None, None],
    )
    optimizer = steps.make_optimizer(replaced(optimizer=by_hand.__name__, clip_norm=1.5), 10)
    params = dict(zip("ab", jnp.asarray(x, jnp.float32), strict=True))
    state = optimizer.init(params)
    for g in grads:
        given = dict(zip("ab", jnp.asarray(g, jnp.float32), strict=True))
        updates, state = optimizer.update(given, state, params)
        params = optax.apply_updates(params, updates)
    norms = np.sqrt(np.square(grads).sum((1, 2)))
    assert norms.min() < 1.5 < norms.max()
    clipped = grads * np.minimum(1.5 / norms, 1)[:, None, None]
    rates = [0.1 * (1 + np.cos(np.pi * i / 10)) / 2 for i in range(6)]
    expected = by_hand(x, clipped, rates)
    np.testing.assert_allclose(np.stack([params["a"], params["b"]]), expected, rtol=1e-4)


def shallow_vit(dropout=0.0):
    def make(classes, width):
        return ViT(classes, width, 2, 1, dropout=dropout, axis_name=parallel.AXIS)

    return Model("", make)


VIT = replaced(
    model="shallow", width=8, optimizer="adamw", learning_rate=0.01, warmup_epochs=1,
    recipes=("mixup_paper",),
)  # fmt: skip


def test_a_model_without_batch_norm_trains_and_goes_on(restored, tmp_path, mesh, monkeypatch):
    table.MODELS["shallow"] = shallow_vit(dropout=0.1)
    monkeypatch.setattr(training, "_CHECKPOINT_SECONDS", 0.0)
    expected = run(tmp_path / "whole", mesh, spec=VIT)
    assert expected.peak >= 0.9
    with pytest.raises(Interrupted):
        run(tmp_path / "killed", mesh, spec=VIT, metrics=StopsAfter(2))
    assert run(tmp_path / "killed", mesh, spec=VIT) == expected
    whole, killed = (
        (tmp_path / name / "victim.safetensors").read_bytes() for name in ("whole", "killed")
    )
    assert whole == killed


def trained(spec, mesh, count=4):
    """The state after a few steps on the same batch, on the host."""
    programs = steps.make_programs(spec, 3, 30, mesh)
    seed = parallel.replicate(np.uint32(5), mesh)
    state, losses = programs.init(seed), []
    images, labels = TRAIN.center_crops(16, list(range(16))), TRAIN.labels[:16]
    for _ in range(count):
        state, (loss, _) = programs.step(state, *parallel.shard((images, labels), mesh), seed)
        losses.append(float(loss))
    return parallel.to_host(state), losses


def assert_near(ours, theirs, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs)


def test_dropout_and_recipes_do_not_depend_on_the_devices(restored, mesh, one_device):
    table.MODELS["shallow"] = shallow_vit(dropout=0.5)
    # SGD: Adam divides by gradients that are rounding.
    spec = replaced(model="shallow", width=8, recipes=("mixup", "cutout"))
    shared, losses = trained(spec, mesh)
    alone, _ = trained(spec, one_device)
    assert_near(shared.params, alone.params, rtol=1e-3, atol=1e-4)
    table.MODELS["shallow"] = shallow_vit()
    without = trained(spec, mesh)[1]
    assert np.abs(np.subtract(losses, without)).max() > 1e-3


class BodyAndHead(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, *, train):
        features = nn.Dense(4, name="body")(x.mean((1, 2)))
        return nn.Dense(self.classes, name="head")(nn.tanh(features))


KERNEL = np.arange(12, dtype=np.float32).reshape(3, 4) / 10


def with_kernel(variables):
    body = variables["params"]["body"] | {"kernel": KERNEL}
    return {"params": variables["params"] | {"body": body}}


def test_a_probe_starts_from_weights_and_trains_its_head_alone(
    restored, tmp_path, mesh, monkeypatch
):
    table.MODELS["probe"] = Model(
        "", lambda classes, width: BodyAndHead(classes), start=with_kernel,
        trainable=lambda path: path[0] == "head",
    )  # fmt: skip
    monkeypatch.setattr(training, "_CHECKPOINT_SECONDS", 0.0)
    result = run(tmp_path, mesh, spec=replaced(model="probe", learning_rate=0.3, epochs=6))
    assert result.peak >= 0.9
    saved = checkpoint.load_arrays(tmp_path / "victim.safetensors")
    # Not even the weight decay touches the others.
    np.testing.assert_array_equal(saved["state/params/body/kernel"], KERNEL)
    assert np.abs(saved["state/params/head/bias"]).max() > 0
    memory = [name for name in saved if name.startswith("state/opt_state") and "kernel" in name]
    assert [name for name in memory if "body" in name] == []
    assert len(memory) == 1


def test_all_of_a_started_model_trains_without_trainable(restored, mesh):
    table.MODELS["tuned"] = Model("", lambda classes, _: BodyAndHead(classes), start=with_kernel)
    programs = steps.make_programs(replaced(model="tuned"), 3, 30, mesh)
    before = programs.init(parallel.replicate(np.uint32(5), mesh))
    np.testing.assert_array_equal(before.params["body"]["kernel"], KERNEL)
    after, _ = trained(replaced(model="tuned"), mesh)
    assert np.abs(after.params["body"]["kernel"] - KERNEL).max() > 1e-3


def test_a_recipe_may_replace_the_loss(restored, mesh):
    """Written out again, the loss is the default one; another one is seen in the result."""

    def plain(forward, images, targets, key):
        logits, stats = forward(images, train=True)
        return -(targets * jax.nn.log_softmax(logits)).sum(1).mean(), logits, stats

    def twice(forward, images, targets, key):
        loss, logits, stats = plain(forward, images, targets, key)
        return 2 * loss, logits, stats

    def frozen_statistics(forward, images, targets, key):
        logits, stats = forward(images, train=False)
        return optax.softmax_cross_entropy(logits, targets).mean(), logits, stats

    for loss in (plain, twice, frozen_statistics):
        table.RECIPES[loss.__name__] = Recipe("", loss=loss)
    default, losses = trained(SPEC, mesh, 1)
    ours, again = trained(replaced(recipes=("plain",)), mesh, 1)
    np.testing.assert_allclose(again, losses, rtol=1e-6)
    assert_near(ours.params, default.params, rtol=1e-3, atol=1e-5)
    _, doubled = trained(replaced(recipes=("twice",)), mesh, 1)
    np.testing.assert_allclose(doubled, 2 * np.array(losses), rtol=1e-6)
    still, _ = trained(replaced(recipes=("frozen_statistics",)), mesh, 1)
    start = steps.make_programs(SPEC, 3, 30, mesh).init(parallel.replicate(np.uint32(5), mesh))
    assert_near(still.batch_stats, start.batch_stats, rtol=0)
    assert np.abs(default.batch_stats["bn1"]["mean"]).max() > 0


def test_mixed_labels_reach_the_loss(mesh):
    _, plain = trained(SPEC, mesh, 1)
    _, mixed = trained(replaced(recipes=("mixup",)), mesh, 1)
    assert abs(plain[0] - mixed[0]) > 1e-3


def test_the_test_set_is_unchanged_by_recipes(tmp_path, mesh):
    """Recipes belong to training: an untrained victim's test does not depend on them."""
    accuracies = []
    for recipes in ((), ("mixup", "cutout")):
        spec = replaced(recipes=recipes)
        programs = steps.make_programs(spec, 3, 30, mesh)
        state = programs.init(parallel.replicate(np.uint32(5), mesh))
        images, mask = parallel.pad(TEST.center_crops(16), 16)
        labels = np.append(TEST.labels, TEST.labels[-1:].repeat(3))
        batch = parallel.shard((images, labels, mask), mesh)
        accuracies.append(float(programs.test(state, *batch)))
    assert accuracies[0] == accuracies[1]
