"""Makes `generator.npz`: what the noise generator, narrowed to 4 channels, computes in PyTorch.

    python tests/golden/make_generator.py

needs torch. The weights and inputs are drawn from a seed here and in the test alike, so the file
holds outputs and gradients only.
"""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("generator.npz")
WIDTH, BLOCKS, SIZE = 4, 1, 20


def draw(shapes, seed=0):
    """Draws an array for every `name -> shape`, in the order of the names."""
    rng = np.random.default_rng(seed)
    return {name: 0.3 * rng.standard_normal(shapes[name], np.float32) for name in sorted(shapes)}


def inputs(seed=1):
    """Returns two images `[2, s, s, 3]` and the gradients of their outputs."""
    rng = np.random.default_rng(seed)
    z = rng.random((2, SIZE, SIZE, 3), np.float32)
    return z, rng.standard_normal(z.shape, np.float32)


def build():
    """Returns the network and its parameters by our names."""
    from torch import nn

    named = {}

    def norm(name, channels):
        layer = nn.BatchNorm2d(channels)
        named[f"{name}/scale"], named[f"{name}/bias"] = layer.weight, layer.bias
        return layer

    def conv(name, *args, kind=nn.Conv2d, **settings):
        layer = kind(*args, bias=False, **settings)
        named[f"{name}/kernel"] = layer.weight
        return layer

    class Block(nn.Module):
        def __init__(self, name, c):
            super().__init__()
            self.body = nn.Sequential(
                nn.ReflectionPad2d(1), conv(f"{name}/conv1", c, c, 3), norm(f"{name}/norm1", c),
                nn.ReLU(),
                nn.ReflectionPad2d(1), conv(f"{name}/conv2", c, c, 3), norm(f"{name}/norm2", c),
            )  # fmt: skip

        def forward(self, x):
            return x + self.body(x)

    w = WIDTH
    up = {"kind": nn.ConvTranspose2d, "stride": 2, "padding": 1, "output_padding": 1}
    head = nn.Conv2d(w, 3, 7)
    named["head/kernel"], named["bias"] = head.weight, head.bias
    net = nn.Sequential(
        nn.ReflectionPad2d(3), conv("stem", 3, w, 7), norm("stem_norm", w), nn.ReLU(),
        conv("down1", w, 2 * w, 3, stride=2, padding=1), norm("down1_norm", 2 * w), nn.ReLU(),
        conv("down2", 2 * w, 4 * w, 3, stride=2, padding=1), norm("down2_norm", 4 * w), nn.ReLU(),
        *(Block(f"block{i}", 4 * w) for i in range(1, BLOCKS + 1)),
        conv("up1", 4 * w, 2 * w, 3, **up), norm("up1_norm", 2 * w), nn.ReLU(),
        conv("up2", 2 * w, w, 3, **up), norm("up2_norm", w), nn.ReLU(),
        nn.ReflectionPad2d(3), head, nn.Tanh(),
    )  # fmt: skip
    return net, named


# Our axes in torch's order, and back.
KERNEL, KERNEL_BACK = (3, 2, 0, 1), (2, 3, 1, 0)
TRANSPOSED, TRANSPOSED_BACK = (2, 3, 0, 1), (2, 3, 0, 1)


def main():
    """Writes the outputs for two images, one call each, and the first one's gradients."""
    import torch

    net, named = build()
    back = {
        name: (TRANSPOSED_BACK if name.startswith("up") else KERNEL_BACK)
        for name in named
        if name.endswith("kernel")
    }

    def ours(name, tensor):
        x = tensor.detach().numpy()
        if name in back:
            return x.transpose(back[name])
        return x.reshape(1, 1, 1, -1) if "norm" in name else x

    weights = draw({name: ours(name, x).shape for name, x in named.items()})
    with torch.no_grad():
        for name, x in named.items():
            value = weights[name]
            if name in back:
                value = value.transpose(TRANSPOSED if name.startswith("up") else KERNEL)
            x.copy_(torch.from_numpy(np.ascontiguousarray(value)).reshape(x.shape))
    z, g = (torch.from_numpy(x).permute(0, 3, 1, 2) for x in inputs())
    outputs = [net(one[None]) for one in z]
    (outputs[0] * g[:1]).sum().backward()
    results = {f"gradient/{name}": ours(name, x.grad) for name, x in named.items()}
    results["outputs"] = torch.cat(outputs).detach().permute(0, 2, 3, 1).numpy()
    np.savez_compressed(GOLDEN, **results)


if __name__ == "__main__":
    main()
