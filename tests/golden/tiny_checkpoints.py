"""Tiny CLIP and ResNet checkpoints, and a ResNet-50, in the published layouts, without torch.

The tests and `make_towers.py` write the same ones: every weight is drawn from a seed that is its
name, so that golden files need to hold outputs only.
"""

import json
import zlib

import numpy as np
from safetensors.numpy import save_file

MEAN, STD = (0.48, 0.45, 0.40), (0.27, 0.26, 0.28)
CLIP_CONFIG = {
    "model_type": "clip",
    "projection_dim": 16,
    "vision_config": {
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
        "projection_dim": 16, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    },
}  # fmt: skip
RESNET_CONFIG = {
    "model_type": "resnet", "embedding_size": 64, "hidden_sizes": [32, 64, 128, 256],
    "depths": [1, 2, 1, 1], "layer_type": "bottleneck", "hidden_act": "relu",
}  # fmt: skip
RESNET50_CONFIG = {
    "embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3],
}  # fmt: skip
# As timm 1.0.31 states it for resnet50.tv_in1k, less the addresses.
TIMM_CONFIG = {
    "architecture": "resnet50", "num_classes": 1000, "num_features": 2048,
    "pretrained_cfg": {
        "tag": "tv_in1k", "custom_load": False, "input_size": [3, 224, 224],
        "fixed_input_size": False, "interpolation": "bilinear", "crop_pct": 0.875,
        "crop_mode": "center", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        "num_classes": 1000, "pool_size": [7, 7], "first_conv": "conv1", "classifier": "fc",
    },
}  # fmt: skip
CLIP_RESNET_WIDTH, CLIP_RESNET_GRID, CLIP_RESNET_DIMENSIONS = 8, 2, 12
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def images(size, seed=7):
    """Pixels `[2, size, size, 3]` in [0, 1]."""
    return np.random.default_rng(seed).random((2, size, size, 3), np.float32)


def draw(shapes):
    """Draws a tensor for every `name: shape`."""
    return {name: _draw(name, shape) for name, shape in shapes.items()}


def _draw(name, shape):
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if len(shape) > 1 and "embedding" not in name:
        return values * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if name.endswith(("running_var", "weight")) and len(shape) == 1:
        return 1 + np.float32(0.3) * np.tanh(values)
    return np.float32(0.2) * values


def clip_shapes():
    """An image tower in transformers' layout, with pieces of the text tower beside it."""
    config = CLIP_CONFIG["vision_config"]
    width, hidden = config["hidden_size"], config["intermediate_size"]
    patch, grid = config["patch_size"], config["image_size"] // config["patch_size"]
    shapes = {
        "logit_scale": (),
        "text_model.embeddings.token_embedding.weight": (11, 24),
        "text_projection.weight": (16, 24),
        "vision_model.embeddings.class_embedding": (width,),
        "vision_model.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": (1 + grid * grid, width),
        "vision_model.embeddings.position_ids": (1, 1 + grid * grid),
        "visual_projection.weight": (CLIP_CONFIG["projection_dim"], width),
    }
    layers = {"pre_layrnorm": (width,), "post_layernorm": (width,)}
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layers.{i}."
        layers |= {f"{layer}layer_norm{j}": (width,) for j in (1, 2)}
        layers |= {f"{layer}self_attn.{x}_proj": (width, width) for x in ("q", "k", "v", "out")}
        layers |= {f"{layer}mlp.fc1": (hidden, width), f"{layer}mlp.fc2": (width, hidden)}
    for name, shape in layers.items():
        shapes[f"vision_model.{name}.weight"] = shape
        shapes[f"vision_model.{name}.bias"] = shape[:1]
    return shapes


def _norm(name, width):
    return {f"{name}.{leaf}": (width,) for leaf in BATCH_NORM} | {f"{name}.num_batches_tracked": ()}


