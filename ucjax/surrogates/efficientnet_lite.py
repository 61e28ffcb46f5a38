"""EfficientNet-Lite0's 1280-d pooled features: the default surrogate, with weights that install.

The network is TensorFlow's `efficientnet-lite0` (the EfficientNet of arXiv:1905.11946 without
squeeze-and-excitation, with ReLU6), trained on ImageNet. Its weights (Apache-2.0) are among the
package's assets, in the names of the EfficientNet-PyTorch project. It is frozen, so batch
normalisation is folded into the convolutions once, when they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from ucjax.errors import UserError
from ucjax.ops import convolution
from ucjax.runtime import platforms
from ucjax.surrogates import pretrained
from ucjax.surrogates.base import Preprocessing, Surrogate

Params = dict[str, Any]

PREPROCESSING = Preprocessing(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
SHA256 = "0c677c314df2a69239bef9609a095a957201d5092462c5ace5d8bf3e0201bbd7"

_FOLDER = Path(__file__).parents[1] / "assets" / "efficientnet_lite0"
_COUNTERS = "num_batches_tracked"  # of batch normalisation, in files of others
# Repeats, kernel, stride of the first block, expansion and output channels of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _TOTAL_STRIDE = 32, 1280, 32
_CLASSIFIER = {"_fc.weight": (1000, _HEAD), "_fc.bias": (1000,)}
_BATCH_NORM_EPSILON = 1e-3


class _Block(NamedTuple):
    """An inverted residual block: 1x1 expansion, depthwise convolution, 1x1 projection."""

    kernel: int
    stride: int
    inputs: int
    expanded: int
    outputs: int


def _blocks() -> Iterator[_Block]:
    inputs = _STEM
    for repeats, kernel, stride, expansion, outputs in _STAGES:
        for i in range(repeats):
            yield _Block(kernel, 1 if i else stride, inputs, expansion * inputs, outputs)
            inputs = outputs


_BLOCKS = tuple(_blocks())


def load(path: str, image_size: int, precision: str = "auto") -> Surrogate:
    """Loads the network: `path` is a safetensors file (or its folder), or "" for the package's.

    Raises:
      UserError: the weights are missing or others, or an image smaller than the stride.
    """
    if image_size < _TOTAL_STRIDE:
        raise UserError(
            f"image size {image_size} is below {_TOTAL_STRIDE}, EfficientNet's total stride"
        )
    checkpoint = _find(path)
    sha256 = pretrained.sha256(checkpoint)
    if not path and sha256 != SHA256:
        raise UserError(
            f"{checkpoint.weights[0]} has SHA-256 {sha256[:12]}…, expected {SHA256[:12]}…: not the "
            "weights that come with ucjax, install it again"
        )
    tensors = pretrained.read_tensors(checkpoint, lambda name: not name.endswith(_COUNTERS))
    shapes = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in _shapes().items()}
    if not _CLASSIFIER.keys() & tensors.keys():
        shapes = {name: shape for name, shape in shapes.items() if name not in _CLASSIFIER}
    weights = pretrained.fill(checkpoint, "EfficientNet-Lite0", shapes, tensors)
    features = partial(embed, precision=precision)
    return Surrogate(
        embed=features,
        params=_fold(weights),
        image_size=image_size,
        preprocessing=PREPROCESSING,
        id=f"efficientnet_lite0:{path}" if path else "efficientnet_lite0",
        sha256=sha256,
        logits=pretrained.classifier(features) if "_fc" in weights else None,
    )


def published() -> dict[str, np.ndarray]:
    """Returns the weights that come with ucjax, with their names and axes in PyTorch.

    Raises:
      UserError: they are missing or damaged.
    """
    return pretrained.read_tensors(_find(""), lambda name: True)


def embed(params: Params, images: jax.Array, precision: str = "auto") -> jax.Array:
    """Returns the pooled features `[b, 1280]` of images `[b, h, w, 3]` in [0, 1]."""
    dtype = platforms.compute_dtype(precision)
    return convolution.in_slices(partial(_embed, params, dtype), images)


def _find(path: str) -> pretrained.Checkpoint:
    place = Path(path).expanduser() if path else _FOLDER
    if not place.exists():
        cure = "no such file or folder" if path else "they come with ucjax, install it again"
        raise UserError(f"surrogate weights {path or place}: {cure}")
    return pretrained.find(str(place))


def _shapes() -> dict[str, tuple[int, ...]]:
    """Names and PyTorch shapes of the weights, as published."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(prefix: str, convolution: str, norm: str, *shape: int) -> None:
        shapes[f"{prefix}{convolution}.weight"] = shape
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{prefix}{norm}.{leaf}"] = shape[:1]

    add("", "_conv_stem", "_bn0", _STEM, 3, 3, 3)
    for i, (kernel, _, inputs, expanded, outputs) in enumerate(_BLOCKS):
        if expanded != inputs:
            add(f"_blocks.{i}.", "_expand_conv", "_bn0", expanded, inputs, 1, 1)
        add(f"_blocks.{i}.", "_depthwise_conv", "_bn1", expanded, 1, kernel, kernel)
        add(f"_blocks.{i}.", "_project_conv", "_bn2", outputs, expanded, 1, 1)
    add("", "_conv_head", "_bn1", _HEAD, _BLOCKS[-1].outputs, 1, 1)
    return shapes | _CLASSIFIER


