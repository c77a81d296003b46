"""One training or inference step in the TEE alone, or wholly on a device without any protection.

tee-only is PyTorch on the master's cores, in float32 and in bfloat16 under autocast where the CPU has it. The
faster of the two is what speed-ups are against.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from tempo.bench.timing import Repeats, Spread, Work, interleaved


@final
@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """module on x; with dy also its backward pass, dx included if x requires it.

    loss: makes a scalar of the output instead of taking dy, for whole models. after: ends a training step,
    such as the optimizer's update.
    """

    module: nn.Module
    x: Tensor
    dy: Tensor | None = None
    loss: Callable[[Tensor], Tensor] | None = None
    after: Work | None = None

    def run(self) -> object:
        if self.dy is None and self.loss is None:
            with torch.no_grad():
                return self.module(self.x)
        y = self.module(self.x)
        if self.loss is not None:
            self.loss(y).backward()
        else:
            y.backward(None if self.dy is None else self.dy.to(y.dtype))
        if self.after is not None:
            self.after()
        return y

    @property
    def trains(self) -> bool:
        return self.dy is not None or self.loss is not None

    def prepare(self) -> None:
        """Between two steps: no gradients, and weights changed as an optimizer would, so that training
        encodes them anew. Inference keeps them."""
        self.x.grad = None
        for parameter in self.module.parameters():
            parameter.grad = None
            if self.trains:
                with torch.no_grad():
                    parameter.add_(0.0)


def tee_only(step: Step, arithmetic: str, repeats: Repeats) -> Spread:
    """Seconds of a step here. arithmetic: "fp32", or "bf16" under autocast."""
    context = torch.autocast("cpu", torch.bfloat16) if arithmetic == "bf16" else nullcontext()

    def run() -> None:
        with context:
            step.run()

    return measure_step(run, step.prepare, repeats)


def whole_on_device(step: Step, device: str, arithmetic: str, repeats: Repeats) -> Spread:
    """Seconds of a step with module and data on that device throughout: what one would rent without Tempo."""
    module = copy.deepcopy(step.module).to(device)
    there = Step(module, step.x.to(device), loss=None if step.loss is None else _loss_on(step.loss))
    context = torch.autocast(torch.device(device).type, torch.bfloat16)

    def run() -> None:
        with context if arithmetic == "bf16" else nullcontext():
            there.run()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    return measure_step(run, there.prepare, repeats)


def _loss_on(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The loss of an output that lives elsewhere: its labels are here. A few numbers cross."""
    return lambda y: loss(y.float().cpu())


def measure_step(run: Work, prepare: Work, repeats: Repeats, *, warm: bool = True) -> Spread:
    return interleaved({"": run}, repeats, prepare={"": prepare}, warm=warm)[""]
