"""Gradient pieces: dW = dY^T X and dX = dY W on some rows, of one encoding of dY.

Axes: T rows of all groups, G groups, R rows, K in-features, N out-features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tempo.integrity import ExactWitness
from tempo.ops import Op, RingJob, RingOperand
from tempo.secrecy.fixed import Integers, fixed_rows, values_of
from tempo.sharing.desk import Dealt, Desk, rows_of
from tempo.sharing.lone import lone_rows, without
from tempo.sharing.pieces import Deal, KeptRows, Piece, Span, as_sent
from tempo.stats import Stats


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
        self._exponents = self._exponents_G = self._lone = self._lone_x = torch.empty(0, dtype=torch.int64)

    def deal(self) -> list[Deal]:
        desk, weight, span, of = self._desk, self._weight, self.span, self._gradients
        want_x, want_w = of.dx_GRK is not None, of.dw_GNK is not None
        if self.tries:  # whoever held X may have lost it, and its witness is spent
            self._kept = None
        self.tries += 1
        x, witness = self._x() if want_w else (None, None)
        with desk.stats.timed("encode"):
            dy_TN = rows_of(of.dy_GRN, span.lo, span.hi)
            if want_w:
                self._lone = lone_rows(dy_TN, span.counts)
            dy_TN = without(dy_TN, self._lone)
            partners = weight.integers.columns if want_x else None
            dy = fixed_rows(
                dy_TN,
                span.counts,
                torch.zeros(span.groups, dtype=torch.float64) if partners is None else partners,
                others=None if x is None else x.integers.columns,
                summed=want_w,
            )
            self._exponents = dy.exponents
            beside = weight.id if x is None else x.id
            shares = self._share(dy_TN, dy, "dy", beside, keep=want_x and want_w)
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
                deals.append(Deal(jobs, proof, shares, as_sent(jobs)))
        return deals

    def _x(self) -> tuple[Dealt, ExactWitness]:
        """X at the workers, or shared anew, and its witness."""
        if self._kept is not None:
            self._lone_x = self._kept.lone
            return self._kept.x, self._kept.witness
        desk = self._desk
        with desk.stats.timed("encode"):
            x_TK, x, self._lone_x = self._x_integers()
            shares = self._share(x_TK, x, "x", 0, keep=False)
        with desk.stats.timed("check"):
            return shares, desk.verifier.witness(x)

    def _x_integers(self) -> tuple[Tensor, Integers, Tensor]:
        """X as it is sent, as integers, and its lone rows, as a forward pass has them: the encoding depends
        on X and W alone."""
        span = self.span
        x_TK = rows_of(self._gradients.x(), span.lo, span.hi)
        lone = lone_rows(x_TK, span.counts)
        x_TK = without(x_TK, lone)
        return x_TK, fixed_rows(x_TK, span.counts, self._weight.integers.rows, summed=True), lone

    def _judged(self, jobs: Sequence[RingJob], dy: Dealt, x: Dealt) -> Callable[[], Sequence[RingJob]]:
        key = x.key
        if self._kept is None or key is None:
            return as_sent(jobs)

        def rebuilt() -> Sequence[RingJob]:
            own = [
                RingOperand(operand.id, operand.shape, halves)
                for operand, halves in zip(x.operands, key.again(self._x_integers()[1]), strict=True)
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
        with self._desk.stats.timed("local"):
            self._add_lone()

    def _add_lone(self) -> None:
        """What rows that were sent as zeros add: those of dY to dX, those of either operand to dW."""
        of, span = self._gradients, self.span
        if of.dx_GRK is not None:
            for g, rows in span.places(self._lone):
                of.dx_GRK[g, rows] = of.dy_GRN[g, rows] @ of.w()[g]
        if of.dw_GNK is not None:
            both = torch.cat([self._lone, self._lone_x]).unique()
            for g, rows in span.places(both):
                of.dw_GNK[g] += of.dy_GRN[g, rows].mT @ of.x()[g, rows]

    def at_home(self) -> None:
        self._gradients.at_home(self.span, self._desk.stats)
