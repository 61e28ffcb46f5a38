"""Rows em, emax and aue: noise and network in turn."""

import dataclasses
import json

import numpy as np
import pytest
from baselines import fit, images, levels, tiny_normed

from ucjax.errors import UserError
from ucjax.protections import crafting, pgd, rounds

N = 22
EM = "em:batch=8:updates=6:steps=5:rounds=40"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(crafting, "resnet18", tiny_normed)


def random_labels():
    """Images that show nothing of their labels, so that noise alone can tell."""
    labels = np.random.default_rng(7).integers(0, 2, N).astype(np.int32)
    return dataclasses.replace(images(N, 16, 1), labels=labels, class_names=("a", "b"))


def errors(folder):
    return json.loads((folder / "rounds.json").read_text())["error"]


def likeness(delta, labels):
    """Mean correlation of the noise of two images of one class, and of two classes."""
    flat = delta.reshape(len(delta), -1)
    found = np.corrcoef(flat)
    same = labels[:, None] == labels
    return found[same & ~np.eye(len(labels), dtype=bool)].mean(), found[~same].mean()


def test_em_ends_when_the_network_errs_no_more_and_goes_on_after_a_kill(
    tmp_path, mesh, monkeypatch
):
    given = {"images": random_labels()}
    noise, _ = fit(EM, tmp_path / "a", mesh, **given)
    curve = errors(tmp_path / "a")
    assert curve[-1] <= 0.01 < min([1.0, *curve[:-1]])
    delta = levels(noise, N)
    assert np.abs(delta).max() <= 16
    within, between = likeness(delta, given["images"].labels)
    assert within > 0.1 > between
    assert noise.image_passes == len(curve) * (6 * 8 + 5 * N)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "metrics.jsonl", "noise.int8", "rounds.json",
    ]  # fmt: skip
    real, calls = pgd.make_pgd, []

    def fragile(*args):
        program = real(*args)

        def attack(*args):
            calls.append(1)
            if len(calls) == 2:  # in the midst of the first round
                raise KeyboardInterrupt
            return program(*args)

        return attack

    monkeypatch.setattr(pgd, "make_pgd", fragile)
    with pytest.raises(KeyboardInterrupt):
        fit(EM, tmp_path / "b", mesh, **given)
    again, _ = fit(EM, tmp_path / "b", mesh, **given)
    assert errors(tmp_path / "b") == curve
    np.testing.assert_array_equal(levels(again, N), delta)


def test_em_of_classes_is_one_noise_per_class(tmp_path, mesh, monkeypatch):
    row = "em:per=class:batch=8:updates=4:rounds=60"
    given = {"images": random_labels()}
    noise, _ = fit(row, tmp_path / "a", mesh, **given)
    np.testing.assert_array_equal(noise.row, given["images"].labels)
    assert noise.clusters is None
    assert errors(tmp_path / "a")[-1] <= 0.1
    two = np.stack([noise.patterns.of(c) for c in range(2)])
    assert 0 < np.abs(two).max() <= 16 / 255 + 1e-6
    assert np.corrcoef(two.reshape(2, -1))[0, 1] < 0
    real, calls = rounds._Loop.note, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 2:  # saved, but not written down
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(rounds._Loop, "note", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(row, tmp_path / "b", mesh, **given)
    again, _ = fit(row, tmp_path / "b", mesh, **given)
    np.testing.assert_array_equal(np.stack([again.patterns.of(c) for c in range(2)]), two)


def test_emax_ends_when_the_network_errs_on_nearly_all(tmp_path, mesh):
    noise, given = fit("emax:eps=100:batch=8:epochs=8:steps=6", tmp_path, mesh)
    curve = errors(tmp_path)
    assert curve[-1] >= 0.9 > max([0.0, *curve[:-1]])
    assert noise.image_passes == (8 + 6 * len(curve)) * N
    delta, bright = levels(noise, N), given.images.labels == 1
    assert delta[bright].mean() < 0 < delta[~bright].mean(), "towards the other class"


def test_aue_takes_its_epochs(tmp_path, mesh):
    given = {"images": random_labels()}
    noise, _ = fit("aue:batch=8:epochs=6:strength=0.3", tmp_path, mesh, **given)
    assert len(errors(tmp_path)) == 6
    assert noise.image_passes == 6 * (24 + 5 * N)
    within, between = likeness(levels(noise, N), given["images"].labels)
    assert within > between + 0.05


def test_what_cannot_be_made_is_refused(tmp_path, mesh):
    for row, message in (
        ("em:per=pixel", "unknown per of row .* 'pixel'"),
        ("em:updates=0", "updates of row em is 0"),
        ("em:rounds=0", "the rounds of a row are 0"),
        ("aue:strength=2", "strength of a row is 2"),
        ("emax:eps=0", "eps of a row is 0"),
    ):
        with pytest.raises(UserError, match=message):
            fit(row, tmp_path, mesh)
