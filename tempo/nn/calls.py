"""Small questions about the operands of one call, and what is done with its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tempo.errors import UnsupportedError
from tempo.lowering.base import Lowering
from tempo.nn.placement import Candidate

_DTYPES = (torch.float32, torch.float64)


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


def refusal(x: Tensor, w: Tensor, kept: Mapping[int, str]) -> str | None:
    """Why this call stays, whatever its shapes. kept: parameters that do, by id. UnsupportedError: it could
    only go on unprotected."""
    for t in (x, w):
        owner = t if isinstance(t, nn.Parameter) else t._base
        if id(owner) in kept:
            return kept[id(owner)]
        if t.device.type not in ("cpu", "meta"):
            raise UnsupportedError(
                f"a protected layer met a tensor on {t.device}; the model belongs to the TEE",
                "leave model and data on the CPU; workers bring the GPUs",
            )
        if t.device.type == "meta":
            return "no data on the meta device"
        if not t.dtype.is_floating_point and not t.dtype.is_complex:
            return f"{t.dtype} is no floating-point dtype".replace("torch.", "")
    if torch.is_autocast_enabled("cpu"):
        return None if all(t.is_floating_point() for t in (x, w)) else "complex under autocast"
    for t in (x, w):
        if t.dtype not in _DTYPES:
            raise UnsupportedError(
                f"a protected layer met {str(t.dtype).replace('torch.', '')} operands; Tempo computes in "
                f"float32 and float64",
                "model.float(), with torch.autocast for lower precision, or keep this layer in the TEE: "
                "session.protect(model, keep=[...])",
            )
    return "operands of different dtypes" if x.dtype != w.dtype else None


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
