import jax
import numpy as np
import pytest

from ucjax.runtime import parallel
from ucjax.victims.table import RECIPES

BATCH = 8


def apply(recipe, mesh):
    whole, split = parallel.REPLICATED, parallel.SHARDED
    return parallel.pmap(
        RECIPES[recipe].batch, mesh=mesh, in_specs=(whole, split, split), out_specs=(split, split)
    )


def identities():
    """Images of 8 px that say who they are: image i has its only bright pixel in column i."""
    pixels = np.zeros((BATCH, 8, 8, 3), np.float32)
    pixels[:, 0, :, 0] = np.eye(BATCH)
    return pixels, np.eye(BATCH, dtype=np.float32)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("side", [8, 13])
def test_recipes_do_not_depend_on_the_devices(recipe, side, mesh, one_device):
    rng = np.random.default_rng(0)
    images = rng.random((BATCH, side, side, 3), np.float32)
    targets = rng.dirichlet(np.ones(5), BATCH).astype(np.float32)
    key = jax.random.key(3)
    alone, shared = (apply(recipe, devices)(key, images, targets) for devices in (one_device, mesh))
    for a, b in zip(alone, shared, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert not np.array_equal(alone[0], images)
    assert not np.array_equal(alone[0], apply(recipe, mesh)(jax.random.key(4), images, targets)[0])


def test_mixup_mixes_images_and_labels_alike(mesh):
    pixels, targets = identities()
    mix, shares = apply("mixup", mesh), []
    for seed in range(60):
        images, labels = map(np.asarray, mix(jax.random.key(seed), pixels, targets))
        np.testing.assert_array_equal(images[:, 0, :, 0], labels)
        # A permutation: everybody is whole, once as itself and once as a partner.
        np.testing.assert_allclose(labels.sum(0), 1, rtol=1e-6)
        np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
        own = np.diag(labels)
        moved = own < 0.999
        assert moved.any()
        np.testing.assert_array_equal(own[moved], own[moved][0])
        assert (np.count_nonzero(labels, axis=1) == 1 + moved).all()
        shares.append(own[moved][0])
    # Kolmogorov and Smirnov's distance to the uniform Beta(1, 1); its 0.999 quantile for 60.
    order = np.sort(shares)
    assert np.abs(order - (np.arange(60) + 0.5) / 60).max() < 1.95 / 60**0.5


def test_mixup_finds_partners_on_other_devices(mesh):
    pixels, targets = identities()
    pairs = {
        (i, j)
        for seed in range(60)
        for i, j in np.argwhere(apply("mixup", mesh)(jax.random.key(seed), pixels, targets)[1])
    }
    assert len(pairs) == BATCH * BATCH


def test_mixup_of_the_paper_keeps_the_labels(mesh):
    pixels, targets = identities()
    images, labels = map(np.asarray, apply("mixup_paper", mesh)(jax.random.key(0), pixels, targets))
    np.testing.assert_array_equal(labels, targets)
    shares = images[:, 0, :, 0]
    np.testing.assert_allclose(shares.sum(0), 1, rtol=1e-6)
    assert set(np.unique(shares.round(6))) <= {0, np.float32(0.1), np.float32(0.9), 1}
    assert (np.diag(shares) >= 0.9 - 1e-6).all()


def holes(images):
    """The blackened rows and columns of each image, as (first, after the last)."""
    found = []
    for image in np.asarray(images):
        black = (image == 0).all(-1)
        assert (black == (image == 0).any(-1)).all()
        rows, columns = black.any(1), black.any(0)
        np.testing.assert_array_equal(black, np.outer(rows, columns))  # a rectangle
        spans = []
        for line in (rows, columns):
            inside = np.flatnonzero(line)
            assert len(inside) == inside[-1] - inside[0] + 1
            spans.append((int(inside[0]), int(inside[-1]) + 1))
        found.append(tuple(spans))
    return found


def test_cutout_blackens_half_a_side_around_any_pixel(mesh):
    ones, targets = np.ones((BATCH, 8, 8, 3), np.float32), np.eye(BATCH, dtype=np.float32)
    cut, counts = apply("cutout", mesh), np.zeros((2, 8))
    expected = [(max(c - 2, 0), min(c + 2, 8)) for c in range(8)]
    for seed in range(100):
        images, labels = cut(jax.random.key(seed), ones, targets)
        np.testing.assert_array_equal(labels, targets)
        for spans in holes(images):
            for axis, span in enumerate(spans):
                counts[axis, expected.index(span)] += 1
        if seed == 0:
            assert len(set(holes(images))) > BATCH // 2
    # The 0.999 quantile of chi-squared with 7 degrees of freedom.
    assert (((counts - 100) ** 2) / 100).sum(1).max() < 24.3


@pytest.mark.parametrize(("side", "hole"), [(32, 10), (224, 70)])
def test_cutout_of_the_paper_is_one_square_of_a_tenth_of_the_area(mesh, side, hole):
    ones = np.ones((4, side, side, 3), np.float32)
    targets, seen = np.eye(4, dtype=np.float32), set()
    for seed in range(3):
        images, labels = apply("cutout_paper", mesh)(jax.random.key(seed), ones, targets)
        np.testing.assert_array_equal(labels, targets)
        (square,) = set(holes(images))
        assert [end - first for first, end in square] == [hole, hole]
        seen.add(square)
    assert len(seen) == 3
