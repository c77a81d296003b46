"""The training that chaos is done to: small, deterministic, and contracting, so that a rounding error fades
and a wrong gradient does not. The same numbers whoever runs it: the master of a chaos run, or plain PyTorch.

    y = T(x),  x ~ N(0, 1) from a generator of its own per step;  loss = mean (f(x) - y)^2,  SGD with momentum

Axes: R rows, K in-features, N out-features.
"""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor, nn

#: Rows of a batch, in-features, hidden features. Four workers get 64 rows each: what mixing needs.
ROWS: Final = 256
WIDTH: Final = 96
HIDDEN: Final = 128
DTYPES: Final = {"float64": torch.float64, "float32": torch.float32}


@final
class Training:
    """One model, one optimizer, one dtype. model: to be protected by the caller."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self._seed = seed
        self._dtype = dtype
        generator = torch.Generator().manual_seed(seed)
        first, second, last = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH), nn.Linear(WIDTH, 10)
        self._teacher_NK = torch.randn(10, WIDTH, generator=generator, dtype=torch.float64) / WIDTH**0.5
        with torch.no_grad():
            for layer in (first, second, last):
                drawn = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
                layer.weight.copy_(drawn / layer.in_features**0.5)
                layer.bias.zero_()
        self.model = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), last).to(dtype)
        self._optimizer = torch.optim.SGD(self.model.parameters(), lr=0.02, momentum=0.9)
        self._step = 0

    def state(self) -> list[Tensor]:
        """All that a step changes: parameters, and what the optimizer keeps of each."""
        kept = [v for held in self._optimizer.state.values() for v in held.values() if isinstance(v, Tensor)]
        return [parameter.detach() for parameter in self.model.parameters()] + kept

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._optimizer

    def step(self) -> float:
        """One step; its loss before the update."""
        x_RK, y_RN = self._batch()
        loss: Tensor = (self.model(x_RK) - y_RN).square().mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._step += 1
        return loss.item()

    def _batch(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed((self._seed << 32) + self._step)
        x_RK = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
        y_RN = (x_RK @ self._teacher_NK.mT).tanh()
        return x_RK.to(self._dtype), y_RN.to(self._dtype)


def curve(seed: int, dtype: torch.dtype, steps: int) -> list[float]:
    """Losses of plain PyTorch."""
    training = Training(seed, dtype)
    return [training.step() for _ in range(steps)]
