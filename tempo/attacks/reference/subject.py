"""What the suite attacks: a model, the secret batches that are run through it, and what the public knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch
from torch import Tensor, nn

#: One batch as the loss takes it.
Batch = Any
Loss = Callable[[nn.Module, Batch], Tensor]
Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

RATE: Final = 0.01


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Plain steps, as a user's script without a wish gets them."""
    return torch.optim.SGD(parameters, lr=RATE)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """Batches that are run one after the other.

    state: parameters to begin with, as a state_dict; none: as they are. training: forward, backward and a
    step; else forward alone. micro: batches whose gradients are added up before a step, under one W.
    """

    batches: tuple[Batch, ...]
    state: Mapping[str, Tensor] | None = None
    training: bool = True
    micro: int = 1


@final
@dataclass(frozen=True, slots=True, eq=False)
class Public:
    """What anyone may know of it. None, or nothing, where that is secret.

    weights: W0 that the secret parameters started from or are, by name. inputs: of the same distribution as
    the secret ones, as the model takes them, disjoint from them; labels: theirs. decoys: batches that were
    not run, of the same form as those that were.
    """

    weights: Mapping[str, Tensor] | None = None
    inputs: Tensor | None = None
    labels: Tensor | None = None
    decoys: tuple[Batch, ...] = ()


@final
@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """name: short, for tables. title: in words. keep, unsafe_offload: as `Session.protect` takes them.
    options: settings of the session, besides the scheme's."""

    name: str
    title: str
    model: nn.Module
    loss: Loss
    phases: tuple[Phase, ...]
    public: Public = field(default_factory=Public)
    optimizer: Optimizer = sgd
    keep: tuple[str, ...] = ()
    unsafe_offload: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def batches(self) -> tuple[Batch, ...]:
        """All that are run, in order."""
        return tuple(batch for phase in self.phases for batch in phase.batches)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of parameters and buffers."""
    return {name: t.detach().clone() for name, t in model.state_dict().items()}
