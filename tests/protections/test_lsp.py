import numpy as np
import pytest
from baselines import fit, levels
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from ucjax.errors import UserError
from ucjax.protections import lsp


def accuracy(features, labels):
    """Of a linear softmax without bias, on what it was trained on."""
    features = features / features.std()
    model = LogisticRegression(fit_intercept=False, C=100, max_iter=2000)
    return model.fit(features, labels).score(features, labels)


def test_the_noise_alone_is_linearly_separable(tmp_path, mesh):
    """On more images than numbers an image, where noise without a class could not be."""
    noise, given = fit("lsp", tmp_path, mesh, n=600, side=32, classes=10)
    cells = levels(noise, 600)[:, ::8, ::8].reshape(600, -1)
    assert cells.shape[1] == 48
    assert accuracy(cells, given.images.labels) == 1
    shuffled = np.random.default_rng(0).permutation(given.images.labels)
    assert accuracy(cells, shuffled) < 0.5


def test_patches_have_the_rms_that_is_asked_for(tmp_path, mesh):
    for row, rms, patch in (("lsp", 6, 8), ("lsp:rms=10:patch=4", 10, 4)):
        noise, _ = fit(row, tmp_path, mesh, n=40, side=32)
        found = levels(noise, 40)
        np.testing.assert_array_equal(
            found, found[:, ::patch, ::patch].repeat(patch, 1).repeat(patch, 2)
        )
        assert np.abs(found).max() <= 16 * (1 + 1e-6)
        lengths = np.sqrt(np.square(found).mean((1, 2, 3)))
        # Clipping takes some of the stronger form (most measured: 0.91), nothing of the paper's.
        assert np.abs(lengths - rms).max() < (1e-4 if rms == 6 else 1)
        assert lengths.max() <= rms * (1 + 1e-6)
    tight, _ = fit("lsp:eps=4", tmp_path, mesh, n=4, side=32)
    assert np.abs(levels(tight, 4)).max() == pytest.approx(4)


def test_spread_and_separation_are_those_of_make_classification():
    """A feature has a spread of sqrt(d / 3) about ±10; scikit-learn is the oracle."""
    d, n = 48, 800
    sample = lsp.sampler(0, 2, 4)
    ours = np.stack([sample(0, i).ravel() for i in range(n)])
    theirs, y = make_classification(
        2 * n, d, n_informative=d, n_redundant=0, n_clusters_per_class=1, class_sep=10,
        flip_y=0, shuffle=False, random_state=0,
    )  # fmt: skip
    theirs = theirs[y == 0]
    for drawn in (ours, theirs):
        assert np.median(np.abs(drawn.mean(0))) == pytest.approx(10, abs=0.5)
        assert np.sqrt(drawn.var(0).mean()) == pytest.approx(4, abs=0.35)


def test_an_image_depends_on_seed_class_and_number_only(tmp_path, mesh):
    few, _ = fit("lsp", tmp_path, mesh, n=8, side=32)
    many, _ = fit("lsp", tmp_path, mesh, n=20, side=32)
    np.testing.assert_array_equal(levels(many, 8), levels(few, 8))
    other, _ = fit("lsp", tmp_path, mesh, n=8, side=32, seed=4)
    assert not np.array_equal(levels(other, 8), levels(few, 8))


def test_what_cannot_be_drawn_is_refused(tmp_path, mesh):
    for row, message in (
        ("lsp:patch=5", "patch of row lsp is 5, which does not divide the crop of 32"),
        ("lsp:patch=32", "1x1 patches an image, for at most 8 classes, not 10"),
        ("lsp:rms=0", "rms of row lsp is 0"),
    ):
        with pytest.raises(UserError, match=message):
            fit(row, tmp_path, mesh, n=20, side=32, classes=10)
    assert (lsp.patch_side(224, 0), lsp.patch_side(64, 0)) == (32, 8)
