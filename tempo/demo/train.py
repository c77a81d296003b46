"""An ordinary PyTorch training loop. It knows nothing of Tempo: the plain and the protected run are this."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from tempo.demo.data import ImageSet

#: SGD with momentum; the rate rises over the first WARM_UP steps and falls along a cosine to zero.
LEARNING_RATE = 0.05
MOMENTUM = 0.9
WARM_UP = 15
_TEST_BATCH = 500


@dataclass(frozen=True, slots=True)
class TrainResult:
    """losses: one per step. accuracy: on test images, 0 to 1. seconds: of the steps alone."""

    losses: list[float]
    accuracy: float
    seconds: float


def train(
    model: nn.Module,
    images: ImageSet,
    *,
    steps: int,
    batch: int,
    seed: int,
    on_step: Callable[[int, float], None],
    test_count: int = 2_000,
) -> TrainResult:
    """Train in place. The same seed draws the same batches. on_step(step, loss) follows every step."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    model.train()
    losses: list[float] = []
    start = time.perf_counter()
    for step in range(steps):
        picked = torch.randint(len(images.train_x), (batch,), generator=generator)
        loss = F.cross_entropy(model(images.train_x[picked]), images.train_y[picked])
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        on_step(step, losses[-1])
    seconds = time.perf_counter() - start
    return TrainResult(losses, accuracy(model, images, test_count), seconds)


def accuracy(model: nn.Module, images: ImageSet, count: int) -> float:
    """Share of `count` test images, evenly spaced, that the model names right. Leaves the mode as it was."""
    was_training = model.training
    model.eval()
    right = 0
    picked = torch.linspace(0, len(images.test_x) - 1, min(count, len(images.test_x))).long()
    x, y = images.test_x[picked], images.test_y[picked]
    with torch.no_grad():
        for x_part, y_part in zip(x.split(_TEST_BATCH), y.split(_TEST_BATCH), strict=True):
            right += int((model(x_part).argmax(1) == y_part).sum())
    model.train(was_training)
    return right / len(x)


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1.0 + math.cos(math.pi * step / steps))