def _fold(weights: Params) -> Params:
    """Folds each batch normalisation into the convolution before it."""
    blocks = []
    for i, block in enumerate(_BLOCKS):
        of_block = weights["_blocks"][str(i)]
        parts = {
            "depthwise": _folded(of_block["_depthwise_conv"], of_block["_bn1"]),
            "project": _folded(of_block["_project_conv"], of_block["_bn2"]),
        }
        if block.expanded != block.inputs:
            parts["expand"] = _folded(of_block["_expand_conv"], of_block["_bn0"])
        blocks.append(parts)
    folded = {
        "stem": _folded(weights["_conv_stem"], weights["_bn0"]),
        "blocks": blocks,
        "head": _folded(weights["_conv_head"], weights["_bn1"]),
    }
    if "_fc" not in weights:
        return folded
    kernel = np.ascontiguousarray(weights["_fc"]["weight"].T)
    return folded | {"classifier": {"kernel": kernel, "bias": weights["_fc"]["bias"]}}


def _folded(convolution: Params, norm: Params) -> Params:
    """Kernel `[k, k, c, d]` (`[k, k, d]` if depthwise, `[c, d]` if 1x1) and bias `[1, 1, 1, d]`."""
    scale = norm["weight"] / np.sqrt(norm["running_var"] + _BATCH_NORM_EPSILON)
    kernel = (convolution["weight"].transpose(2, 3, 1, 0) * scale).squeeze()
    bias = (norm["bias"] - norm["running_mean"] * scale).reshape(1, 1, 1, -1)
    return {"kernel": np.ascontiguousarray(kernel), "bias": bias}


def _embed(params: Params, dtype: Any, images: jax.Array) -> jax.Array:
    params = jax.tree.map(lambda weights: weights.astype(dtype), params)
    x = pretrained.normalize(images, PREPROCESSING).astype(dtype)
    padding = convolution.same_padding((x.shape[1], x.shape[2]), 3, 2)
    kernel, bias = params["stem"]["kernel"], params["stem"]["bias"]
    x = _relu6(convolution.conv2d(x, kernel, stride=2, padding=padding) + bias)
    for block, weights in zip(_BLOCKS, params["blocks"], strict=True):
        x = _inverted_residual(block, weights, x)
    return _relu6(_product(params["head"], x)).astype(np.float32).mean((1, 2))


def _inverted_residual(block: _Block, weights: Params, x: jax.Array) -> jax.Array:
    y = _relu6(_product(weights["expand"], x)) if "expand" in weights else x
    padding = convolution.same_padding((x.shape[1], x.shape[2]), block.kernel, block.stride)
    kernel, bias = weights["depthwise"]["kernel"], weights["depthwise"]["bias"]
    y = convolution.depthwise_conv2d(y, kernel, stride=block.stride, padding=padding)
    y = _product(weights["project"], _relu6(y + bias))
    return x + y if block.stride == 1 and block.inputs == block.outputs else y


def _product(weights: Params, x: jax.Array) -> jax.Array:
    """A 1x1 convolution; as a matrix product it is fast everywhere."""
    return x @ weights["kernel"] + weights["bias"]


def _relu6(x: jax.Array) -> jax.Array:
    # Its gradient keeps one byte an element, where those of `jnp.clip` and `relu6` keep floats.
    return lax.clamp(x.dtype.type(0), x, x.dtype.type(6))
