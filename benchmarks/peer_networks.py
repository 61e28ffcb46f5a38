"""The generator, victims and surrogates in plain PyTorch, layer by layer those of the papers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def count_parameters(net: nn.Module) -> int:
    """Returns how many numbers `net` learns."""
    return sum(parameter.numel() for parameter in net.parameters())


class _Residual(nn.Module):
    """`last(x + body(x))`, with a `shortcut` where the shape changes."""

    def __init__(self, body: nn.Module, last: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.last, self.shortcut = body, last, shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.shortcut(x) + self.body(x))


def _norm(conv: nn.Module, channels: int, *last: nn.Module) -> list[nn.Module]:
    return [conv, nn.BatchNorm2d(channels), *last]


def _relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def noise_generator(width: int = 64, blocks: int = 6) -> nn.Module:
    """The generator of Johnson et al. (arXiv:1603.08155): `[1, 3, s, s]` to the same shape."""

    def reflected(inputs: int, outputs: int, size: int) -> nn.Module:
        conv = nn.Conv2d(inputs, outputs, size, bias=False)
        return nn.Sequential(nn.ReflectionPad2d(size // 2), conv)

    def block() -> nn.Module:
        convs = (_norm(reflected(4 * width, 4 * width, 3), 4 * width) for _ in range(2))
        first, second = convs
        return _Residual(nn.Sequential(*first, _relu(), *second), nn.Identity())

    def up(c: int) -> nn.Module:
        return nn.ConvTranspose2d(c, c // 2, 3, 2, 1, output_padding=1, bias=False)

    w = width
    return nn.Sequential(
        *_norm(reflected(3, w, 7), w, _relu()),
        *_norm(nn.Conv2d(w, 2 * w, 3, 2, 1, bias=False), 2 * w, _relu()),
        *_norm(nn.Conv2d(2 * w, 4 * w, 3, 2, 1, bias=False), 4 * w, _relu()),
        *(block() for _ in range(blocks)),
        *_norm(up(4 * w), 2 * w, _relu()),
        *_norm(up(2 * w), w, _relu()),
        *(nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh()),
    )


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Module:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


def _resnet(width: int, depths: Iterable[int], bottleneck: bool) -> tuple[nn.Module, int]:
    """A residual network (arXiv:1512.03385) up to its pooled features, and how many they are."""
    layers = [*_norm(_conv(3, width, 7, 2), width, _relu()), nn.MaxPool2d(3, 2, 1)]
    inputs = width
    for stage, depth in enumerate(depths):
        w = width << stage
        outputs = 4 * w if bottleneck else w
        for block in range(depth):
            stride = 2 if stage and not block else 1
            if bottleneck:
                body = [
                    *_norm(_conv(inputs, w, 1), w, _relu()),
                    *_norm(_conv(w, w, 3, stride), w, _relu()),
                    *_norm(_conv(w, outputs, 1), outputs),
                ]
            else:
                body = _norm(_conv(inputs, w, 3, stride), w, _relu()) + _norm(_conv(w, w, 3), w)
            same = stride == 1 and inputs == outputs
            fit = (
                None if same else nn.Sequential(*_norm(_conv(inputs, outputs, 1, stride), outputs))
            )
            layers.append(_Residual(nn.Sequential(*body), _relu(), fit))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs


def resnet18(classes: int, width: int = 64) -> nn.Module:
    """A victim: ResNet-18 from images `[b, 3, s, s]` to logits, layer by layer torchvision's."""
    features, channels = _resnet(width, (2, 2, 2, 2), bottleneck=False)
    return nn.Sequential(features, nn.Linear(channels, classes))


def resnet50(width: int = 64, depths: Iterable[int] = (3, 4, 6, 3)) -> nn.Module:
    """The surrogate of "UC": ImageNet's ResNet-50 up to its 2048 pooled features."""
    return _resnet(width, depths, bottleneck=True)[0]


class VisionTransformer(nn.Module):
    """CLIP's image tower (arXiv:2103.00020): images `[b, 3, s, s]` to projected features."""

    def __init__(
        self, *, size: int, patch: int, width: int, layers: int, heads: int, dimensions: int
    ) -> None:  # fmt: skip
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch, bias=False)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 1 + (size // patch) ** 2, width))
        self.first_norm, self.last_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, lambda x: x * torch.sigmoid(1.702 * x), batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.projection = nn.Linear(width, dimensions, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `[b, dimensions]`."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.projection(self.last_norm(self.layers(self.first_norm(x))[:, 0]))


# Repeats, kernel, stride of the first block, expansion and output channels of each stage.
_LITE0 = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 (arXiv:1905.11946) up to its 1280 pooled features.

    Convolutions with stride pad symmetrically, where TensorFlow's pad below and to the right: the
    work is the same.
    """

    def part(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return _norm(conv, outputs)

    def clipped() -> nn.Module:
        return nn.ReLU6(inplace=True)

    layers, inputs = [*part(3, 32, 3, 2, 1), clipped()], 32
    for repeats, kernel, first_stride, expansion, outputs in _LITE0:
        for i in range(repeats):
            stride, middle = 1 if i else first_stride, expansion * inputs
            body = [*part(middle, middle, kernel, stride, middle), clipped()]
            if expansion > 1:
                body = [*part(inputs, middle, 1, 1, 1), clipped(), *body]
            block = nn.Sequential(*body, *part(middle, outputs, 1, 1, 1))
            layers.append(_Residual(block, nn.Identity()) if i else block)
            inputs = outputs
    layers += [*part(inputs, 1280, 1, 1, 1), clipped(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers)
