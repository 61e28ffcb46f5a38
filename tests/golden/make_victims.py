"""Makes `victims.npz`: logits of torchvision's ResNet-50, RegNet and EfficientNet, made shallow.

    python tests/golden/make_victims.py

needs torch and torchvision. Weights and inputs are drawn from a seed here and in the test alike,
so the file holds logits only: of test mode, and of training mode where nothing is drawn in it.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np

try:
    from golden.make_resnet18 import CLASSES, draw, torch_name
except ImportError:  # run as a script
    from make_resnet18 import CLASSES, draw, torch_name

GOLDEN = Path(__file__).with_name("victims.npz")
STAGES = ((1, 3, 1, 16, 1), (6, 5, 2, 24, 2), (6, 3, 1, 40, 1))
WIDTHS, DEPTHS, GROUP_WIDTH = (16, 32), (1, 2), 8
RESNET_DEPTHS = (2, 1, 1, 1)


def nets():
    """Returns our networks by name."""
    from ucjax.victims.models.efficientnet import EfficientNet
    from ucjax.victims.models.regnet import RegNet
    from ucjax.victims.models.resnet50 import ResNet50

    return {
        "resnet50": ResNet50(CLASSES, depths=RESNET_DEPTHS),
        "regnet": RegNet(CLASSES, WIDTHS, DEPTHS, GROUP_WIDTH),
        "efficientnet": EfficientNet(CLASSES, STAGES, head=64),
    }


def images(seed=1):
    """Returns images `[b, h, w, 3]`."""
    return np.random.default_rng(seed).standard_normal((3, 38, 45, 3)).astype(np.float32)


def weights_of(net):
    """Draws all variables of a network, by their paths."""
    import jax
    from flax.traverse_util import flatten_dict

    shapes = jax.eval_shape(lambda k: net.init(k, images(), train=False), jax.random.key(0))
    return draw({k: v.shape for k, v in flatten_dict(shapes, sep="/").items()})


def theirs():
    """Returns torchvision's networks by name."""
    from torch import nn
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig
    from torchvision.models.regnet import BlockParams, RegNet
    from torchvision.models.resnet import Bottleneck, ResNet

    settings, inputs = [], 32
    for expansion, kernel, stride, outputs, repeats in STAGES:
        settings.append(MBConvConfig(expansion, kernel, stride, inputs, outputs, repeats))
        inputs = outputs
    ones = [1.0] * len(WIDTHS)
    groups, strides = [GROUP_WIDTH] * len(WIDTHS), [2] * len(WIDTHS)
    params = BlockParams([*DEPTHS], [*WIDTHS], groups, ones, strides)
    norm = partial(nn.BatchNorm2d, eps=1e-5, momentum=0.1)
    return {
        "resnet50": ResNet(Bottleneck, [*RESNET_DEPTHS], num_classes=CLASSES),
        "regnet": RegNet(params, num_classes=CLASSES, norm_layer=norm),
        "efficientnet": EfficientNet(settings, 0.2, num_classes=CLASSES, last_channel=64),
    }


def regnet_name(name):
    """Translates `params/block1_0/a_conv/kernel` to `trunk_output.block1.block1-0.f.a.0.weight`."""
    name = name.replace("_conv/", "/0/").replace("_bn/", "/1/")
    name = re.sub(r"/([abc])/", r"/f/\1/", name)
    name = re.sub(r"block(\d)_(\d)", r"trunk/output/block\1/block\1-\2", name)
    return torch_name(name).replace("trunk.output", "trunk_output")


def efficientnet_name(name):
    """Translates `params/blocks_0/bn1/scale` to `features.1.0.block.0.1.weight`."""
    places = {"conv_stem": "features/0/0", "bn0": "features/0/1", "fc": "classifier/1"}
    places |= {"conv_head": f"features/{len(STAGES) + 1}/0", "bn1": f"features/{len(STAGES) + 1}/1"}
    block = 0
    for stage, (expansion, _, _, _, repeats) in enumerate(STAGES):
        for i in range(repeats):
            first = int(expansion > 1)
            inside = {
                "expand_conv": "0/0", "bn0": "0/1", "depthwise_conv": f"{first}/0",
                "bn1": f"{first}/1",
                "se_reduce": f"{first + 1}/fc1", "se_expand": f"{first + 1}/fc2",
                "project_conv": f"{first + 2}/0", "bn2": f"{first + 2}/1",
            }  # fmt: skip
            for ours, place in inside.items():
                places[f"blocks_{block}/{ours}"] = f"features/{stage + 1}/{i}/block/{place}"
            block += 1
    collection, rest = name.split("/", 1)
    module, leaf = rest.rsplit("/", 1)
    return torch_name(f"{collection}/{places[module]}/{leaf}")


NAMES = {"resnet50": torch_name, "regnet": regnet_name, "efficientnet": efficientnet_name}


def to_torch(x, shape):
    """Moves axes from flax's order to torch's, where 1x1 and depthwise kernels have four."""
    if x.ndim == 4:
        return x.transpose(3, 2, 0, 1)
    return (x.transpose(2, 0, 1) if x.ndim == 3 else x.T).reshape(shape)


def main():
    """Writes the file."""
    import torch

    logits, x = {}, torch.tensor(images().transpose(0, 3, 1, 2).copy())
    ours = nets()
    for name, net in theirs().items():
        state = net.state_dict()
        weights = {NAMES[name](path): array for path, array in weights_of(ours[name]).items()}
        missing = {k for k in state if not k.endswith("num_batches_tracked")} ^ weights.keys()
        assert not missing, sorted(missing)
        for path, array in weights.items():
            state[path] = torch.tensor(to_torch(array, tuple(state[path].shape)).copy())
        net.load_state_dict(state)
        logits[f"{name}/eval"] = net.eval()(x).detach().numpy()
        if name != "efficientnet":
            logits[f"{name}/train"] = net.train()(x).detach().numpy()
    np.savez_compressed(GOLDEN, **logits)


if __name__ == "__main__":
    main()
