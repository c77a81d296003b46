"""Which linear operations leave the TEE, and the account of where each ran and why.

Two questions, in this order: must it stay (`Rules`: for secrecy's sake, or because it cannot be sent),
and is it wanted elsewhere (`Placement`: what the user asked for, or what a plan found cheaper).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from tempo.lowering.base import Lowering
from tempo.report import OpRow
from tempo.wire import limits

#: A convolution with at most this many input channels works on something as good as the raw input.
_RAW_CHANNELS = 4


@final
@dataclass(frozen=True, slots=True)
class Rules:
    """What stays in the TEE whatever it costs."""

    min_size: int
    offload_attention: bool
    #: Convolutions may be lowered by maps that amplify errors, Winograd F(4,3).
    delicate: bool = True

    def keep(self, lowering: Lowering) -> str | None:
        """Why a lowered product stays, or None."""
        shape = lowering.shape
        for size, axis in ((shape.n, "out-features"), (shape.k, "in-features"), (shape.rows, "rows")):
            if size < self.min_size:
                return f"fewer than {self.min_size} {axis}"
        # Rows are cut into as many jobs as it takes; groups and weights are not.
        if shape.groups > limits.MAX_GROUPS:
            return f"more than {limits.MAX_GROUPS} groups"
        if shape.groups * shape.n * shape.k * torch.float64.itemsize > limits.MAX_PAYLOAD:
            return "a weight larger than a frame"
        return None

    def keep_conv(self, channels: int, groups: int, unbatched_dims: int) -> str | None:
        if groups > 1 and groups == channels:
            return "depthwise"
        if unbatched_dims == 3:
            return "three-dimensional convolution"
        if channels <= _RAW_CHANNELS:
            return f"at most {_RAW_CHANNELS} input channels"
        return None


#: What a user may say of a layer, or of all of them.
PLACES: Final = ("auto", "always", "never")
NEVER: Final = "never offloaded, as the user asked"


@final
@dataclass(frozen=True, slots=True)
class Candidate:
    """A call that may be sent. want_x, want_w: its gradients will be asked for. weight: the same for
    calls that share one encoded W, None for a weight that is no parameter. public: the weight was declared
    public, and nobody trained it since."""

    module: str
    lowering: Lowering
    dtype: torch.dtype
    want_x: bool
    want_w: bool
    weight: int | None
    public: bool = False


class Placement(ABC):
    """Abstract: whether a call that may be sent is."""

    @abstractmethod
    def keep(self, candidate: Candidate) -> str | None:
        """Why the call stays in the TEE, or None."""


@final
class Always(Placement):
    def keep(self, candidate: Candidate) -> str | None:
        return None


@final
class Never(Placement):
    def keep(self, candidate: Candidate) -> str | None:
        return NEVER


@final
class Places:
    """The placement of each call: that of its module, or the session's."""

    def __init__(self, default: str, named: Mapping[str, Placement]) -> None:
        self._default = default
        self._named = named

    def keep(self, place: str | None, candidate: Candidate) -> str | None:
        """place: what the user said of the module, or None."""
        return self._named[place or self._default].keep(candidate)


@final
class Account:
    """Flops by module, operation, shape and place. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str, str, str | None], list[int]] = {}

    def add(
        self, module: str, operation: str, shape: str, reason: str | None, flops: int
    ) -> Callable[[int], None]:
        """A call with its forward flops; reason is None where workers computed it. Returns what takes
        its backward flops, once they were done."""
        key = (module, operation, shape, reason)
        with self._lock:
            row = self._rows.setdefault(key, [0, 0, 0])
            row[0] += 1
            row[1] += flops

        def backward(flops: int) -> None:
            with self._lock:
                row[2] += flops

        return backward

    def rows(self) -> list[OpRow]:
        with self._lock:
            return [
                OpRow(module, operation, shape, reason is None, reason or "", calls, forward, backward)
                for (module, operation, shape, reason), (calls, forward, backward) in self._rows.items()
            ]


def sizes(*tensors: Tensor) -> str:
    """Shapes for the account, without the batch dimension's size where it is one of many."""
    return " ".join("x".join(map(str, t.shape)) or "scalar" for t in tensors)
