import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ucjax.protections.uc.objective import Batch, distances, make_objective, nearest, targets

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import make_objective as golden  # noqa: E402


def embed(kernel, images):
    out = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(out).mean((1, 2))


def jitted(distance, scope):
    return jax.jit(make_objective(embed, distance=distance, scope=scope))


def batch_of(images, cluster):
    share = np.full(len(images), 1 / len(images), np.float32)
    return Batch(images, np.asarray(cluster, np.int32), share, share)


def test_scope_all_equals_the_authors_scheme_in_torch():
    values = golden.inputs()
    expected = np.load(GOLDEN / "objective.npz")
    objective = jitted("kl", "all")
    goal = targets(values["centers"], "offset", seed=0)
    value = objective(
        values["noise"], values["kernel"], values["centers"], goal,
        batch_of(values["images"], [0, 1, 2, 0, 1]),
    )  # fmt: skip
    np.testing.assert_allclose(value.loss, expected["losses"].sum(), rtol=1e-5)
    scale = np.abs(expected["gradient"]).max()
    np.testing.assert_allclose(value.gradient, expected["gradient"], atol=1e-5 * scale)


@pytest.mark.parametrize("distance", ["kl", "cosine", "l2"])
def test_scope_all_restricted_to_own_images_is_scope_cluster(distance):
    values = golden.inputs()
    cluster = np.array([2, 0, 1, 1, 2], np.int32)
    goal = targets(values["centers"], "offset", seed=0)
    own = jitted(distance, "cluster")
    every = jitted(distance, "all")
    arguments = (values["noise"], values["kernel"], values["centers"], goal)
    whole = own(*arguments, batch_of(values["images"], cluster))
    loss, gradient = 0.0, np.zeros_like(values["noise"])
    for i in range(golden.CLUSTERS):
        batch = batch_of(values["images"], cluster)
        part = every(*arguments, batch._replace(weight=batch.weight * (cluster == i)))
        single = own(*arguments, batch._replace(weight=batch.weight * (cluster == i)))
        loss, gradient = loss + single.loss, gradient + single.gradient
        np.testing.assert_allclose(part.gradient[i], single.gradient[i], rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(whole.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(whole.gradient, gradient, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(every(*arguments, batch).moved, whole.moved, rtol=1e-6)


def test_padding_rows_and_padded_noises_change_nothing():
    values = golden.inputs()
    goal = targets(values["centers"], "offset", seed=0)
    batch = batch_of(values["images"], [0, 1, 2, 0, 1])
    padded = Batch(
        *(np.concatenate([x, x[-1:]]) for x in batch[:2]),
        *(np.append(x, np.float32(0)) for x in batch[2:]),
    )
    noise = np.concatenate([values["noise"], values["noise"][:1]])
    for scope in ("cluster", "all"):
        objective = jitted("kl", scope)
        plain = objective(values["noise"], values["kernel"], values["centers"], goal, batch)
        more = objective(noise, values["kernel"], values["centers"], goal, padded)
        np.testing.assert_allclose(more.loss, plain.loss, rtol=1e-5)
        np.testing.assert_allclose(more.gradient[:3], plain.gradient, rtol=1e-4, atol=1e-9)
        assert not np.any(more.gradient[3])


def test_kl_tends_to_l2_for_small_features():
    # Softmax ignores a common offset of the features, so the comparison takes centred ones.
    rng = np.random.default_rng(0)
    features, centers = rng.normal(size=(2, 4, 200)).astype(np.float32) * 0.05
    features -= features.mean(-1, keepdims=True)
    centers -= centers.mean(-1, keepdims=True)
    kl, l2 = (distances(features, centers, name) for name in ("kl", "l2"))
    np.testing.assert_allclose(kl, l2, rtol=0.05)


@pytest.mark.parametrize("distance", ["kl", "cosine", "l2"])
def test_a_feature_at_its_center_has_distance_zero(distance):
    x = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    np.testing.assert_allclose(distances(x, x, distance), 0, atol=1e-6)
    assert (distances(x, -x, distance) > 0.01).all()


@pytest.mark.parametrize("rule", ["offset", "farthest", "permuted"])
@pytest.mark.parametrize("p", [2, 3, 10])
def test_targets_are_derangements(rule, p):
    centers = np.random.default_rng(p).normal(size=(p, 4))
    goal = targets(centers, rule, seed=1)
    assert sorted(goal) == list(range(p))
    assert (goal != np.arange(p)).all()


def test_farthest_target_beats_offset_and_every_other_derangement():
    import itertools

    centers = np.random.default_rng(3).normal(size=(5, 2))
    distance = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    best = max(
        sum(distance[i, j] for i, j in enumerate(g))
        for g in itertools.permutations(range(5))
        if all(i != j for i, j in enumerate(g))
    )
    goal = targets(centers, "farthest", seed=0)
    np.testing.assert_allclose(distance[np.arange(5), goal].sum(), best)


def test_permuted_target_follows_the_seed():
    centers = np.zeros((10, 2))
    chex.assert_trees_all_equal(targets(centers, "permuted", 1), targets(centers, "permuted", 1))
    assert (targets(centers, "permuted", 1) != targets(centers, "permuted", 2)).any()


def test_nearest_equals_brute_force():
    rng = np.random.default_rng(0)
    features, centers = rng.normal(size=(20, 3)), rng.normal(size=(4, 3))
    brute = np.linalg.norm(features[:, None] - centers[None], axis=-1).argmin(1)
    np.testing.assert_array_equal(nearest(jnp.asarray(features), jnp.asarray(centers)), brute)
