"""Whether a tensor's values are what lies at its address, as the native passes take for granted."""

from __future__ import annotations

import torch
from torch import Tensor


def plain_memory(t: Tensor) -> bool:
    """In main memory, without a pending sign, and not one of autograd's zeros that have no memory."""
    return t.device.type == "cpu" and t.layout == torch.strided and not t.is_neg() and not t._is_zerotensor()


def resolved(t: Tensor) -> Tensor:
    """t, or its values in memory of their own."""
    return t if plain_memory(t) else torch.empty(t.shape, dtype=t.dtype).copy_(t)
