"""EfficientNet-Lite0 from the ImageNet weights that come with ucjax: a victim that knows photos.

Whoever trains on downloaded pictures will rarely start from nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ucjax.surrogates import efficientnet_lite
from ucjax.victims.models.efficientnet import LITE0, EfficientNet, Style

MEAN, STD = efficientnet_lite.PREPROCESSING.mean, efficientnet_lite.PREPROCESSING.std
_EPSILON = 1e-3
_LEAVES = {
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
    "bias": ("params", "bias"),
}


def network(num_classes: int, *, axis_name: str | None, tune: bool) -> EfficientNet:
    """Returns Lite0 with a new head.

    Args:
      num_classes: number of logits.
      axis_name: mapped axis over which the batch is spread; None for none.
      tune: whether more than the head is trained, and BatchNorm goes on with its averages.
    """
    style = Style(lite=True, epsilon=_EPSILON, axis_name=axis_name, tune=tune)
    return EfficientNet(num_classes, LITE0, style=style)


def start(variables: Any) -> Any:
    """Returns the variables with all weights but the head's as published.

    Raises:
      UserError: the weights are missing or damaged.
    """
    drawn = flatten_dict(variables)
    published = dict(
        _ours(name, tensor)
        for name, tensor in efficientnet_lite.published().items()
        if not name.startswith("_fc")
    )
    expected = {path: np.shape(x) for path, x in drawn.items() if path[1] != "fc"}
    if (found := {path: x.shape for path, x in published.items()}) != expected:
        wrong = sorted("/".join(path) for path, _ in found.items() ^ expected.items())
        raise ValueError(f"weights of EfficientNet-Lite0 do not fit the network: {wrong[:3]}")
    return unflatten_dict({**drawn, **published})


def in_head(path: tuple[str, ...]) -> bool:
    """Whether a parameter is one of the head's, which a linear probe trains."""
    return path[0] == "fc"


def _ours(name: str, tensor: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Turns `_blocks.3._bn1.weight` into `params/blocks_3/bn1/scale` and its axes into flax's."""
    *scopes, leaf = name.replace("_blocks.", "_blocks_").split(".")
    modules = tuple(scope.removeprefix("_") for scope in scopes)
    if leaf in _LEAVES:
        collection, leaf = _LEAVES[leaf]
        return (collection, *modules, leaf), tensor
    if tensor.ndim == 1:
        return ("params", *modules, "scale"), tensor
    kernel = tensor.transpose(2, 3, 1, 0)
    if "depthwise" in name:
        kernel = kernel[:, :, 0]
    elif kernel.shape[:2] == (1, 1):
        kernel = kernel[0, 0]
    return ("params", *modules, "kernel"), np.ascontiguousarray(kernel)
