"""A small ResNet with BatchNorm whose convolutions are nearly all worth sending away.

28x28 (or 32x32) image, width 64:

    stem    3x3 stride 2, BatchNorm, SiLU        14x14    stays: the raw input has few channels
    one     residual: 3x3, 3x3                   14x14    two products 64 -> 64
    pool    2x2 average                           7x7     stays
    two     residual: 3x3, 1x1                    7x7     two products 64 -> 64
    head    average over quarters, linear         2x2     stays: its gradient gives labels away

SiLU and not ReLU: rounding can flip a ReLU whose argument is all but zero, and after a hundred steps any
two runs that round differently (float32 and float64, say) are a few percent apart. Without kinks they stay
1e-6 apart, and the demo can hold Tempo to its derived bound (docs/numerics.md, section 4).
"""

from __future__ import annotations

from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@final
class Residual(nn.Module):
    """silu(x + bn(conv(silu(bn(conv(x)))))), a 3x3 and then a kernel of `last`, width kept."""

    def __init__(self, width: int, last: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, last, padding=last // 2, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.norm1(self.conv1(x)))
        return F.silu(x + cast(Tensor, self.norm2(self.conv2(y))))


@final
class SmallResNet(nn.Module):
    def __init__(self, in_channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.one = Residual(width, last=3)
        self.pool = nn.AvgPool2d(2)
        self.two = Residual(width, last=1)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.stem(x)))
        x = self.two(self.pool(self.one(x)))
        # Quarters and not the whole: where a stroke lies says much about a digit (97 % in 160 steps, not 96).
        return cast(Tensor, self.head(F.adaptive_avg_pool2d(x, 2).flatten(1)))


def resnet(in_channels: int, classes: int, width: int = 64, *, seed: int = 0) -> nn.Module:
    """The same parameters for the same seed; the caller's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallResNet(in_channels, classes, width)
