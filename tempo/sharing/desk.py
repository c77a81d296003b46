"""What sharing needs of a session, and operands as pieces hold them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from tempo.integrity import ExactVerifier
from tempo.memory import Pool
from tempo.ops import Op, RingJob, RingOperand
from tempo.secrecy.fixed import Integers
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.shares import ADDITIVE, REPLICATED, ShareKey, dealt, left_there, public
from tempo.secrecy.weights import Release
from tempo.sharing.owners import Owners
from tempo.stats import Stats
from tempo.truth import UnsafeTruth


@final
class Dealt:
    """An operand as its workers have it: one for each, in the order of a piece's crew. Workers drop it when
    the last reference here dies."""

    __slots__ = ("__weakref__", "integers", "key", "operands")

    def __init__(
        self, key: ShareKey | None, integers: Integers, operands: Sequence[RingOperand], release: Release
    ) -> None:
        """key: None for a public operand."""
        self.key = key
        self.integers = integers
        self.operands = tuple(operands)
        # Only enqueues: a finaliser may run anywhere.
        weakref.finalize(self, release, (operands[0].id,)).atexit = False

    @property
    def id(self) -> int:
        """Its name on the wire."""
        return self.operands[0].id

    def let_go(self) -> None:
        """Keep names and scales alone: the shares stay with the workers."""
        self.operands = tuple(left_there(operand) for operand in self.operands)
        self.integers = self.integers.scales


@final
@dataclass(frozen=True, slots=True)
class Desk:
    key: SessionKey
    verifier: ExactVerifier
    owners: Owners
    stats: Stats
    #: Names of operands on the wire, and labels of keys: told apart, or gaps in one would tell workers
    #: how many of the other were drawn.
    ids: Iterator[int]
    labels: Iterator[int]
    #: Told the plain operands, where someone measures what attacks learn; for nothing else.
    truth: UnsafeTruth | None = None
    #: Memory of results.
    pool: Pool = field(default_factory=Pool)

    def share(self, integers: Integers, *, workers: int, keep: bool) -> Dealt:
        """An operand in shares, under seeds of its own."""
        key = ShareKey(self.key, (next(self.labels),), workers)
        operands = dealt(next(self.ids), key.split(integers), integers, keep=keep)
        return Dealt(key, integers, operands, self.owners.release)

    def publish(self, integers: Integers) -> Dealt:
        """A public weight, for every owner."""
        operands = dealt(next(self.ids), public(integers, len(self.owners.fleets)), integers, keep=True)
        return Dealt(None, integers, operands, self.owners.release)


@final
@dataclass(frozen=True, slots=True)
class Crew:
    """The owners that one piece goes to, by position, in the order of its shares."""

    owners: tuple[int, ...]

    @classmethod
    def of(cls, total: int, turn: int, *, public: bool) -> Crew:
        """All three; or for a public weight two of them, others the next time."""
        if not public:
            return cls(tuple(range(REPLICATED)))
        return cls(tuple((turn + i) % total for i in range(ADDITIVE)))

    def jobs(self, op: Op, left: Dealt, right: Dealt, rows: tuple[int, ...]) -> list[RingJob]:
        """One for each owner."""
        return [RingJob(op, self._own(left, i), self._own(right, i), rows) for i in range(len(self.owners))]

    def _own(self, operand: Dealt, i: int) -> RingOperand:
        # A public operand is the same for every owner, a shared one is dealt in the order of the crew.
        return operand.operands[self.owners[i] if operand.key is None else i]


def rows_of(t_GRF: Tensor, lo: int, hi: int) -> Tensor:
    """Rows lo to hi of every group, group after group: (T, F)."""
    return t_GRF[:, lo:hi].reshape(-1, t_GRF.shape[2])
