"""The paper's MM-obfuscation: a permutation times random signed real coefficients.

    E = diag(s) P        E^-T = diag(1/s) P

Xu and Fang, arXiv 2401.11531, section 4. Kept as the paper's baseline: several attacks break it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tempo.kernels import Axis, Monomial
from tempo.secrecy.basis import Basis
from tempo.secrecy.keys import Stream


def draw_monomials(stream: Stream, lengths: Sequence[int], spread: float) -> list[Monomial]:
    """Independent ones of these lengths, with magnitudes in [1/spread, spread]."""
    permutations = stream.permutations(lengths)
    scales = stream.coefficients(sum(lengths), spread).split(list(lengths))
    return [Monomial(p, s) for p, s in zip(permutations, scales, strict=True)]


def monomial_bases(stream: Stream, lengths: Sequence[int], *, spread: float) -> list[Basis]:
    """Independent bases of these lengths."""
    drawn = zip(lengths, draw_monomials(stream, lengths, spread), strict=True)
    return [Basis([Axis(n, enter=m)], spread**2) for n, m in drawn]
