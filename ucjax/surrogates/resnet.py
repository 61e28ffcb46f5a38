"""ImageNet ResNet-50's 2048-d pooled features (arXiv:1512.03385): the surrogate of "UC".

The network is transformers' Flax ResNet; weights come in torchvision's layout, which is timm's
too, or in transformers'. All three have the stride of a block in its 3x3 convolution.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from transformers import ResNetConfig
from transformers.models.resnet.modeling_flax_resnet import FlaxResNetModule

from ucjax.errors import UserError
from ucjax.ops import convolution
from ucjax.runtime import platforms
from ucjax.surrogates import pretrained
from ucjax.surrogates.base import Surrogate

# torchvision's IMAGENET1K_V1 weights as safetensors; torchvision itself publishes pickles only.
DEFAULT = "timm/resnet50.tv_in1k"

_STRIDE = 32
# torchvision's names, made transformers'; applied in order, each at most once a name.
_RENAMES = (
    (r"^(fc|classifier\.1)\.", "classifier."),
    (r"^conv1\.", "embedder.embedder.convolution."),
    (r"^bn1\.", "embedder.embedder.normalization."),
    (r"^layer([1-4])\.(\d+)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}."),
    (r"\.conv([1-3])\.", lambda m: f".layer.{int(m[1]) - 1}.convolution."),
    (r"\.bn([1-3])\.", lambda m: f".layer.{int(m[1]) - 1}.normalization."),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
)


class ResNet(FlaxResNetModule):
    """transformers' network, its convolutions in the form that the platform runs best."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what transformers' module does."""
        with nn.intercept_methods(_convolve):
            return super().__call__(*args, **kwargs)


def _convolve(
    call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
) -> Any:
    layer = context.module
    if not isinstance(layer, nn.Conv) or not platforms.on_cpu() or layer.is_initializing():
        return call(*args, **kwargs)
    # All of them are without bias and padded by half their kernel.
    kernel: Any = layer.get_variable("params", "kernel")
    stride: Any = layer.strides
    half = kernel.shape[0] // 2
    x, kernel = args[0].astype(layer.dtype), kernel.astype(layer.dtype)
    return convolution.conv2d(x, kernel, stride=stride, padding=((half, half), (half, half)))


def load(path: str, image_size: int, precision: str = "auto") -> Surrogate:
    """Loads an ImageNet ResNet of bottleneck blocks: a folder, weight file or Hugging Face id.

    Raises:
      UserError: no such checkpoint, weights that do not fit, preprocessing that is not stated,
        or an image smaller than the network's stride.
    """
    if image_size < _STRIDE:
        raise UserError(f"image size {image_size} is below {_STRIDE}, a ResNet's total stride")
    checkpoint = pretrained.find(path or DEFAULT)
    preprocessing = pretrained.read_preprocessing(checkpoint)
    tensors = dict(
        _to_flax(name, tensor)
        for name, tensor in pretrained.read_tensors(checkpoint, _is_weight).items()
    )
    network = ResNet(_read_config(checkpoint, tensors))
    blank = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    targets = jax.eval_shape(network.init, jax.random.key(0), blank)
    head = [tensor for name, tensor in tensors.items() if name.startswith("classifier.")]
    if head:
        channels, classes = network.config.hidden_sizes[-1], head[0].shape[-1]
        shapes = {"kernel": (channels, classes), "bias": (classes,)}
        targets |= {
            "classifier": {k: jax.ShapeDtypeStruct(v, np.float32) for k, v in shapes.items()}
        }
    variables = pretrained.fill(checkpoint, "ResNet-50", targets, tensors)

    def embed(variables: Any, images: jax.Array) -> jax.Array:
        pixels = pretrained.normalize(images, preprocessing)
        dtype = platforms.compute_dtype(precision)
        outputs: Any = network.clone(dtype=dtype).apply(variables, pixels)
        # Its own pooling would sum in the network's precision.
        return outputs.last_hidden_state.astype(jnp.float32).mean((2, 3))

    return Surrogate(
        embed=embed,
        params=variables,
        image_size=image_size,
        preprocessing=preprocessing,
        id=f"rn50:{checkpoint.name}",
        sha256=pretrained.sha256(checkpoint),
        logits=pretrained.classifier(embed) if head else None,
    )


def _is_weight(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def _to_flax(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    for prefix in ("params.", "batch_stats.", "resnet."):
        name = name.removeprefix(prefix)
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name, count=1)
    name, tensor = pretrained.to_flax(name, tensor)
    if name.startswith("classifier."):
        return name, tensor
    collection = "batch_stats" if name.endswith((".mean", ".var")) else "params"
    return f"{collection}.{name}", tensor


def _read_config(checkpoint: pretrained.Checkpoint, tensors: pretrained.Tensors) -> ResNetConfig:
    """The config beside the weights or, in torchvision's layout, which has none, of the weights."""
    values = pretrained.read_config(checkpoint, "config.json")
    if values.get("model_type") == "resnet":
        config = ResNetConfig.from_dict(values)
        # transformers' Flax class has the stride in the 3x3 convolution, whatever the config says.
        if config.layer_type != "bottleneck" or config.downsample_in_bottleneck:
            raise UserError(
                f"{checkpoint.name}: layer_type {config.layer_type!r} with "
                f"downsample_in_bottleneck {config.downsample_in_bottleneck} is not a ResNet-50 "
                "('bottleneck', false): pass the weights of one"
            )
        return config
    stem = tensors.get("params.embedder.embedder.convolution.kernel")
    stages = [
        re.compile(rf"params\.encoder\.stages\.{stage}\.layers\.\d+\.layer\.2\.convolution\.kernel")
        for stage in range(4)
    ]
    blocks = [[name for name in tensors if stage.fullmatch(name)] for stage in stages]
    if stem is None or not all(blocks):
        return ResNetConfig()  # not a ResNet: `fill` says what does not fit
    return ResNetConfig(
        embedding_size=stem.shape[-1],
        hidden_sizes=[tensors[names[0]].shape[-1] for names in blocks],
        depths=[len(names) for names in blocks],
    )
