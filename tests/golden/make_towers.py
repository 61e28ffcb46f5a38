"""Makes `towers.npz`: what PyTorch's CLIP and ResNet image towers compute for tiny checkpoints.

    python tests/golden/make_towers.py

needs torch, torchvision, timm and transformers. For each tower it holds the features of
`tiny_checkpoints.images` at the model's own size and at another one, and the gradient of
sum(features²) / 2 with respect to the pixels of the first image at the first size.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import tiny_checkpoints as tiny
import torch
from safetensors.torch import load_file
from timm.models import byobnet
from timm.models import resnet as timm_resnet
from transformers import CLIPVisionModelWithProjection, ResNetModel

GOLDEN = Path(__file__).with_name("towers.npz")


def clip(folder):
    """transformers' CLIP vision transformer."""
    model = CLIPVisionModelWithProjection.from_pretrained(tiny.write_clip(folder))
    return lambda x: model(pixel_values=x, interpolate_pos_encoding=True).image_embeds


def clip_resnet(folder):
    """timm's CLIP ResNet, which reads open_clip's layout."""
    width, stages = tiny.CLIP_RESNET_WIDTH, tiny.RESNET_CONFIG["depths"]
    published = byobnet.model_cfgs["resnet50_clip"]
    blocks = tuple(
        replace(block, d=depth, c=4 * width << stage)
        for stage, (block, depth) in enumerate(zip(published.blocks, stages, strict=True))
    )
    config = replace(published, blocks=blocks, stem_chs=(width // 2, width // 2, width))
    dimensions, size = tiny.CLIP_RESNET_DIMENSIONS, 32 * tiny.CLIP_RESNET_GRID
    model = byobnet.ByobNet(config, num_classes=dimensions, img_size=size)
    tensors = load_file(tiny.write_clip_resnet(folder, "open_clip") / "model.safetensors")
    tensors = byobnet.checkpoint_filter_fn(tensors, model)
    ours = load_file(tiny.write_clip_resnet(folder, "timm") / "model.safetensors")
    assert ours.keys() == tensors.keys() == model.state_dict().keys()
    model.load_state_dict(tensors)
    return model.eval()


def resnet(folder):
    """transformers' ResNet, which has to agree with timm's in torchvision's layout."""
    model = ResNetModel.from_pretrained(tiny.write_resnet(folder, "transformers")).eval()
    channels = [features // 4 for features in tiny.RESNET_CONFIG["hidden_sizes"]]
    other = timm_resnet.ResNet(
        timm_resnet.Bottleneck, tiny.RESNET_CONFIG["depths"], num_classes=5, channels=channels
    ).eval()
    other.load_state_dict(load_file(tiny.write_resnet(folder, "torchvision") / "model.safetensors"))
    x = torch.rand(2, 3, 64, 64)
    features = other.global_pool(other.forward_features(x))
    torch.testing.assert_close(model(x).pooler_output[:, :, 0, 0], features)
    return lambda x: model(x).pooler_output[:, :, 0, 0]


def outputs(model, size, other_size):
    """The features at both sizes and the gradient at the first, in our layout."""
    statistics = [torch.tensor(x).view(3, 1, 1) for x in (tiny.MEAN, tiny.STD)]

    def features(pixels):
        return model((pixels - statistics[0]) / statistics[1])

    pixels = torch.from_numpy(tiny.images(size).transpose(0, 3, 1, 2).copy()).requires_grad_()
    (features(pixels) ** 2).sum().div(2).backward()
    other = torch.from_numpy(tiny.images(other_size).transpose(0, 3, 1, 2).copy())
    return {
        "features": features(pixels).detach().numpy(),
        "other_features": features(other).detach().numpy(),
        "gradient": pixels.grad.permute(0, 2, 3, 1).numpy()[:1],
    }


def main():
    """Writes the file."""
    towers = {
        "clip": (clip, 32, 48),
        "clip_resnet": (clip_resnet, 64, 96),
        "resnet": (resnet, 64, 80),
    }
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (make, *sizes) in towers.items():
            for key, value in outputs(make(Path(folder) / name), *sizes).items():
                arrays[f"{name}/{key}"] = value
    np.savez_compressed(GOLDEN, **arrays)
    print({key: value.shape for key, value in arrays.items()}, GOLDEN.stat().st_size)


if __name__ == "__main__":
    main()
