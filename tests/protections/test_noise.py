from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ucjax.clusters.kmeans import Clusters
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.protections.uc import perturbation
from ucjax.protections.uc import training as noise
from ucjax.protections.uc.objective import Batch, make_objective
from ucjax.protections.uc.perturbation import NoiseSpec
from ucjax.runtime import parallel
from ucjax.runtime.progress import MetricsFile
from ucjax.surrogates import Preprocessing, Surrogate

SIZE, FEATURES, P = 8, 6, 3
SPEC = NoiseSpec(
    scope="cluster", distance="l2", bound="tanh", target="offset", parametrization="direct",
    grain=1, norm="linf", epsilon_255=16, epochs=3, batch_size=8, learning_rate=0.1,
    final_learning_rate=0.01, weight_decay=0.0, width=4, blocks=1, flip=True, order="shuffled",
    seed=0,
)  # fmt: skip


def embed(kernel, images):
    out = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(out).mean((1, 2))


@pytest.fixture(scope="module")
def surrogate():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, FEATURES)).astype(np.float32)
    return Surrogate(embed, kernel, SIZE, Preprocessing((0, 0, 0), (1, 1, 1)), "conv", "none")


@pytest.fixture(scope="module")
def images():
    """19 images of 10x12: not a multiple of the batch, nor of the devices."""
    n, rng = 19, np.random.default_rng(1)
    return ImageSet(
        rows=rng.integers(0, 256, (n * 12, 10, 3), dtype=np.uint8),
        starts=np.arange(n + 1) * 12,
        wide=rng.random(n) < 0.5,
        labels=np.zeros(n, np.int32),
        names=tuple(f"{i}.png" for i in range(n)),
        class_names=("a",),
    )


@pytest.fixture(scope="module")
def clusters(images, surrogate):
    rng = np.random.default_rng(2)
    assignment = np.arange(len(images), dtype=np.int32) % P
    centers = rng.normal(scale=0.3, size=(P, FEATURES)).astype(np.float32)
    return Clusters(centers, assignment, 0.0, 0)


def train(images, clusters, surrogate, spec, mesh, folder, metrics=None):
    return noise.train(
        images, clusters, surrogate, spec, size=SIZE, mesh=mesh,
        checkpoint_file=folder / "checkpoint.safetensors",
        metrics=metrics or MetricsFile(folder / "metrics.jsonl"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"parametrization": "generator", "learning_rate": 0.01},
        {"parametrization": "generator", "bound": "clamp", "norm": "rms"},
        {"bound": "clamp", "scope": "all", "distance": "kl"},
        {"norm": "rms", "distance": "cosine", "flip": False, "grain": 3},
        {"grain": 4},
    ],
    ids=lambda change: "-".join(map(str, change.values())),
)
def test_the_budget_holds_and_the_devices_do_not_matter(
    change, images, clusters, surrogate, mesh, one_device, tmp_path
):
    spec = replace(SPEC, **change)
    result = train(images, clusters, surrogate, spec, mesh, tmp_path)
    eps = spec.epsilon_255 / 255
    assert result.noise.shape == (P, SIZE, SIZE, 3)
    if spec.norm == "linf":
        assert np.abs(result.noise).max() <= eps * (1 + 1e-6)
    else:
        rms = np.sqrt((result.noise**2).mean((1, 2, 3)))
        assert (rms <= eps * (1 + 1e-5)).all()
        assert np.abs(result.noise).max() > eps, "an L2 budget lets single pixels go further"
    single = train(images, clusters, surrogate, spec, one_device, tmp_path)
    # Losses, not weights: Adam turns rounding into visible differences of single pixels.
    np.testing.assert_allclose(result.loss, single.loss, rtol=2e-3)


