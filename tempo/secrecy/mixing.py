"""The default basis: secret monomials with public mixing between them.

    E = M_r H M_{r-1} ... H M_0        (r rounds, 2 by default)

Each M is a secret monomial (permutation times signed real coefficients), H the orthonormal
Hadamard on blocks of 64. Both ends are secret, since an outermost H is public and would simply be
undone. The dual has the same permutations and inverted coefficients, for H^-T = H.
"""

from __future__ import annotations

from collections.abc import Sequence

from tempo.kernels import Axis
from tempo.secrecy.basis import Basis
from tempo.secrecy.keys import Stream
from tempo.secrecy.monomial import draw_monomials


def mixing_bases(
    stream: Stream, lengths: Sequence[int], *, spread: float, rounds: int, block: int
) -> list[Basis]:
    """Independent bases of these lengths. block: a power of two; in a short axis it shrinks to the
    largest one within it. That a product with fewer entries than a block is not sent at all is the
    scheme's rule, not the basis's."""
    count = rounds + 1
    drawn = draw_monomials(stream, [n for n in lengths for _ in range(count)], spread)
    condition = (spread**2) ** count
    bases = []
    for i, n in enumerate(lengths):
        enter, *middle, leave = drawn[i * count : (i + 1) * count]
        size = min(block, 1 << max(n.bit_length() - 1, 0))
        axis = Axis(n, enter=enter, middle=middle, leave=leave, rounds=rounds, block=size)
        bases.append(Basis([axis], condition))
    return bases
