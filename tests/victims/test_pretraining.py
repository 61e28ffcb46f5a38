"""SimCLR: its loss against the formula, its steps on one and four devices, and what it is for."""

import dataclasses
import math

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy import ndimage
from test_training import SPEC, TEST, TRAIN, Interrupted, StopsAfter

from ucjax import config, names
from ucjax.errors import UserError
from ucjax.networks.resnet import BatchNorm
from ucjax.runtime import checkpoint, parallel
from ucjax.runtime.progress import MetricsFile
from ucjax.victims import pretraining, table, training
from ucjax.victims.contract import Model
from ucjax.victims.models import simclr

SMALL = dataclasses.replace(
    SPEC, model="tiny", epochs=2, pretrain_epochs=2, learning_rate=1.0,
    weight_decay=0.0,
)  # fmt: skip


class Encoder(nn.Module):
    """A layer on the mean colours of 16 cells: a ResNet would take a minute to compile."""

    @nn.compact
    def __call__(self, x, *, train):
        cells = x.reshape(len(x), 4, 4, 4, 4, 3).mean((2, 4))
        found = nn.Dense(8)(cells.reshape(len(x), 1, 1, 48))
        found = BatchNorm(parallel.AXIS)(found, train)
        return nn.tanh(found).reshape(len(x), 8)


@pytest.fixture
def tiny(monkeypatch):
    def make(classes, width):
        return simclr.Probed(Encoder(), classes)

    entry = Model("", make, trainable=simclr.in_head, contrast=True)
    monkeypatch.setitem(table.MODELS, "tiny", entry)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def nt_xent(first, second):
    """Over pairs, as in the paper: -log(exp(sim(i, j) / t) / sum over all k but i)."""
    rows, b = np.concatenate([first, second]).astype(float), len(first)
    losses = []
    for i in range(2 * b):
        alike = [math.exp(rows[i] @ rows[k] / 0.07) for k in range(2 * b)]
        losses.append(-math.log(alike[(i + b) % (2 * b)] / (sum(alike) - alike[i])))
    return np.mean(losses)


def test_the_loss_is_nt_xent_on_any_number_of_devices(mesh, one_device):
    rng = np.random.default_rng(0)
    first, second = (unit(rng.normal(size=(8, 5))).astype(np.float32) for _ in range(2))
    second = unit(first + 0.3 * second).astype(np.float32)

    def both(first, second, gain):
        def loss(gain):
            return simclr.contrast(gain * first, gain * second, parallel.AXIS)

        value, gradient = jax.value_and_grad(loss)(gain)
        return jax.lax.pmean((value, gradient), parallel.AXIS)

    whole, split = parallel.REPLICATED, parallel.SHARDED
    found = []
    for devices in (one_device, mesh):
        mapped = parallel.pmap(both, mesh=devices, in_specs=(split, split, whole), out_specs=whole)
        found.append([float(x) for x in mapped(first, second, np.float32(1.0))])
    (value, gradient), shared = found
    assert value == pytest.approx(nt_xent(first, second), rel=1e-5)
    step = 1e-5
    exact = first.astype(float), second.astype(float)
    higher, lower = (nt_xent(*(g * x for x in exact)) for g in (1 + step, 1 - step))
    assert gradient == pytest.approx((higher - lower) / (2 * step), rel=1e-3)
    assert shared == pytest.approx([value, gradient], rel=1e-4)
    assert abs(gradient) > 0.1


def test_blur_is_scipys_away_from_the_border():
    images = np.random.default_rng(0).random((2, 40, 40, 3), np.float32)
    found = jax.jit(pretraining.blur)(images, np.float32([0.5, 2.0]))
    for ours, before, sigma in zip(found, images, (0.5, 2.0), strict=True):
        theirs = ndimage.gaussian_filter(before, (sigma, sigma, 0), radius=(11, 11, 0))
        np.testing.assert_allclose(ours[11:-11, 11:-11], theirs[11:-11, 11:-11], atol=1e-5)
        assert ours.std() < before.std()