def clip_resnet_shapes():
    """An image tower in open_clip's layout, with a piece of the text tower beside it."""
    width = CLIP_RESNET_WIDTH
    shapes = {"logit_scale": (), "transformer.resblocks.0.ln_1.weight": (24,)}
    previous = 3
    for i, features in enumerate((width // 2, width // 2, width), start=1):
        shapes[f"visual.conv{i}.weight"] = (features, previous, 3, 3)
        shapes |= _norm(f"visual.bn{i}", features)
        previous = features
    for stage, depth in enumerate(RESNET_CONFIG["depths"]):
        for block in range(depth):
            name = f"visual.layer{stage + 1}.{block}"
            shapes |= _bottleneck(name, previous, width << stage, block == 0)
            previous = 4 * width << stage
    for x in ("q", "k", "v", "c"):
        rows = CLIP_RESNET_DIMENSIONS if x == "c" else previous
        shapes[f"visual.attnpool.{x}_proj.weight"] = (rows, previous)
        shapes[f"visual.attnpool.{x}_proj.bias"] = (rows,)
    shapes["visual.attnpool.positional_embedding"] = (1 + CLIP_RESNET_GRID**2, previous)
    return shapes


def _bottleneck(name, inputs, width, project):
    shapes = {}
    sizes = ((width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1))
    for i, size in enumerate(sizes, start=1):
        shapes[f"{name}.conv{i}.weight"] = size
        shapes |= _norm(f"{name}.bn{i}", size[0])
    if project:
        shapes[f"{name}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
        shapes |= _norm(f"{name}.downsample.1", 4 * width)
    return shapes


def resnet_shapes(config=RESNET_CONFIG, classes=5):
    """An ImageNet ResNet in torchvision's layout, with its classifier."""
    previous = config["embedding_size"]
    shapes = {"conv1.weight": (previous, 3, 7, 7)} | _norm("bn1", previous)
    stages = zip(config["hidden_sizes"], config["depths"], strict=True)
    for stage, (features, depth) in enumerate(stages, start=1):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            shapes |= _bottleneck(name, previous, features // 4, block == 0)
            previous = features
    return shapes | {"fc.weight": (classes, previous), "fc.bias": (classes,)}


def rename_to_transformers(name):
    """Gives a tensor of torchvision's ResNet the name it has in transformers."""
    scope, _, leaf = name.rpartition(".")
    if scope == "fc":
        return f"classifier.1.{leaf}"
    if "." not in scope:
        kind = "convolution" if scope == "conv1" else "normalization"
        return f"resnet.embedder.embedder.{kind}.{leaf}"
    stage, block, module = scope.removeprefix("layer").split(".", 2)
    module = {"downsample.0": "shortcut.convolution", "downsample.1": "shortcut.normalization"}.get(
        module,
        f"layer.{int(module[-1]) - 1}.{'convolution' if 'conv' in module else 'normalization'}",
    )
    return f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}.{module}.{leaf}"


def rename_to_timm(name):
    """Gives a tensor of open_clip's image tower the name it has in timm."""
    scope, _, leaf = name.removeprefix("visual.").rpartition(".")
    if scope == "attnpool":
        return "head.pos_embed"
    if scope.startswith("attnpool"):
        x = scope.removeprefix("attnpool.")
        return f"head.{'proj' if x == 'c_proj' else x[0]}.{leaf}"
    if "." not in scope:
        return f"stem.conv{scope[-1]}.{scope[:-1]}.{leaf}"
    stage, block, module = scope.removeprefix("layer").split(".", 2)
    if module.startswith("downsample"):
        module = "shortcut.conv." + ("conv" if module.endswith("0") else "bn")
    else:
        kernel = "kxk" if module[-1] == "2" else "1x1"
        module = f"conv{module[-1]}_{kernel}.{module[:-1]}"
    return f"stages.{int(stage) - 1}.{block}.{module}.{leaf}"


def write(folder, tensors, **configs):
    """Writes `model.safetensors` and each of `configs` as `<name>.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    return folder


def write_clip(folder):
    """Writes a CLIP vision transformer in transformers' layout."""
    preprocessor = {"image_mean": MEAN, "image_std": STD, "crop_size": {"height": 32, "width": 32}}
    return write(folder, draw(clip_shapes()), config=CLIP_CONFIG, preprocessor_config=preprocessor)


def write_clip_resnet(folder, layout):
    """Writes a CLIP ResNet in the layout of "open_clip" or "timm"."""
    tensors = draw(clip_resnet_shapes())
    statistics = {"mean": MEAN, "std": STD}
    if layout == "open_clip":
        return write(folder, tensors, open_clip_config={"preprocess_cfg": statistics})
    tower = {rename_to_timm(k): v for k, v in tensors.items() if k.startswith("visual.")}
    return write(folder, tower, config={"pretrained_cfg": statistics})


def write_resnet50(folder):
    """Writes a whole ResNet-50, its weights random, as timm publishes torchvision's."""
    return write(folder, draw(resnet_shapes(RESNET50_CONFIG, 1000)), config=TIMM_CONFIG)


def write_resnet(folder, layout):
    """Writes an ImageNet ResNet in the layout of "torchvision" or "transformers"."""
    tensors = draw(resnet_shapes())
    preprocessor = {"image_mean": MEAN, "image_std": STD}
    if layout == "torchvision":
        return write(folder, tensors, preprocessor_config=preprocessor)
    tensors = {rename_to_transformers(name): tensor for name, tensor in tensors.items()}
    return write(folder, tensors, config=RESNET_CONFIG, preprocessor_config=preprocessor)
