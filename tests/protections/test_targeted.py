"""Rows em_frozen, tap and aap: noise against a network that is frozen while it is made."""

import jax
import numpy as np
import pytest
from baselines import fit, levels, surrogate, tiny_network

from ucjax.errors import UserError
from ucjax.protections import crafting, pgd
from ucjax.runtime import checkpoint

N = 22


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(crafting, "resnet18", tiny_network)


def probabilities(logits):
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_em_frozen_moves_the_heads_belief(direction, tmp_path, mesh):
    row = f"em_frozen:direction={direction}:eps=8:batch=8"
    noise, given = fit(row, tmp_path, mesh)
    delta, crops = levels(noise, N), given.images.center_crops(16).astype(np.float32)
    assert np.abs(delta).max() == 8
    assert (crops + delta).min() >= 0
    assert (crops + delta).max() <= 255
    head = surrogate(16)
    before, after = (
        probabilities(np.asarray(head.logits(head.params, x / 255))) for x in (crops, crops + delta)
    )
    own = before.argmax(1)
    gain = after[range(N), own] - before[range(N), own]
    assert (gain > 0).all() if direction == "down" else (gain < 0).all()
    assert noise.image_passes == 20 * N
    again, _ = fit(row, tmp_path, mesh, surrogate=lambda: pytest.fail("it is there"))
    np.testing.assert_array_equal(levels(again, N), delta)


def test_em_frozen_needs_a_head(tmp_path, mesh):
    with pytest.raises(UserError, match="has no ImageNet classifier"):
        fit("em_frozen", tmp_path, mesh, surrogate=lambda: surrogate(16, head=False))
    with pytest.raises(UserError, match="labels of row em_frozen 'true'"):
        fit("em_frozen:labels=true", tmp_path, mesh)


@pytest.mark.parametrize("row", ["tap:eps=110", "aap:eps=110:strength=0.4"])
def test_the_network_takes_images_for_the_next_class(row, tmp_path, mesh, one_device):
    row = f"{row}:epochs=12:steps=30:batch=8"
    noise, given = fit(row, tmp_path / "a", mesh, classes=3)
    own = given.images.labels
    network = tiny_network(3, 16, 0)
    weights = checkpoint.load_arrays(tmp_path / "a" / "network.safetensors")
    params = {
        "conv": {"kernel": weights["state/params/conv/kernel"]},
        "fc": {k: weights[f"state/params/fc/{k}"] for k in ("kernel", "bias")},
    }
    crops, delta = given.images.center_crops(16).astype(np.float32), levels(noise, N)
    assert np.abs(delta).max() == 110
    clean, seen = (
        np.asarray(network.logits(params, {}, x / 255)).argmax(1) for x in (crops, crops + delta)
    )
    assert (clean == own).mean() > 0.8
    assert (seen == (own + 1) % 3).mean() > 0.8
    assert noise.image_passes == (12 + 30) * N
    if row.startswith("aap"):
        return  # the same code, and it takes a while to compile
    alone, _ = fit(row, tmp_path / "b", one_device, classes=3)
    assert (levels(alone, N) != delta).mean() < 0.02, "but for gradients that are nearly 0"


def test_of_restarts_each_image_keeps_the_best(tmp_path, mesh, monkeypatch):
    found = []

    def spied(loss, attack, mesh):
        program = make(loss, attack, mesh)

        def pgd_(*args):
            result = program(*args)
            found.append(jax.tree.map(np.asarray, result))
            return result

        return pgd_

    make = pgd.make_pgd
    monkeypatch.setattr(pgd, "make_pgd", spied)
    noise, _ = fit("tap:epochs=2:steps=2:restarts=3:batch=8", tmp_path, mesh)
    best = np.argmin([losses for _, losses in found], axis=0)
    assert len(set(best[:N])) > 1
    expected = np.stack([found[b][0][i] for i, b in enumerate(best[:N])])
    np.testing.assert_array_equal(np.rint(levels(noise, N)), expected)
