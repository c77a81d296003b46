"""The paper's MM-obfuscation: a permutation times random signed real coefficients.

    E = diag(s) P        E^-T = diag(1/s) P

Xu and Fang, arXiv 2401.11531, section 4. Kept as the paper's baseline: several attacks break it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from tempo.kernels import scale_, take
from tempo.secrecy.basis import Basis
from tempo.secrecy.keys import Stream


def inverse_permutation(index: Tensor) -> Tensor:
    inverse = torch.empty_like(index)
    inverse[index] = torch.arange(index.numel())
    return inverse


@final
class Monomial(Basis):
    def __init__(self, permutation: Tensor, scale: Tensor, spread: float) -> None:
        """permutation: (L,) int64. scale: (L,) float64, magnitudes in [1/spread, spread]."""
        self.length = permutation.numel()
        self._permutation = permutation
        self._scale = scale
        self._spread = spread

    @classmethod
    def draw(cls, stream: Stream, lengths: Sequence[int], spread: float) -> list[Monomial]:
        """Independent ones of these lengths."""
        permutations = stream.permutations(lengths)
        scales = stream.coefficients(sum(lengths), spread).split(list(lengths))
        return [cls(p, s, spread) for p, s in zip(permutations, scales, strict=True)]

    def encode(self, t: Tensor, axis: int) -> Tensor:
        self._require_length(t, axis)
        return scale_(take(t, self._permutation, axis), self._scale, axis)

    def decode(self, t: Tensor, axis: int) -> Tensor:
        self._require_length(t, axis)
        # Gathering by the inverse permutation moves the coefficients along with the entries.
        inverse = inverse_permutation(self._permutation)
        return scale_(take(t, inverse, axis), self._scale.reciprocal()[inverse], axis)

    def dual(self) -> Basis:
        return Monomial(self._permutation, self._scale.reciprocal(), self._spread)

    @property
    def condition(self) -> float:
        return self._spread**2
