import json

import jax
import numpy as np
import pytest
from baselines import fit, give, levels

from ucjax.errors import UserError
from ucjax.protections import augmentations, crafting, pil

ROW = "pil:epochs=20:steps=12:batch=8"


def test_the_linear_model_learns_and_the_noise_shows_its_classes(tmp_path, mesh):
    noise, given = fit(ROW, tmp_path, mesh)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["accuracy"] > 0.9 > 0.5, "chance is a half"
    assert noise.image_passes == (20 + 12) * 22
    delta = levels(noise, 22)
    assert np.abs(delta).max() == 16
    labels, classes = given.images.labels, 2
    network = pil.linear(classes)
    state = crafting.train_clean(
        given, labels, network, pil.optimizer(given, 22), augmentations.unchanged,
        batch=8, epochs=20,
    )  # fmt: skip
    kernel = np.asarray(state.params["Dense_0"]["kernel"])
    logits = (-delta.reshape(22, -1) / 255) @ kernel
    assert (logits.argmax(1) == labels).all(), "what is subtracted shows the class"


def test_the_loss_is_that_of_the_paper():
    """Against log and exp by hand, in float64."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(48, 3)).astype(np.float32)
    crops, noise = (rng.random((5, 4, 4, 3), np.float32) for _ in range(2))
    own = np.array([0, 1, 2, 1, 0])
    loss = pil.loss_of(pil.linear(3))({"Dense_0": {"kernel": kernel}}, crops, noise, own, None)

    def softmax(x):
        shares = np.exp(x.reshape(5, -1).astype(np.float64) @ kernel)
        return shares / shares.sum(1, keepdims=True)

    shown = -np.log(softmax(noise)[range(5), own])
    uniform = np.full(3, 1 / 3)
    kl = (uniform * (np.log(uniform) - np.log(softmax(crops - noise)))).sum(1)
    np.testing.assert_allclose(loss, 0.9 * shown + 0.1 * kl, rtol=1e-4)


def test_devices_and_kills_change_nothing(tmp_path, mesh, one_device, monkeypatch):
    first, _ = fit(ROW, tmp_path / "a", mesh)
    alone, _ = fit(ROW, tmp_path / "b", one_device)
    other = levels(alone, 22) != levels(first, 22)
    assert other.mean() < 0.01, "but for signs of gradients that are nearly 0"
    monkeypatch.setattr(crafting, "_SECONDS_BETWEEN_CHECKPOINTS", -1)
    real, calls = crafting.Batches.train, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(crafting.Batches, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(ROW, tmp_path / "c", mesh)
    again, _ = fit(ROW, tmp_path / "c", mesh)
    assert len(calls) == 6 + 1 + 14
    np.testing.assert_array_equal(levels(again, 22), levels(first, 22))


def test_what_cannot_be_made_is_refused(tmp_path, mesh):
    for row, message in (
        ("pil:eps=128", "eps of a row is 128"),
        ("pil:steps=0", "steps of a row is 0"),
        ("pil:epochs=0", "epochs of a row is 0"),
        ("pil:batch=0", "batch of a row is 0"),
    ):
        with pytest.raises(UserError, match=message):
            fit(row, tmp_path, mesh)


def test_the_rate_is_divided_by_the_number_of_inputs(tmp_path, mesh):
    steps = {}
    for side in (32, 64):
        given = give("pil", tmp_path, mesh, side=side)
        optimizer = pil.optimizer(given, 22)
        params = {"w": jax.numpy.zeros(1)}
        update, _ = optimizer.update({"w": jax.numpy.ones(1)}, optimizer.init(params), params)
        steps[side] = float(update["w"][0])
    assert steps[32] == pytest.approx(-0.003)
    assert steps[64] == pytest.approx(-0.003 / 4)
