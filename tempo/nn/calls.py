"""Small questions about the operands of one call, and what is done with its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tempo.lowering.base import Lowering
from tempo.nn.placement import Candidate


def candidate_of(module: str, lowering: Lowering, x: Tensor, w: Tensor, public: frozenset[int]) -> Candidate:
    # Autocast leaves float64 alone; the rest is computed in float32.
    cast = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64
    graph = torch.is_grad_enabled()
    owner = w if isinstance(w, nn.Parameter) else w._base
    return Candidate(
        module,
        lowering,
        torch.float32 if cast else x.dtype,
        want_x=graph and x.requires_grad,
        want_w=graph and w.requires_grad,
        weight=id(owner) if isinstance(owner, nn.Parameter) else None,
        public=id(owner) in public,
    )


def once_differentiated(y: Any, flops: int, backward: Callable[[int], None]) -> None:
    """Enter the backward flops of a kept call when the gradient of its (first) result is there."""
    first = next((t for t in (y if isinstance(y, tuple) else (y,)) if isinstance(t, Tensor)), None)
    if first is not None and first.requires_grad:
        first.register_hook(lambda grad: backward(flops))


def shifted(y: Tensor, b: Tensor) -> Tensor:
    """y + b in the memory of y, which is nobody else's yet: fresh memory would cost ten passes over it."""
    return y.add_(b) if b.dtype == y.dtype else y + b.to(y.dtype)


def is_weight(t: Tensor) -> bool:
    return isinstance(t, nn.Parameter) or isinstance(t._base, nn.Parameter)


def arranged(y: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """A convolution's result in the memory format of PyTorch's: channels last if the image or the weight is.
    Dropout draws in the order of memory: only then does the same seed give the same mask."""
    last = y.ndim == 4 and (_last(x) or _last(w))  # a single image has no such format
    return y.contiguous(memory_format=torch.channels_last) if last else y


def _last(t: Tensor) -> bool:
    return t.ndim == 4 and t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()