@pytest.mark.parametrize(("grain", "cells"), [(2, 4), (4, 2), (3, 3)])
def test_coarse_noise_is_its_cells_enlarged_by_a_cubic_spline(grain, cells, one_device):
    spec = replace(SPEC, grain=grain)
    optimizer = perturbation.make_optimizer(spec, 1)
    state = perturbation.init(spec, optimizer, p=P, size=SIZE, mesh=one_device)
    assert state.params.shape == (P, cells, cells, 3)
    rendered = perturbation.make_render(spec)(state.params, state.inputs)
    enlarged = [
        [
            Image.fromarray(np.asarray(params[..., channel])).resize((SIZE, SIZE), Image.BICUBIC)
            for channel in range(3)
        ]
        for params in state.params
    ]
    expected = 16 / 255 * np.tanh(np.moveaxis(np.array(enlarged), 1, -1))
    np.testing.assert_allclose(rendered, expected, atol=1e-6)


def test_noise_moves_features_towards_the_target(images, clusters, surrogate, mesh, tmp_path):
    spec = replace(SPEC, epsilon_255=64, epochs=15)
    result = train(images, clusters, surrogate, spec, mesh, tmp_path)
    assert result.loss[-1] < 0.8 * result.loss[0]
    crops = images.center_crops(SIZE).astype(np.float32) / 255
    protected = np.clip(crops + result.noise[clusters.assignment], 0, 1)
    goal = clusters.centers[result.target[clusters.assignment]]

    def gap(x):
        return np.linalg.norm(embed(surrogate.params, x) - goal, axis=-1)

    assert (gap(protected) < gap(crops)).mean() > 0.9


def test_gradients_of_a_step_are_those_of_one_device(surrogate, clusters, mesh, one_device):
    rng = np.random.default_rng(3)
    rows = (
        rng.random((8, SIZE, SIZE, 3)).astype(np.float32),
        rng.integers(0, P, 8).astype(np.int32),
        rng.random(8).astype(np.float32),
        np.full(8, 1 / 8, np.float32),
    )
    noises = rng.normal(scale=0.02, size=(4, SIZE, SIZE, 3)).astype(np.float32)
    goal = (jnp.arange(P) + 1) % P
    centers, values = jnp.asarray(clusters.centers), []
    for devices in (mesh, one_device):
        objective = make_objective(embed, distance="kl", scope="cluster")

        def step(own, kernel, rows, objective=objective):
            whole = jax.lax.all_gather(own, parallel.AXIS, tiled=True)
            value = objective(whole, kernel, centers, goal, Batch(*rows))
            return jax.lax.psum_scatter(value.gradient, parallel.AXIS, tiled=True)

        mapped = parallel.pmap(
            step, mesh=devices, out_specs=parallel.SHARDED,
            in_specs=(parallel.SHARDED, parallel.REPLICATED, parallel.SHARDED),
        )  # fmt: skip
        arguments = (
            parallel.shard(noises, devices),
            parallel.replicate(surrogate.params, devices),
            parallel.shard(rows, devices),
        )
        values.append(parallel.to_host(mapped(*arguments)))
        hlo = mapped.lower(*arguments).compile().as_text()
        if devices is mesh:
            assert hlo.count(" all-gather(") + hlo.count(" all-gather-start(") == 1
            assert hlo.count(" reduce-scatter(") == 1
            assert " all-reduce(" not in hlo
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4, atol=1e-8)
    assert np.abs(values[0][:P]).max() > 0


class Killed(Exception):
    pass


class KilledAfter(MetricsFile):
    """Stops the run when an epoch is reported, as a kill between two epochs would."""

    def __init__(self, path, epoch):
        super().__init__(path)
        self._epoch = epoch

    def write(self, stage, step, **values):
        if step == self._epoch:
            raise Killed


