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
from tempo.stats import Stats


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


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class KeptRows:
    """A forward piece as backward finds it. x holds no values any more."""

    span: Span
    x: Dealt
    witness: ExactWitness


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

    def _share(self, integers: Integers, *, keep: bool) -> Dealt:
        return self._desk.share(integers, workers=len(self.span.crew.owners), keep=keep)

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
        self._exponents = torch.empty(0, dtype=torch.int64)

    def deal(self) -> list[Deal]:
        desk, weight, span = self._desk, self._weight, self.span
        self.tries += 1
        with desk.stats.timed("encode"):
            x_TK = rows_of(self._tensors[0], span.lo, span.hi)
            x = fixed_rows(x_TK, span.counts, weight.integers.rows, summed=self._keep)
            self._exponents = x.exponents
            shares = self._share(x, keep=self._keep)
        jobs = span.crew.jobs(Op.PRODUCT, shares, weight, span.counts)
        with desk.stats.timed("check"):
            proof = desk.verifier.rows(Op.PRODUCT, x, weight.integers, span.counts)
            if self._keep:
                self.kept = KeptRows(span, shares, desk.verifier.witness(x))
        return [Deal(jobs, proof, shares, _as_sent(jobs))]

    def open(self, results: Sequence[Tensor]) -> None:
        with self._desk.stats.timed("decode"):
            self._put(results[0], self._exponents, self._tensors[2])
        if self.kept is not None:
            self.kept.x.let_go()

    def at_home(self) -> None:
        x_GRK, w_GNK, y_GRN = self._tensors
        lo, hi = self.span.lo, self.span.hi
        self.kept = None
        with self._desk.stats.timed("local"):
            torch.bmm(x_GRK[:, lo:hi], w_GNK.mT, out=y_GRN[:, lo:hi])


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Gradients:
    """Of one layer: its plain operands, lowered when they are asked for, and the sums to fill. dx_GRK and
    dw_GNK are None where they are not wanted; dW is summed in float64."""

    x: Callable[[], Tensor]
    w: Callable[[], Tensor]
    dy_GRN: Tensor
    dx_GRK: Tensor | None
    dw_GNK: Tensor | None

    def at_home(self, span: Span, stats: Stats) -> None:
        """Compute these rows here."""
        lo, hi = span.lo, span.hi
        with stats.timed("local"):
            dy = self.dy_GRN[:, lo:hi]
            if self.dx_GRK is not None:
                torch.bmm(dy, self.w(), out=self.dx_GRK[:, lo:hi])
            if self.dw_GNK is not None:
                self.dw_GNK.add_(torch.bmm(dy.mT, self.x()[:, lo:hi]))


@final
class GradientPiece(Piece):
    """dW = dY^T X and dX = dY W, whichever are wanted: dY is shared once. With `kept` the workers have X."""

    def __init__(
        self,
        desk: Desk,
        weight: Dealt,
        span: Span,
        gradients: Gradients,
        kept: KeptRows | None,
    ) -> None:
        super().__init__(desk, weight, span)
        self._gradients = gradients
        self._kept = kept
        self._exponents = torch.empty(0, dtype=torch.int64)
        self._exponents_G = self._exponents

    def deal(self) -> list[Deal]:
        desk, weight, span, of = self._desk, self._weight, self.span, self._gradients
        want_x, want_w = of.dx_GRK is not None, of.dw_GNK is not None
        if self.tries:  # whoever held X may have lost it, and its witness is spent
            self._kept = None
        self.tries += 1
        x, witness = self._x() if want_w else (None, None)
        with desk.stats.timed("encode"):
            dy_TN = rows_of(of.dy_GRN, span.lo, span.hi)
            partners = weight.integers.columns if want_x else None
            dy = fixed_rows(
                dy_TN,
                span.counts,
                torch.zeros(span.groups, dtype=torch.float64) if partners is None else partners,
                others=None if x is None else x.integers.columns,
                summed=want_w,
            )
            self._exponents = dy.exponents
            shares = self._share(dy, keep=want_x and want_w)
        deals = []
        with desk.stats.timed("check"):
            if x is not None and witness is not None:
                first = slice(None, None, span.hi - span.lo)
                self._exponents_G = (dy.exponents + x.integers.exponents)[first]
                proof = desk.verifier.grad_w(dy, witness, span.counts)
                jobs = span.crew.jobs(Op.GRAD_W, shares, x, span.counts)
                deals.append(Deal(jobs, proof, shares, self._judged(jobs, shares, x)))
            if want_x:
                proof = desk.verifier.rows(Op.GRAD_X, dy, weight.integers, span.counts)
                jobs = span.crew.jobs(Op.GRAD_X, shares, weight, span.counts)
                deals.append(Deal(jobs, proof, shares, _as_sent(jobs)))
        return deals

    def _x(self) -> tuple[Dealt, ExactWitness]:
        """X at the workers, or shared anew, and its witness."""
        if self._kept is not None:
            return self._kept.x, self._kept.witness
        desk = self._desk
        with desk.stats.timed("encode"):
            x = self._x_integers()
            shares = self._share(x, keep=False)
        with desk.stats.timed("check"):
            return shares, desk.verifier.witness(x)

    def _x_integers(self) -> Integers:
        """As the forward pass had them: the encoding depends on X and W alone."""
        span = self.span
        x_TK = rows_of(self._gradients.x(), span.lo, span.hi)
        return fixed_rows(x_TK, span.counts, self._weight.integers.rows, summed=True)

    def _judged(self, jobs: Sequence[RingJob], dy: Dealt, x: Dealt) -> Callable[[], Sequence[RingJob]]:
        key = x.key
        if self._kept is None or key is None:
            return _as_sent(jobs)

        def rebuilt() -> Sequence[RingJob]:
            own = [
                type(operand)(operand.id, operand.shape, halves)
                for operand, halves in zip(x.operands, key.again(self._x_integers()), strict=True)
            ]
            return [
                RingJob(job.op, left, right, job.rows)
                for job, left, right in zip(jobs, dy.operands, own, strict=True)
            ]

        return rebuilt

    def open(self, results: Sequence[Tensor]) -> None:
        of, rest = self._gradients, list(results)
        with self._desk.stats.timed("decode"):
            if of.dw_GNK is not None:
                whole = rest.pop(0)
                exponents_GN = self._exponents_G[:, None].expand(whole.shape[:2])
                of.dw_GNK.add_(values_of(whole, exponents_GN, torch.float64))
            if of.dx_GRK is not None:
                self._put(rest.pop(0), self._exponents, of.dx_GRK)

    def at_home(self) -> None:
        self._gradients.at_home(self.span, self._desk.stats)


def _as_sent(jobs: Sequence[RingJob]) -> Callable[[], Sequence[RingJob]]:
    return lambda: jobs
