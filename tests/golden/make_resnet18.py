"""Makes `resnet18.npz`: what torchvision's ResNet-18, narrowed to 8 channels, computes.

    python tests/golden/make_resnet18.py [--width 64]

needs torch and torchvision. With another width it only compares and writes nothing. The weights
and inputs are drawn from a seed here and in the test alike, so the file holds outputs only.
"""

import argparse
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("resnet18.npz")
WIDTH, CLASSES, INPUTS = 8, 5, (4, 45, 38, 3)
# One of each kind and depth: all of them would be 700 KB.
GRADIENTS = (
    "params/conv1/kernel", "params/bn1/scale", "params/bn1/bias", "params/layer1_0/conv2/kernel",
    "params/layer2_0/downsample_conv/kernel", "params/layer2_0/downsample_bn/scale",
    "params/layer4_1/bn2/bias", "params/fc/kernel", "params/fc/bias",
)  # fmt: skip


def draw(shapes, seed=0):
    """Draws an array for every `collection/…/name -> shape`, in the order of the names."""
    rng = np.random.default_rng(seed)

    def one(name, shape):
        values = rng.standard_normal(shape).astype(np.float32)
        if name.endswith("kernel"):
            return values * np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        if name.endswith(("scale", "var")):
            return 1 + np.float32(0.5) * np.tanh(values)
        return np.float32(0.2) * values

    return {name: one(name, shapes[name]) for name in sorted(shapes)}


def inputs(seed=1):
    """Returns images `[b, h, w, 3]` and labels `[b]`."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal(INPUTS).astype(np.float32)
    return images, rng.integers(0, CLASSES, INPUTS[0])


def torch_name(name):
    """Translates `params/layer1_0/downsample_conv/kernel` to `layer1.0.downsample.0.weight`."""
    name = name.split("/", 1)[1].replace("downsample_conv", "downsample/0")
    name = name.replace("downsample_bn", "downsample/1").replace("_", "/").replace("/", ".")
    kind = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    stem, last = name.rsplit(".", 1)
    return f"{stem}.{kind.get(last, last)}"


def to_torch(x):
    """Moves axes from flax's order to torch's."""
    return x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T


def from_torch(x):
    """Moves axes from torch's order to flax's."""
    return x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T


def build(width):
    """Returns torchvision's ResNet-18 with `width` channels in its first stage."""
    import torch
    from torchvision.models.resnet import BasicBlock, ResNet

    class Narrow(ResNet):
        def _make_layer(self, block, planes, *args, **kwargs):
            if planes == 64:
                self.inplanes = width
            return super()._make_layer(block, planes * width // 64, *args, **kwargs)

    net = Narrow(BasicBlock, [2, 2, 2, 2], num_classes=CLASSES)
    net.conv1 = torch.nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
    net.bn1 = torch.nn.BatchNorm2d(width)
    net.fc = torch.nn.Linear(8 * width, CLASSES)
    return net


def compute(net, weights):
    """Returns logits in both modes, and after one training pass gradients and statistics."""
    import torch

    state = {torch_name(name): torch.tensor(to_torch(x).copy()) for name, x in weights.items()}
    counters = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    net.load_state_dict(state | counters)
    images, labels = inputs()
    images, labels = torch.tensor(images.transpose(0, 3, 1, 2).copy()), torch.tensor(labels)
    net.eval()
    outputs = {"eval_logits": net(images).detach().numpy()}
    net.train()
    logits = net(images)
    torch.nn.functional.cross_entropy(logits, labels).backward()
    outputs["train_logits"] = logits.detach().numpy()
    parameters, buffers = dict(net.named_parameters()), dict(net.named_buffers())
    for name in weights:
        if name in GRADIENTS:
            outputs[name] = from_torch(parameters[torch_name(name)].grad.numpy())
        if name.startswith("batch_stats"):
            outputs[name] = buffers[torch_name(name)].numpy()
    return outputs


def main():
    import jax
    import jax.numpy as jnp
    from flax.traverse_util import flatten_dict, unflatten_dict

    from ucjax.networks.resnet import ResNet18

    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=WIDTH)
    width = parser.parse_args().width
    net = ResNet18(CLASSES, width)
    images, _ = inputs()
    variables = jax.eval_shape(lambda key: net.init(key, images, train=False), jax.random.key(0))
    shapes = {k: v.shape for k, v in flatten_dict(variables, sep="/").items()}
    weights = draw(shapes)
    outputs = compute(build(width), weights)
    if width == WIDTH:
        np.savez_compressed(GOLDEN, **outputs)
    ours = net.apply(unflatten_dict(weights, sep="/"), jnp.asarray(images), train=False)
    worst = np.abs(ours - outputs["eval_logits"]).max() / np.abs(outputs["eval_logits"]).max()
    print(f"width {width}: {len(weights)} arrays, eval logits differ by {worst:.1e} (relative)")


if __name__ == "__main__":
    main()
