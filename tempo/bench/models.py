"""The paper's models in plain PyTorch, with random weights: what is timed does not depend on them.

ResNet-50: He et al., Deep Residual Learning, arXiv 1512.03385, table 1, with a 3x3 stem of stride 1 and no
pooling for images of at most 64 pixels, as is usual on CIFAR-10.
ViT-B/16: Dosovitskiy et al., An Image is Worth 16x16 Words, arXiv 2010.11929, table 1, pre-norm; patches of
4 pixels for images of at most 64.
"""

from __future__ import annotations

from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Pixels a side of images that models take at full size.
SMALL_IMAGE = 64


@final
class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, with BatchNorm, and the input added."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.shortcut(x) + cast(Tensor, self.norm3(self.conv3(y))))


@final
class ResNet(nn.Module):
    """blocks: bottlenecks of each stage; width doubles from stage to stage."""

    def __init__(self, image: int, classes: int, blocks: tuple[int, ...], width: int) -> None:
        super().__init__()
        small = image <= SMALL_IMAGE
        kernel, stride = (3, 1) if small else (7, 2)
        self.stem = nn.Conv2d(3, width, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.pool: nn.Module = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        stages: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            inner = width << stage
            for number in range(count):
                stages.append(Bottleneck(channels, inner, 2 if stage and not number else 1))
                channels = 4 * inner
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.pool(F.relu(self.norm(self.stem(x)))))
        return cast(Tensor, self.head(x.mean((2, 3))))


@final
class EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out(mixed)
        return x + cast(Tensor, self.down(F.gelu(self.up(self.norm2(x)))))


@final
class VisionTransformer(nn.Module):
    def __init__(self, image: int, classes: int, depth: int, width: int, heads: int) -> None:
        super().__init__()
        patch = 4 if image <= SMALL_IMAGE else 16
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, (image // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.position
        return cast(Tensor, self.head(self.norm(self.blocks(x))[:, 0]))


def channels_last(module: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
    """Both in the layout that convolutions are quickest in, on CPUs and on GPUs: a baseline in another one
    would flatter Tempo."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in its annotations
    return module, x.contiguous(memory_format=torch.channels_last)


def resnet50(image: int, classes: int = 10) -> nn.Module:
    return ResNet(image, classes, (3, 4, 6, 3), 64)


def vit_b16(image: int, classes: int = 10) -> nn.Module:
    return VisionTransformer(image, classes, depth=12, width=768, heads=12)


def resnet_small(image: int, classes: int = 10) -> nn.Module:
    """Two bottlenecks: the same code at a size for tests and quick looks."""
    return ResNet(image, classes, (1, 1), 64)


def vit_small(image: int, classes: int = 10) -> nn.Module:
    return VisionTransformer(image, classes, depth=1, width=128, heads=4)


MODELS = {
    "ResNet-50": resnet50,
    "ViT-B/16": vit_b16,
    "ResNet, 2 blocks": resnet_small,
    "ViT, 1 block": vit_small,
}
