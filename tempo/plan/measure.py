"""Prediction against measurement: some real steps, plain and protected, beside what the plan said of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from tempo.errors import UsageError
from tempo.facade import Session
from tempo.plan.plan import Plan
from tempo.plan.trace import arguments

#: Parts of the master's work that both the model and the engine tell apart.
PARTS: Final = ("lower", "keys", "encode", "check", "decode")


@final
@dataclass(frozen=True, slots=True)
class Comparison:
    part: str
    predicted_seconds: float
    measured_seconds: float

    @property
    def ratio(self) -> float | None:
        """Predicted over measured; None where nothing was measured."""
        return self.predicted_seconds / self.measured_seconds if self.measured_seconds > 0 else None

    def fields(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "predicted_seconds": self.predicted_seconds,
            "measured_seconds": self.measured_seconds,
            "ratio": self.ratio,
        }


def measure(
    session: Session,
    model: nn.Module,
    inputs: Any,
    plan: Plan,
    *,
    inference: bool,
    steps: int,
    protect: Mapping[str, Any],
    say: Callable[[str], None] = lambda text: None,
) -> list[Comparison]:
    """Steps of the model in the TEE alone, then under Tempo as the session places it, without an optimizer.

    protect: keywords of `Session.protect`, which gave the plan its operations. The weights count as
    changed after each step, as in training. The median step counts.
    """
    if steps < 1:
        raise UsageError(f"--steps {steps}: at least 1")
    args, kwargs = arguments(inputs)
    if inference:
        model.eval()

    def step() -> None:
        if inference:
            with torch.no_grad():
                model(*args, **kwargs)
            return
        loss_of(model(*args, **kwargs)).backward()
        model.zero_grad()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.0)  # a new version, as after an optimizer's step

    say(f"{steps} plain steps")
    plain = _median(step, steps)
    say(f"{steps} protected steps")
    session.protect(model, **protect)
    try:
        step()
        before = session.report().seconds
        protected = _median(step, steps, warm=False)
        after = session.report().seconds
    finally:
        session.unprotect(model)
    predicted = plan.master_seconds()
    rows = [
        Comparison(part, predicted.get(part, 0.0), (after.get(part, 0.0) - before.get(part, 0.0)) / steps)
        for part in PARTS
    ]
    return [
        *rows,
        Comparison("tee-only step", plan.tee_seconds, plain),
        Comparison("tempo step", plan.tempo_seconds, protected),
    ]


def loss_of(output: Any) -> Tensor:
    """Some scalar that every part of the model has a gradient from."""
    loss = getattr(output, "loss", None)
    if isinstance(loss, Tensor):
        return loss
    values = output.values() if isinstance(output, Mapping) else output
    for each in [values] if isinstance(values, Tensor) else values:
        if isinstance(each, Tensor) and each.is_floating_point():
            return each.square().mean()
    raise UsageError(f"the model returned {type(output).__name__}: expected a floating-point tensor in it")


def _median(step: Callable[[], None], steps: int, *, warm: bool = True) -> float:
    if warm:
        step()
    taken = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return sorted(taken)[len(taken) // 2]