@pytest.mark.parametrize("parametrization", ["generator", "direct"])
def test_resume_equals_uninterrupted(
    parametrization, images, clusters, surrogate, mesh, tmp_path, monkeypatch
):
    monkeypatch.setattr(noise, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    spec = replace(SPEC, parametrization=parametrization, epochs=4)
    whole = train(images, clusters, surrogate, spec, mesh, tmp_path / "whole")
    folder = tmp_path / "killed"
    for epoch in (2, 4):
        killer = KilledAfter(folder / "metrics.jsonl", epoch)
        with pytest.raises(Killed):
            train(images, clusters, surrogate, spec, mesh, folder, killer)
        assert (folder / "checkpoint.safetensors").exists()
    resumed = train(images, clusters, surrogate, spec, mesh, folder)
    np.testing.assert_array_equal(resumed.noise, whole.noise)
    assert resumed.loss == whole.loss
    assert resumed.moved == whole.moved


def test_a_checkpoint_goes_on_with_another_number_of_devices(
    images, clusters, surrogate, mesh, one_device, tmp_path, monkeypatch
):
    monkeypatch.setattr(noise, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    killer = KilledAfter(tmp_path / "metrics.jsonl", 3)
    with pytest.raises(Killed):
        train(images, clusters, surrogate, SPEC, mesh, tmp_path, killer)
    resumed = train(images, clusters, surrogate, SPEC, one_device, tmp_path)
    whole = train(images, clusters, surrogate, SPEC, mesh, tmp_path / "whole")
    np.testing.assert_allclose(resumed.loss, whole.loss, rtol=2e-3)


def test_a_loss_that_is_not_finite_stops_with_the_step(images, clusters, surrogate, mesh, tmp_path):
    broken = replace(surrogate, params=np.full_like(surrogate.params, np.nan))
    with pytest.raises(UserError, match="nan at step 0"):
        train(images, clusters, broken, SPEC, mesh, tmp_path)


@pytest.mark.parametrize(
    ("change", "p", "message"),
    [
        ({"scope": "both"}, 3, "config.noise.scope is 'both': choose one of cluster, all"),
        ({"epsilon_255": 0}, 3, "epsilon_255 is 0.*1 to 128"),
        ({"epsilon_255": 300}, 3, "epsilon_255 is 300"),
        ({"grain": 0}, 3, "grain is 0.*whole number"),
        ({"grain": 2, "parametrization": "generator"}, 3, "grain is 2.*1 for generators"),
        ({"batch_size": 10}, 3, "batch_size is 10, not divisible by the 4 devices: try 8"),
        ({"epochs": 0}, 3, "epochs is 0"),
        ({}, 1, "config.clusters.k is 1"),
    ],
)
def test_impossible_settings_are_one_line(change, p, message):
    with pytest.raises(UserError, match=message) as caught:
        perturbation.check(replace(SPEC, **change), p=p, devices=4)
    assert "\n" not in str(caught.value)


def test_weights_count_every_cluster_equally():
    assignment = np.array([0] * 9 + [1] * 3, np.int32)
    spec = replace(SPEC, batch_size=12)
    (planned,) = noise._plan(assignment, spec, epoch=0)
    assert sorted(planned.indices) == list(range(12))
    totals = [planned.weight[planned.cluster == i].sum() for i in range(2)]
    np.testing.assert_allclose(totals, [1, 1], rtol=1e-6)


def test_an_epoch_shows_every_image_once_and_masks_the_rest():
    assignment = np.arange(19, dtype=np.int32) % 3
    plans = [list(noise._plan(assignment, SPEC, epoch)) for epoch in (0, 1)]
    for plan in plans:
        assert [planned.step % 3 for planned in plan] == [0, 1, 2]
        seen = np.concatenate([p.indices[p.share > 0] for p in plan])
        assert sorted(seen) == list(range(19))
        np.testing.assert_allclose([p.share.sum() for p in plan], 1, rtol=1e-6)
        assert all((p.weight[p.share == 0] == 0).all() for p in plan)
    assert any((a.indices != b.indices).any() for a, b in zip(*plans, strict=True))
