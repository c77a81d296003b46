"""Pieces: some rows of one operation, shared into jobs for every owner of a crew, and put together again.

A piece is shared when it is dispatched, so that workers compute while the next is encoded. One that did not
come back is shared once more under fresh seeds, which says nothing new to anybody. A forward piece leaves
`KeptRows`, a gradient piece may use them: then X stays where it is, and a step encodes three operands.

Axes: T rows of all groups, G groups, R rows, K in-features, N out-features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tempo.integrity import ExactProof, ExactWitness
from tempo.ops import Op, RingJob
from tempo.secrecy.fixed import Integers, fixed_rows, values_of
from tempo.sharing.desk import Crew, Dealt, Desk, rows_of
from tempo.sharing.lone import lone_rows, without


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Deal:
    """One product of a piece: a job for each of the crew, and the check of what they add up to. shares: of
    the operand that was shared for it; workers may drop them when this dies. judged: the same jobs with
    every share at hand, to find out who lied."""

    jobs: Sequence[RingJob]
    proof: ExactProof
    shares: Dealt
    judged: Callable[[], Sequence[RingJob]]


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Span:
    """Rows lo to hi of every group, and where they go."""

    groups: int
    lo: int
    hi: int
    lane: int
    crew: Crew

    @property
    def counts(self) -> tuple[int, ...]:
        return (self.hi - self.lo,) * self.groups

    def places(self, rows: Tensor) -> list[tuple[int, Tensor]]:
        """Of rows of this piece, by their index among T: group, and index within the group's own rows."""
        each = self.hi - self.lo
        return [(g, rows[rows // each == g] % each + self.lo) for g in (rows // each).unique().tolist()]


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class KeptRows:
    """A forward piece as backward finds it. x holds no values. lone: rows of X that went as zeros."""

    span: Span
    x: Dealt
    witness: ExactWitness
    lone: Tensor


class Piece(ABC):
    """Abstract. tries: how often its rows were shared so far."""

    def __init__(self, desk: Desk, weight: Dealt, span: Span) -> None:
        self.span = span
        self.tries = 0
        self._desk = desk
        self._weight = weight

    @abstractmethod
    def deal(self) -> list[Deal]:
        """Encode, share under seeds of its own, and prepare the checks. Asked again, it shares anew."""

    @abstractmethod
    def open(self, results: Sequence[Tensor]) -> None:
        """Enter the integers of each deal, in order, where they belong."""

    @abstractmethod
    def at_home(self) -> None:
        """Compute them here."""

    def _share(self, t_TF: Tensor, integers: Integers, what: str, beside: int, *, keep: bool) -> Dealt:
        """what: "x" or "dy"; t_TF: before it was rounded; beside: what it meets, or 0. For the truth."""
        desk = self._desk
        shares = desk.share(integers, workers=len(self.span.crew.owners), keep=keep)
        if desk.truth is not None:
            desk.truth.rows(shares.id, what, beside, t_TF.split(self.span.counts), [], [])
        return shares

    def _put(self, result_TF: Tensor, exponents_T: Tensor, out_GRF: Tensor) -> None:
        """Rows of Y or dX, unscaled."""
        span, of_w = self.span, self._weight.integers.exponents
        exponents_T = exponents_T + of_w.repeat_interleave(span.hi - span.lo)
        rows = values_of(result_TF, exponents_T, out_GRF.dtype)
        out_GRF[:, span.lo : span.hi] = rows.view(span.groups, -1, out_GRF.shape[2])


@final
class ForwardPiece(Piece):
    """Y = X W^T into y_GRN. keep: leave the shares of X with the workers for dW."""

    def __init__(
        self,
        desk: Desk,
        weight: Dealt,
        span: Span,
        tensors: tuple[Tensor, Tensor, Tensor],
        *,
        keep: bool,
    ) -> None:
        """tensors: X_GRK, W_GNK, Y_GRN."""
        super().__init__(desk, weight, span)
        self.kept: KeptRows | None = None
        self._tensors = tensors
        self._keep = keep
        self._exponents = self._lone = torch.empty(0, dtype=torch.int64)

    def deal(self) -> list[Deal]:
        desk, weight, span = self._desk, self._weight, self.span
        self.tries += 1
        with desk.stats.timed("encode"):
            x_TK = rows_of(self._tensors[0], span.lo, span.hi)
            if self._keep:  # else each row has a scale of its own
                self._lone = lone_rows(x_TK, span.counts)
            x_TK = without(x_TK, self._lone)
            x = fixed_rows(x_TK, span.counts, weight.integers.rows, summed=self._keep)
            self._exponents = x.exponents
            shares = self._share(x_TK, x, "x", weight.id, keep=self._keep)
        jobs = span.crew.jobs(Op.PRODUCT, shares, weight, span.counts)
        with desk.stats.timed("check"):
            proof = desk.verifier.rows(Op.PRODUCT, x, weight.integers, span.counts)
            if self._keep:
                self.kept = KeptRows(span, shares, desk.verifier.witness(x), self._lone)
        return [Deal(jobs, proof, shares, as_sent(jobs))]

    def open(self, results: Sequence[Tensor]) -> None:
        with self._desk.stats.timed("decode"):
            self._put(results[0], self._exponents, self._tensors[2])
        x_GRK, w_GNK, y_GRN = self._tensors
        with self._desk.stats.timed("local"):
            for g, rows in self.span.places(self._lone):
                y_GRN[g, rows] = x_GRK[g, rows] @ w_GNK[g].mT
        if self.kept is not None:
            self.kept.x.let_go()

    def at_home(self) -> None:
        x_GRK, w_GNK, y_GRN = self._tensors
        lo, hi = self.span.lo, self.span.hi
        self.kept = None
        with self._desk.stats.timed("local"):
            torch.bmm(x_GRK[:, lo:hi], w_GNK.mT, out=y_GRN[:, lo:hi])


def as_sent(jobs: Sequence[RingJob]) -> Callable[[], Sequence[RingJob]]:
    """The jobs hold every share themselves."""
    return lambda: jobs
