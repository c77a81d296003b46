"""The training loop of this demo, over sealed data: the same one in the master and, plainly, in-house."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tempo.data import SealedDataset
from tempo.demo.train import LEARNING_RATE, MOMENTUM
from tempo.numerics import loss_tolerance
from tempo.trust.sealed import DataKey


def batches(
    sealed: Path, key: DataKey, batch: int, seed: int
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Images and labels, epoch after epoch. The same seed draws the same batches. Raises TamperedError where
    a record was altered."""
    generator = torch.Generator().manual_seed(seed)
    with closing(SealedDataset(sealed, key)) as data:
        loader = DataLoader(data, batch, shuffle=True, drop_last=True, generator=generator)
        while True:
            yield from loader


def learn(
    model: nn.Module,
    drawn: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    on_step: Callable[[int, float], None],
) -> list[float]:
    """Train in place: the loss of each step. In the model's own precision."""
    dtype = next(model.parameters()).dtype
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    model.train()
    losses: list[float] = []
    for step in range(steps):
        x, y = next(drawn)
        loss = F.cross_entropy(model(x.to(dtype)), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        on_step(step, losses[-1])
    return losses


@final
@dataclass(frozen=True, slots=True)
class Curve:
    """Losses by step. allowed: how far the two may lie apart (docs/numerics.md, section 4)."""

    tempo: list[float]
    plain: list[float]
    allowed: list[float]

    @property
    def differences(self) -> list[float]:
        return [abs(a - b) for a, b in zip(self.tempo, self.plain, strict=True)]

    @property
    def kept(self) -> bool:
        pairs = zip(self.differences, self.allowed, strict=True)
        # Written so that a NaN is no promise kept.
        return bool(self.tempo) and all(difference <= allowed for difference, allowed in pairs)


def compared(
    losses: list[float],
    make: Callable[[], nn.Module],
    draw: Callable[[], Generator[tuple[Tensor, Tensor], None, None]],
    on_step: Callable[[int, int], None],
) -> tuple[Curve, nn.Module]:
    """`losses` beside those of the same training without workers, and the model of that.

    make: the model as it was at first. draw: the batches from the first. on_step: of how many.
    """
    steps = len(losses)

    def trained(model: nn.Module, before: int) -> list[float]:
        with closing(draw()) as drawn:
            return learn(model, drawn, steps, lambda step, _: on_step(before + step + 1, 2 * steps))

    model = make()
    plain, exact = trained(model, 0), trained(make().double(), steps)
    return Curve(losses, plain, loss_tolerance(plain, exact)), model
