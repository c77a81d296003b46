"""How the bases of a session are drawn: one final class per scheme.

`monomial` is the paper's mask, `mixing` the default, `unsafe_none` sends plaintext for baselines and
debugging. What each stands on, and what breaks it, is in docs/secrecy.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, final

from tempo.errors import UsageError
from tempo.secrecy.basis import Basis, DirectSum, Identity, chunks
from tempo.secrecy.keys import Stream
from tempo.secrecy.mixing import Mixing
from tempo.secrecy.monomial import Monomial


class Scheme(ABC):
    """Abstract. `smallest`: fewer rows or features than this are never sent.
    `blurs_rows`: rows are mixed, so zero rows are left out and a common mean is taken off first."""

    name: ClassVar[str]
    smallest: int
    blurs_rows: bool

    @abstractmethod
    def features(self, stream: Stream, length: int) -> Basis:
        """A basis of an axis of features."""

    @abstractmethod
    def rows(self, stream: Stream, length: int) -> Basis:
        """A basis of an axis of rows."""


@final
class MonomialScheme(Scheme):
    name = "monomial"
    blurs_rows = False

    def __init__(self, *, spread: float, chunk: int, smallest: int) -> None:
        self.smallest = smallest
        self._spread = spread
        self._chunk = chunk

    def features(self, stream: Stream, length: int) -> Basis:
        return Monomial.draw(stream, length, self._spread)

    def rows(self, stream: Stream, length: int) -> Basis:
        return DirectSum([Monomial.draw(stream, n, self._spread) for n in chunks(length, self._chunk)])


@final
class MixingScheme(Scheme):
    name = "mixing"
    blurs_rows = True

    def __init__(self, *, spread: float, chunk: int, smallest: int, rounds: int, block: int) -> None:
        self.smallest = smallest
        self._spread = spread
        self._chunk = chunk
        self._rounds = rounds
        self._block = block

    def features(self, stream: Stream, length: int) -> Basis:
        return Mixing.draw(stream, length, spread=self._spread, rounds=self._rounds, block=self._block)

    def rows(self, stream: Stream, length: int) -> Basis:
        return DirectSum([self.features(stream, n) for n in chunks(length, self._chunk)])


@final
class UnsafeNone(Scheme):
    """Everything in the clear."""

    name = "unsafe_none"
    blurs_rows = False

    def __init__(self, *, smallest: int) -> None:
        self.smallest = smallest

    def features(self, stream: Stream, length: int) -> Basis:
        return Identity(length)

    def rows(self, stream: Stream, length: int) -> Basis:
        return Identity(length)


SCHEMES = ("mixing", "monomial", "unsafe_none")


def scheme_from(name: str, *, spread: float, chunk: int, smallest: int, rounds: int, block: int) -> Scheme:
    """The scheme of that name. Raises UsageError."""
    match name:
        case "mixing":
            return MixingScheme(spread=spread, chunk=chunk, smallest=smallest, rounds=rounds, block=block)
        case "monomial":
            return MonomialScheme(spread=spread, chunk=chunk, smallest=smallest)
        case "unsafe_none":
            return UnsafeNone(smallest=smallest)
        case "none":
            raise UsageError("scheme 'none' sends everything in the clear. If that is meant: 'unsafe_none'")
        case _:
            raise UsageError(f"unknown scheme {name!r}. Choose one of {', '.join(SCHEMES)}")
