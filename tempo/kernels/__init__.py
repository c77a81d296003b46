"""Passes over tensors that the secret bases are made of."""

from tempo.kernels.pieces import pieces
from tempo.kernels.plain import mix, scale_, take
from tempo.kernels.threads import threads_for

__all__ = ["mix", "pieces", "scale_", "take", "threads_for"]
