"""Passes over tensors that the secret bases are made of."""

from tempo.kernels.plain import mix, scale_, take

__all__ = ["mix", "scale_", "take"]