def test_views_differ_and_keep_to_the_images(mesh):
    images = TRAIN.center_crops(16, range(16)).astype(np.float32) / 255
    whole, split = parallel.REPLICATED, parallel.SHARDED
    view = parallel.pmap(pretraining.view, mesh=mesh, in_specs=(whole, split), out_specs=split)
    one, other = (np.asarray(view(jax.random.key(seed), images)) for seed in (0, 1))
    assert min(one.min(), other.min()) >= 0
    assert max(one.max(), other.max()) <= 1 + 1e-5
    assert (np.abs(one - other).mean((1, 2, 3)) > 0.01).all()
    grey = np.ptp(np.concatenate([one, other]), axis=3).max((1, 2)) < 1e-5
    assert 1 <= grey.sum() <= 16


def run(folder, mesh, spec=SMALL, metrics=None, **changes):
    cell = training.Cell(TRAIN, TEST, 5, folder / "victim.safetensors", "victim", **changes)
    metrics = metrics or MetricsFile(folder / "metrics.jsonl")
    return training.train_stack([cell], spec, mesh=mesh, metrics=metrics)[0]


def test_an_encoder_learns_without_labels_and_only_the_probe_with_them(
    tiny, mesh, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(training, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(pretraining, "_SECONDS", 0.0)
    result = run(tmp_path / "whole", mesh)
    assert "victim, without labels: 640 image passes in" in capsys.readouterr().out  # 2 * 2 * 160
    saved = checkpoint.load_arrays(tmp_path / "whole" / "victim-pretrained.safetensors")
    probed = checkpoint.load_arrays(tmp_path / "whole" / "victim.safetensors")
    encoder = [name for name in saved if name.startswith(("params/encoder", "batch_stats"))]
    assert len(encoder) == 6
    for name in encoder:  # neither decay nor BatchNorm moves it any more
        np.testing.assert_array_equal(probed[f"state/{name}"], saved[name])
    assert np.abs(probed["state/params/fc/kernel"]).max() > 0
    # Killed while it sees no labels, it ends with the same bytes.
    with pytest.raises(Interrupted):
        run(tmp_path / "killed", mesh, metrics=StopsAfter(2))
    assert not (tmp_path / "killed" / "victim.safetensors").exists()
    assert run(tmp_path / "killed", mesh) == result
    for name in ("victim", "victim-pretrained"):
        ours, theirs = (
            (tmp_path / folder / f"{name}.safetensors").read_bytes()
            for folder in ("whole", "killed")
        )
        assert ours == theirs
    # Labels and the images of the probe are another matter.
    other = dataclasses.replace(TRAIN, labels=TRAIN.labels[::-1].copy())
    dark = dataclasses.replace(TRAIN, rows=TRAIN.rows // 2)
    for folder, images in (("labels", other), ("images", dark)):
        run(tmp_path / folder, mesh, pretrain=images)
        arrays = checkpoint.load_arrays(tmp_path / folder / "victim-pretrained.safetensors")
        same = all(np.array_equal(arrays[name], saved[name]) for name in encoder)
        assert same == (folder == "labels")


def test_pretraining_is_for_models_with_an_encoder():
    def resolved(text):
        return table.resolve(names.parse(text, "column"), config.paper())

    victim = resolved("simclr_rn50:probe=clean")
    assert (victim.probe, victim.spec.pretrain_epochs) == ("clean", 200)
    assert str(resolved("simclr_rn18:probe=files").name) == "simclr_rn18"
    with pytest.raises(UserError, match="probe=clean: choose files or, for a model that is first"):
        resolved("resnet18:probe=clean")
    with pytest.raises(UserError, match="the model resnet18: only simclr_rn18, simclr_rn50"):
        training.check(resolved("resnet18:pretrain_epochs=3").spec, devices=1)


def test_the_encoder_is_resnet50s():
    """A head of 37 classes less, as torchvision counts them."""
    net = table.MODELS["simclr_rn50"].make(37, 64)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(lambda k, x: net.init(k, x, train=False), jax.random.key(0), images)
    sizes = {name: sum(x.size for x in jax.tree.leaves(part))
             for name, part in shapes["params"].items()}  # fmt: skip
    assert sizes == {"encoder": 23_583_845 - 37 * 2049, "fc": 37 * 2049}
