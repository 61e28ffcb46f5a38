"""Where a baseline has its labels from: the option `labels` of its row.

The authors' baselines see what an ImageNet classifier calls an image, their victims the true
classes; that the two differ is what the paper finds fault with.
"""

from __future__ import annotations

import numpy as np

from ucjax import names
from ucjax.errors import UserError
from ucjax.protections.contract import Given
from ucjax.surrogates import features

# "true": the victim's own | "surrogate": its head's choice | "cluster": what uc knows
SOURCES = ("true", "surrogate", "cluster")
OPTION = {"labels": "true"}


def labels_of(given: Given) -> tuple[np.ndarray, int]:
    """Returns the label of each image, int32 `[n]`, and how many classes occur, numbered from 0.

    Raises:
      UserError: an unknown source, images without true labels, or a surrogate without a head.
    """
    source = names.known(given.options["labels"], SOURCES, "labels of a row")
    if source == "true":
        labels = given.images.labels
        if not len(labels) or labels.min() < 0:
            raise UserError(
                f"labels=true needs a class for every image, {int(np.sum(labels < 0))} of "
                f"{len(labels)} have none: use labels=cluster"
            )
    elif source == "cluster":
        labels = given.clusters().assignment
    else:
        labels = predictions(given)
    classes, numbered = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise UserError(
            f"labels={source} gives 1 class for {len(labels)} images: at least 2 differ"
        )
    return numbered.astype(np.int32), len(classes)


def predictions(given: Given) -> np.ndarray:
    """Returns the class that the surrogate's own head gives each centre crop, int32 `[n]`.

    Raises:
      UserError: the surrogate has no head.
    """
    config = given.config
    return features.predictions(
        given.surrogate(), given.images, size=config.data.crop, mesh=given.mesh,
        batch_size=config.surrogate.batch_size, progress=given.progress,
    )  # fmt: skip
