"""Makes `resnet50.npz`: what torchvision computes with the weights of `write_resnet50`.

    python tests/golden/make_resnet50.py

needs torch, torchvision and timm. It holds pooled features and logits of `images(64)`.
"""

import tempfile
from pathlib import Path

import numpy as np
import tiny_checkpoints as tiny

GOLDEN = Path(__file__).with_name("resnet50.npz")


def main():
    """Writes the file."""
    import torch
    from safetensors.torch import load_file
    from timm.models import get_pretrained_cfg
    from torchvision.models import resnet50

    stated, ours = get_pretrained_cfg("resnet50.tv_in1k"), tiny.TIMM_CONFIG["pretrained_cfg"]
    assert ours.items() <= {k: _plain(v) for k, v in stated.to_dict().items()}.items()
    with tempfile.TemporaryDirectory() as folder:
        tensors = load_file(tiny.write_resnet50(Path(folder)) / "model.safetensors")
    network = resnet50(weights=None).eval()
    network.load_state_dict(tensors)  # strict: the names and shapes are all torchvision's
    mean, std = (torch.tensor(ours[key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels = (torch.from_numpy(tiny.images(64)).permute(0, 3, 1, 2) - mean) / std
    head, network.fc = network.fc, torch.nn.Identity()
    with torch.no_grad():
        features = network(pixels)
        logits = head(features)
    np.savez_compressed(GOLDEN, features=features.numpy(), logits=logits.numpy())
    print(features.shape, logits.std(), logits.argmax(1), GOLDEN.stat().st_size)


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


if __name__ == "__main__":
    main()
