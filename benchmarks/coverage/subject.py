"""One model to be judged, and how to make it over and over alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

#: Of everything random: weights, inputs, dropout.
SEED = 20260123


class NotRunnableError(Exception):
    """Plain PyTorch does not build or run this model here; the message says why."""


@final
@dataclass(frozen=True, slots=True)
class Recipe:
    """A member of a family. make: the model, the same weights at each call. inputs: what its forward takes;
    they are drawn once, so that all runs see the same."""

    library: str
    family: str
    member: str
    make: Callable[[], nn.Module]
    inputs: Mapping[str, Any]
    #: How it was made smaller, for the table.
    shrunk: Mapping[str, Any] = field(default_factory=dict)
    #: Modules are as in training.
    training: bool = True

    def model(self, dtype: torch.dtype) -> nn.Module:
        torch.manual_seed(SEED)
        model = self.make()
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim >= 2 and not p.any():  # zero in the first step of training alone
                    p.normal_(std=0.02)
        return model.to(dtype).train(self.training)

    def loss(self, model: nn.Module, dtype: torch.dtype) -> Tensor:
        """A scalar in which every output has its part: sum over outputs t of <t, r> / |t|, r Gaussian.
        Linear in the outputs, so that no normalisation makes it constant."""
        torch.manual_seed(SEED + 1)  # of dropout and the like; some drop whole layers by other generators
        random.seed(SEED + 1)
        np.random.seed(SEED + 1)
        out = model(**{name: _cast(value, dtype) for name, value in self.inputs.items()})
        draw = torch.Generator().manual_seed(SEED + 2)
        terms = []
        for t in tensors(out):
            if t.requires_grad and t.numel():
                r = torch.randn(t.shape, generator=draw, dtype=torch.float64)
                part = torch.view_as_real(t).sum(-1) if t.is_complex() else t
                part = part.masked_fill(part.isinf(), 0.0)  # scores of what is masked
                terms.append((part.double() * r).mean())
        if not terms:
            raise NotRunnableError("no output depends on a parameter")
        return torch.stack(terms).sum()


def tensors(out: Any) -> list[Tensor]:
    """Floating tensors of an output, whatever holds them, each once."""
    found: dict[int, Tensor] = {}
    _collect(out, found, 0)
    return list(found.values())


def _collect(out: Any, found: dict[int, Tensor], depth: int) -> None:
    if isinstance(out, Tensor):
        if out.is_floating_point() or out.is_complex():
            found.setdefault(id(out), out)
    elif depth > 8:
        return
    elif isinstance(out, Mapping):
        for value in out.values():
            _collect(value, found, depth + 1)
    elif isinstance(out, Sequence) and not isinstance(out, str):
        for value in out:
            _collect(value, found, depth + 1)
    elif hasattr(out, "__dict__"):
        for value in vars(out).values():
            _collect(value, found, depth + 1)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    if isinstance(value, list):
        return [_cast(each, dtype) for each in value]
    return value
