"""The default basis: secret monomials with public mixing between them.

    E = M_r H M_{r-1} ... H M_0        (r rounds, 2 by default)

Each M is a secret monomial (permutation times signed real coefficients), H the orthonormal
Hadamard on blocks of 64. Both ends are secret, since an outermost H is public and would simply be
undone. The dual has the same permutations and inverted coefficients, for H^-T = H.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from tempo.kernels import mix
from tempo.secrecy.basis import Basis
from tempo.secrecy.keys import Stream
from tempo.secrecy.monomial import Monomial


@final
class Mixing(Basis):
    def __init__(self, monomials: Sequence[Basis], block: int) -> None:
        """monomials: M_0 first. block: a power of two, at most the length."""
        self.length = monomials[0].length
        self._monomials = tuple(monomials)
        self._block = block

    @classmethod
    def draw(
        cls, stream: Stream, lengths: Sequence[int], *, spread: float, rounds: int, block: int
    ) -> list[Mixing]:
        """Independent ones of these lengths. In a short one the block shrinks to the largest power of
        two within it; that a product with fewer entries than a block is not sent at all is the
        scheme's rule, not the basis's."""
        count = rounds + 1
        monomials = Monomial.draw(stream, [n for n in lengths for _ in range(count)], spread)
        return [
            cls(monomials[i * count : (i + 1) * count], min(block, 1 << max(n.bit_length() - 1, 0)))
            for i, n in enumerate(lengths)
        ]

    def encode(self, t: Tensor, axis: int) -> Tensor:
        first, *rest = self._monomials
        t = first.encode(t, axis)
        for monomial in rest:
            t = monomial.encode(mix(t, axis, self._block), axis)
        return t

    def decode(self, t: Tensor, axis: int) -> Tensor:
        first, *rest = self._monomials
        for monomial in reversed(rest):
            t = mix(monomial.decode(t, axis), axis, self._block, inverse=True)
        return first.decode(t, axis)

    def dual(self) -> Basis:
        return Mixing([m.dual() for m in self._monomials], self._block)

    @property
    def condition(self) -> float:
        product = 1.0
        for monomial in self._monomials:
            product *= monomial.condition
        return product
