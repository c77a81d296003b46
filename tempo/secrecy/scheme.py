"""How the bases of a session are drawn: one final class per scheme.

`monomial` is the paper's mask, `mixing` the default, `unsafe_none` sends plaintext for baselines and
debugging. What each stands on, and what breaks it, is in docs/secrecy.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, final

from tempo.errors import UsageError
from tempo.secrecy.basis import Basis, chunks, direct_sum, identity
from tempo.secrecy.hardening import PLAIN, Hardening
from tempo.secrecy.keys import Stream
from tempo.secrecy.mixing import mixing_bases
from tempo.secrecy.monomial import monomial_bases


class Scheme(ABC):
    """Abstract. `smallest`: fewer rows or features than this are never sent.
    `chunk`: rows of longer axes are permuted within so many.
    `blurs_rows`: rows are mixed, so zero rows are left out and a common mean is taken off first.
    `hardening`: the knobs, of schemes that have them."""

    name: ClassVar[str]
    blurs_rows: ClassVar[bool]

    def __init__(self, *, chunk: int, smallest: int, hardening: Hardening = PLAIN) -> None:
        self.smallest = smallest
        self.chunk = chunk
        self.hardening = hardening

    @abstractmethod
    def features(self, stream: Stream, lengths: Sequence[int]) -> list[Basis]:
        """Independent bases of axes of features."""

    @abstractmethod
    def _stretches(self, stream: Stream, lengths: Sequence[int]) -> list[Basis]:
        """Independent bases of chunks of rows."""

    def rows(self, stream: Stream, lengths: Sequence[int]) -> list[Basis]:
        """Bases of axes of rows: chunks of a long axis are independent."""
        sizes = [chunks(length, self.chunk) for length in lengths]
        parts = iter(self._stretches(stream, [n for several in sizes for n in several]))
        return [direct_sum([next(parts) for _ in several]) for several in sizes]


@final
class MonomialScheme(Scheme):
    name = "monomial"
    blurs_rows = False

    def __init__(self, *, spread: float, chunk: int, smallest: int) -> None:
        super().__init__(chunk=chunk, smallest=smallest)
        self._spread = spread

    def features(self, stream: Stream, lengths: Sequence[int]) -> list[Basis]:
        return monomial_bases(stream, lengths, spread=self._spread)

    _stretches = features


@final
class MixingScheme(Scheme):
    name = "mixing"
    blurs_rows = True

    def __init__(
        self,
        *,
        spread: float,
        chunk: int,
        smallest: int,
        rounds: int,
        row_rounds: int,
        block: int,
        hardening: Hardening = PLAIN,
    ) -> None:
        super().__init__(chunk=chunk, smallest=smallest, hardening=hardening)
        self._spread = spread
        self._rounds = rounds
        self._row_rounds = row_rounds
        self._block = block

    def features(self, stream: Stream, lengths: Sequence[int]) -> list[Basis]:
        bases = mixing_bases(stream, lengths, spread=self._spread, rounds=self._rounds, block=self._block)
        return self._gained(stream, bases)

    def rows(self, stream: Stream, lengths: Sequence[int]) -> list[Basis]:
        return self._gained(stream, Scheme.rows(self, stream, lengths))

    def _gained(self, stream: Stream, bases: list[Basis]) -> list[Basis]:
        """Each basis with a secret size. One for all its stretches: the check of dW takes norms over them
        all, and is the closer the less they differ."""
        gain = self.hardening.gain
        if gain == 1.0:
            return bases
        sizes = stream.coefficients(len(bases), gain).abs().tolist()
        return [basis.times(size) for basis, size in zip(bases, sizes, strict=True)]

    def _stretches(self, stream: Stream, lengths: Sequence[int]) -> list[Basis]:
        return mixing_bases(stream, lengths, spread=self._spread, rounds=self._row_rounds, block=self._block)


@final
class UnsafeNone(Scheme):
    """Everything in the clear."""

    name = "unsafe_none"
    blurs_rows = False

    def features(self, stream: Stream, lengths: Sequence[int]) -> list[Basis]:
        return [identity(length) for length in lengths]

    _stretches = features


SCHEMES = ("mixing", "monomial", "unsafe_none")
#: Not one of bases: tempo/sharing.
SHARES = "shares"


def scheme_from(
    name: str,
    *,
    spread: float,
    chunk: int,
    smallest: int,
    rounds: int,
    row_rounds: int,
    block: int,
    hardening: Hardening = PLAIN,
) -> Scheme:
    """The scheme of that name. Raises UsageError."""
    match name:
        case "mixing":
            return MixingScheme(
                spread=spread,
                chunk=chunk,
                smallest=smallest,
                rounds=rounds,
                row_rounds=row_rounds,
                block=block,
                hardening=hardening,
            )
        case "monomial":
            return MonomialScheme(spread=spread, chunk=chunk, smallest=smallest)
        case "unsafe_none":
            return UnsafeNone(chunk=chunk, smallest=smallest)
        case "shares":
            raise UsageError(
                "scheme 'shares' has no bases, so no passes to time and no plan: name mixing or monomial "
                "here, and place layers by hand (placement='always' or 'never', protect(place=...))"
            )
        case "none":
            raise UsageError("scheme 'none' sends everything in the clear. If that is meant: 'unsafe_none'")
        case _:
            raise UsageError(f"unknown scheme {name!r}. Choose one of {', '.join(SCHEMES)}")
