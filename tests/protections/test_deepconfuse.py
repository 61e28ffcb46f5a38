import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from baselines import fit, images, levels

from ucjax.errors import UserError
from ucjax.networks import confusing
from ucjax.networks.resnet import BatchNorm
from ucjax.protections import deepconfuse
from ucjax.runtime import parallel
from ucjax.runtime.parallel import AXIS

N, EPS = 22, 64
ROW = f"deepconfuse:eps={EPS}:trials=3:epochs=2:batch=8"


class Paint(nn.Module):
    """A generator that compiles in a second."""

    @nn.compact
    def __call__(self, x, *, train):
        return jnp.tanh(BatchNorm(AXIS)(nn.Conv(3, (3, 3))(x), train))


def small(classes, crop, width, epsilon_255, rate=0.05):
    """Tiny networks, and a rate that shows what is learnt in a few steps."""
    classifier = confusing.Stacked(classes, (8, 0), 1, AXIS)
    return deepconfuse.Networks(Paint(), classifier, optax.adam(rate), epsilon_255 / 255)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(deepconfuse, "networks_of", small)


def test_a_generator_makes_noise_and_a_kill_costs_one_trial(tiny, tmp_path, mesh, monkeypatch):
    noise, given = fit(ROW, tmp_path / "a", mesh)
    delta, crops = levels(noise, N), given.images.center_crops(16).astype(np.float32)
    assert 0 < np.abs(delta).max() <= EPS
    assert (crops + delta).min() >= 0
    assert (crops + delta).max() <= 255
    assert noise.image_passes == 3 * 3 * 2 * N + N
    real, calls = deepconfuse._accuracy, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(deepconfuse, "_accuracy", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(ROW, tmp_path / "b", mesh)
    again, _ = fit(ROW, tmp_path / "b", mesh)
    assert len(calls) == 4
    np.testing.assert_array_equal(levels(again, N), delta)


def start(networks, mesh):
    begin, fresh = deepconfuse._make_init(networks, 16, mesh)
    state = begin(parallel.replicate(np.uint32(0), mesh))
    classifier = fresh(parallel.replicate(np.array([0, 0], np.uint32), mesh))
    found = images(8, 16)
    rows = parallel.shard((found.center_crops(16), found.labels), mesh)
    return state, classifier, rows


def test_the_look_ahead_is_the_gradient_through_a_step_of_the_classifier(mesh):
    """Against the definition on one device, its statistics by hand."""
    networks = small(2, 16, 0, EPS)._replace(optimizer=optax.sgd(1.0))
    state, classifier, rows = start(networks, mesh)
    (target, _), moved, loss = deepconfuse.make_step(networks, mesh)(
        (state.target, state.optimizer), state.attack, classifier, *rows
    )
    state, classifier, target, moved, crops, labels = jax.tree.map(
        np.asarray, (state, classifier, target, moved, *rows)
    )
    pixels = crops.astype(np.float32) / 255

    def clean_loss(params):
        """Of clean images, after a step of the classifier on noisy ones."""
        noisy = _painted(params, pixels)
        gradient = jax.grad(lambda w: _loss(w, classifier, noisy, labels))(classifier.params)
        ahead = jax.tree.map(lambda w, g: w - 0.01 * g, classifier.params, gradient)
        return _loss(ahead, classifier, pixels, labels)

    value, uphill = jax.value_and_grad(clean_loss)(state.target.params)
    assert float(np.asarray(loss)) == pytest.approx(float(value), rel=1e-4)
    step = jax.tree.map(np.subtract, target.params, state.target.params)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(uphill))
    assert largest > 1e-5
    for ours, expected in zip(jax.tree.leaves(step), jax.tree.leaves(uphill), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0.02, atol=0.02 * largest)
    # The classifier itself learns from the frozen generator's noise, by running statistics.
    frozen = Paint().apply({"params": state.attack.params, "batch_stats": state.attack.stats},
                           pixels, train=False)  # fmt: skip
    noisy = np.clip(pixels + EPS / 255 * np.asarray(frozen), 0, 1)
    gradient = jax.grad(lambda w: _loss(w, classifier, noisy, labels))(classifier.params)
    for ours, before, g in zip(*map(jax.tree.leaves, (moved.params, classifier.params, gradient)),
                               strict=True):  # fmt: skip
        np.testing.assert_allclose(ours, before - 0.01 * g, rtol=1e-4, atol=1e-6)


def _painted(params, pixels):
    """The noisy images of `Paint`, with the batch's statistics by hand."""
    x = nn.Conv(3, (3, 3)).apply({"params": params["Conv_0"]}, pixels)
    normed = (x - x.mean((0, 1, 2), keepdims=True)) / jnp.sqrt(
        x.var((0, 1, 2), keepdims=True) + 1e-5
    )
    norm = params["BatchNorm_0"]
    shown = jnp.tanh(normed * norm["scale"].reshape(1, 1, 1, 3) + norm["bias"].reshape(1, 1, 1, 3))
    return jnp.clip(pixels + EPS / 255 * shown, 0, 1)


def _loss(params, of, pixels, labels):
    judge = confusing.Stacked(2, (8, 0), 1, None)
    variables = {"params": params, "batch_stats": of.stats}
    logits, _ = judge.apply(variables, pixels, train=True, mutable=["batch_stats"])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@pytest.mark.parametrize(("crop", "generator"), [(32, 64), (224, 16)])
def test_the_papers_networks_fit_their_images(crop, generator):
    networks = deepconfuse.networks_of(10, crop, 64, 16)
    assert networks.generator.width == generator
    image = jax.ShapeDtypeStruct((1, crop, crop, 3), np.float32)
    for net, shape in ((networks.generator, (1, crop, crop, 3)), (networks.classifier, (1, 10))):
        variables = jax.eval_shape(
            functools.partial(net.init, train=False), jax.random.key(0), image
        )
        out = jax.eval_shape(functools.partial(net.apply, train=False), variables, image)
        assert out.shape == shape
    if crop == 32:  # VGG-11 with BatchNorm: 9,231,114 with torch's one linear layer
        size = sum(x.size for x in jax.tree.leaves(variables["params"]))
        assert size == 9_231_114


def test_what_cannot_be_made_is_refused(tmp_path, mesh):
    for row, side, message in (
        ("deepconfuse:trials=0", 16, "trials of row deepconfuse is 0"),
        ("deepconfuse", 20, "the crop of 20 px is no multiple of 8"),
    ):
        with pytest.raises(UserError, match=message):
            fit(row, tmp_path, mesh, side=side)
