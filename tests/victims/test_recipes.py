import dataclasses

import jax
import numpy as np
import pytest
from scipy import ndimage
from test_training import SPEC, TRAIN

from ucjax.runtime import parallel
from ucjax.victims import step
from ucjax.victims.recipes import adversarial
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


# ueraser, which is long to compile, is in test_ueraser.py.
BATCHED = [name for name, entry in RECIPES.items() if entry.batch and name != "ueraser"]


@pytest.mark.parametrize("recipe", BATCHED)
@pytest.mark.parametrize("side", [8, 13])
def test_recipes_do_not_depend_on_the_devices(recipe, side, mesh, one_device):
    rng = np.random.default_rng(0)
    images = rng.random((BATCH, side, side, 3), np.float32)
    targets = rng.dirichlet(np.ones(5), BATCH).astype(np.float32)
    key = jax.random.key(3 if recipe != "cutmix" else 1)
    alone, shared = (apply(recipe, devices)(key, images, targets) for devices in (one_device, mesh))
    for a, b in zip(alone, shared, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    assert not np.array_equal(alone[0], images)
    draws = not recipe.startswith("gauss")
    other = apply(recipe, one_device)(jax.random.key(4), images, targets)
    assert draws != np.array_equal(alone[0], other[0])


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


def test_random_resized_crops_are_bilinear_parts(mesh):
    """A picture of its own coordinates shows which part of it was taken."""
    side, count = 32, 200
    rows, columns = np.mgrid[:side, :side].astype(np.float32) + 0.5
    picture = np.stack([rows / side, columns / side, np.ones_like(rows)], -1)
    images = np.broadcast_to(picture, (count, *picture.shape))
    targets = np.ones((count, 2), np.float32)
    crops, labels = map(np.asarray, apply("rrc", mesh)(jax.random.key(0), images, targets))
    np.testing.assert_array_equal(labels, targets)
    np.testing.assert_allclose(crops[..., 2], 1, rtol=1e-5)
    inner = np.s_[:, 3:-3, 3:-3]  # beyond, pixels are repeated at the border
    slopes = [np.diff(crops[inner][..., axis], axis=axis + 1) for axis in (0, 1)]
    spans = [slope.mean((1, 2)) * side for slope in slopes]
    for slope, span in zip(slopes, spans, strict=True):
        assert np.abs(slope * side - span[:, None, None]).max() < 1e-3  # affine: bilinear
    height, width = spans
    area, aspect = height * width, width / height
    top, left = (crops[:, 16, 16, i] - 16.5 / side * spans[i] for i in (0, 1))
    for first, span in ((top, height), (left, width)):
        assert first.min() > -1e-3
        assert (first + span).max() < 1 + 1e-3
    assert area.min() > 0.249
    assert area.max() < 1.001
    assert aspect.min() > 0.749
    assert aspect.max() < 4 / 3 + 1e-3
    assert area.min() < 0.3  # and all of the range is used
    assert area.max() > 0.9
    assert np.abs(np.log(aspect)).max() > 0.2
    assert np.corrcoef(area, np.log(aspect))[0, 1] < 0.2


@pytest.mark.parametrize(("recipe", "radius", "sigma"), [("gauss", 1, 1), ("gauss_paper", 3, 3)])
def test_gaussian_smoothing_is_scipys(mesh, recipe, radius, sigma):
    images = np.random.default_rng(0).random((4, 9, 12, 3), np.float32)
    targets = np.eye(4, dtype=np.float32)
    ours, labels = apply(recipe, mesh)(jax.random.key(0), images, targets)
    np.testing.assert_array_equal(labels, targets)
    theirs = ndimage.gaussian_filter(
        images, (0, sigma, sigma, 0), mode="mirror", radius=(0, radius, radius, 0)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def plain(count, side):
    """Images of one grey each, by which a pixel's owner is known, and their targets."""
    greys = np.arange(1, count + 1, dtype=np.float32) / count
    return np.ones((count, side, side, 3), np.float32) * greys[:, None, None, None]


@pytest.mark.parametrize("recipe", ["cutmix", "cutmix_paper"])
def test_cutmix_pastes_one_rectangle_of_others(mesh, recipe):
    count, side, shares = 8, 20, []
    images, targets = plain(count, side), np.eye(count, dtype=np.float32)
    mix = apply(recipe, mesh)
    for seed in range(40):
        mixed, labels = map(np.asarray, mix(jax.random.key(seed), images, targets))
        foreign = (mixed != images).all(-1)
        box = foreign.any(0)
        np.testing.assert_array_equal(box, np.outer(box.any(1), box.any(0)))
        for i in range(count):
            owners = np.rint(mixed[i, box][:, 0] * count).astype(int) - 1
            assert len(set(owners)) <= 1
            own = not foreign[i].any()
            assert own or (foreign[i] == box).all()
            partner = i if own or not len(owners) else owners[0]
            share = box.mean() if recipe == "cutmix" else 0.0
            expected = (1 - share) * targets[i] + share * targets[partner]
            np.testing.assert_allclose(labels[i], expected, atol=1e-6)
        shares.append(box.mean())
    if recipe == "cutmix_paper":
        assert set(shares) == {36 / 400}  # the square of floor(20 * 0.1 ** 0.5) = 6 pixels
    else:
        assert min(shares) < 0.1
        assert max(shares) > 0.5


@pytest.fixture(scope="module")
def attacks(mesh, one_device):
    """Attacks on a linear classifier at the middle of the pixels' range, by the devices."""
    weights = np.random.default_rng(0).normal(size=(4 * 4 * 3, 3)).astype(np.float32)

    def forward(images, train):
        assert not train
        return images.reshape(len(images), -1) @ weights, {}

    def attack(key, images, targets):
        return adversarial.attacked(forward, images, targets, key, 8 / 255)

    whole, split = parallel.REPLICATED, parallel.SHARDED
    rng = np.random.default_rng(1)
    images = rng.uniform(0, 1, (BATCH, 4, 4, 3)).astype(np.float32)
    classes = rng.integers(0, 3, BATCH)
    found = [
        parallel.pmap(attack, mesh=on, in_specs=(whole, split, split), out_specs=split)(
            jax.random.key(0), images, np.eye(3, dtype=np.float32)[classes]
        )
        for on in (mesh, one_device)
    ]
    return weights, images, classes, found


def test_attacks_do_not_depend_on_the_devices(attacks):
    *_, (shared, alone) = attacks
    np.testing.assert_allclose(shared, alone, atol=1e-6)


def test_attacks_reach_the_worst_corner_of_two_classes(attacks):
    """A linear net's loss is convex: where the gradient keeps its sign, the corner is the end."""
    weights, images, classes, (attacked, _) = attacks
    attacked = np.asarray(attacked)
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert np.abs(attacked - images).max() <= 8 / 255 + 1e-6

    def loss(x):
        logits = x.reshape(BATCH, -1) @ weights
        return np.log(np.exp(logits).sum(1)) - logits[np.arange(BATCH), classes]

    corners = [
        np.clip(images + 8 / 255 * np.sign(direction).reshape(BATCH, 4, 4, 3), 0, 1)
        for wrong in (1, 2)
        for direction in [(weights[:, (classes + wrong) % 3] - weights[:, classes]).T]
    ]
    # The wrong class that counts most at the end decides the signs; no corner is above.
    best = np.max([loss(corner) for corner in corners], 0)
    assert (loss(attacked) > loss(images)).all()
    np.testing.assert_array_less(0.97 * best, loss(attacked))


def test_adversarial_training_descends_at_the_attacked_images(mesh):
    """One step from zero weights, by hand: every class then has the probability a third."""
    spec = dataclasses.replace(
        SPEC, model="linear", recipes=("at8",), batch_size=8, flip=False, weight_decay=0.0
    )
    programs = step.make_programs(spec, 3, 4, mesh)
    seed = parallel.replicate(np.uint32(0), mesh)
    state = programs.init(seed)
    images, labels = TRAIN.center_crops(SPEC.crop, range(8)), TRAIN.labels[:8]
    state, (loss, _) = programs.step(state, *parallel.shard((images, labels), mesh), seed)
    assert float(loss) == pytest.approx(np.log(3), rel=1e-5)
    off = np.eye(3)[labels] - 1 / 3
    np.testing.assert_allclose(state.params["fc"]["bias"], 0.1 * off.mean(0), atol=1e-6)
    pixels = (images / 255 - SPEC.mean) / SPEC.std / (3 * SPEC.crop**2) ** 0.5
    clean = 0.1 * pixels.reshape(8, -1).T @ off / 8
    # Within the attack's reach of what the clean images would have given.
    reach = 0.1 * 8 / 255 / min(SPEC.std) / (3 * SPEC.crop**2) ** 0.5 * np.abs(off).mean(0)
    moved = np.abs(np.asarray(state.params["fc"]["kernel"]) - clean)
    assert (moved <= reach + 1e-6).all()
    assert moved.max() > 0.1 * reach.max()
