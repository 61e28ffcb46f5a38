import dataclasses

import numpy as np
import pytest
from baselines import give, surrogate

from ucjax.errors import UserError
from ucjax.protections.labels import labels_of


def test_three_sources(tmp_path, mesh):
    given = give("lsp", tmp_path, mesh, classes=3)
    sparse = dataclasses.replace(given.images, labels=given.images.labels * 4)
    labels, count = labels_of(dataclasses.replace(given, images=sparse))
    np.testing.assert_array_equal(labels, np.arange(22) % 3)
    assert (count, labels.dtype) == (3, np.int32)
    labels, count = labels_of(give("lsp:labels=cluster", tmp_path, mesh))
    np.testing.assert_array_equal(labels, np.arange(22) // 3 % 3)
    assert count == 3


def test_the_surrogates_head_gives_labels(tmp_path, mesh):
    given = give("lsp:labels=surrogate", tmp_path, mesh)
    labels, count = labels_of(given)
    means = given.images.center_crops(16).mean((1, 2)) / 255
    best = (8 * (means - 0.5) @ surrogate(16).params).argmax(1)
    np.testing.assert_array_equal(labels, np.unique(best, return_inverse=True)[1])
    assert count == len(set(best)) > 1


def test_labels_that_are_not_there(tmp_path, mesh):
    given = give("lsp", tmp_path, mesh)
    for labels, message in ((-1, "labels=true needs a class for every image, 22 of 22"),
                            (1, "gives 1 class for 22 images")):  # fmt: skip
        images = dataclasses.replace(given.images, labels=np.full(22, labels, np.int32))
        with pytest.raises(UserError, match=message):
            labels_of(dataclasses.replace(given, images=images))
    headless = give(
        "lsp:labels=surrogate", tmp_path, mesh, surrogate=lambda: surrogate(16, head=False)
    )
    with pytest.raises(UserError, match="surrogate mean has no ImageNet classifier"):
        labels_of(headless)
    with pytest.raises(UserError, match="unknown labels of a row 'clusters'"):
        labels_of(give("lsp:labels=clusters", tmp_path, mesh))
