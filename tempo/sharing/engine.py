"""The engine of the scheme `shares`: encode, share, run on every owner's fleet, check, put together.

    integers = fixed_rows(operand)              tempo/secrecy/fixed.py
    shares   = key.split(integers)              tempo/secrecy/shares.py
    replies  = a round on each fleet            tempo/sharing/exchange.py
    integers = proof.accept(replies)            tempo/integrity/exact.py
    values   = values_of(integers)              tempo/secrecy/fixed.py

A training step encodes X, W and dY once each: shares of X and W stay with the workers, shares of dY meet
both. Pieces that did not come back are shared anew; with no worker left of one owner the master computes,
or says so. Axes: G groups, R rows, K in-features, N out-features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import final

import torch
from torch import Tensor

from tempo.chunks import cut
from tempo.lowering.base import Lowering
from tempo.products import Products, Receipt
from tempo.secrecy.rows import apportion, largest, row_norms, unfit
from tempo.secrecy.shares import REPLICATED
from tempo.sharing.desk import Crew, Dealt, Desk
from tempo.sharing.exchange import Exchange, Missed
from tempo.sharing.gradients import GradientPiece, Gradients
from tempo.sharing.pieces import ForwardPiece, KeptRows, Piece, Span
from tempo.sharing.weights import SharedWeights

#: A piece is shared so often; then the master computes it. Workers that lie in turn must not hold a step up.
TRIES = 4
#: Why a weight stays where only two owners have workers.
TOO_FEW_OWNERS = "a secret weight takes workers of three owners, here are two"
#: Cuts between pieces are at multiples of so many rows.
GRAIN = 256


@final
@dataclass(slots=True, eq=False, repr=False)
class Ticket(Receipt):
    """What backward needs of a forward pass."""

    weight: Dealt | None = None
    #: Rows as they were sent, and what workers keep of them.
    parts: list[tuple[Span, KeptRows | None]] = field(default_factory=list)
    #: Largest row norms of X and W.
    largest_x: float = 0.0
    largest_w: float = 0.0


@final
class SharesEngine(Products[Ticket]):
    """Runs lowered products and their gradients on the fleets of two or three owners."""

    def __init__(self, desk: Desk, weights: SharedWeights, *, key_shift: bool, local_fallback: bool) -> None:
        self._desk = desk
        self._weights = weights
        self._exchange = Exchange(desk)
        self._key_shift = key_shift
        self._local_fallback = local_fallback

    def forward(
        self, lowering: Lowering, x: Tensor, w: Tensor, *, train_w: bool, public: bool = False
    ) -> tuple[Tensor, Ticket]:
        stats = self._desk.stats
        with stats.timed("lower"):
            x_GRK, w_GNK = lowering.lower_x(x), lowering.lower_w(w)
            largest_x, largest_w = largest(row_norms(x_GRK)), largest(row_norms(w_GNK))
        y_GRN = self._desk.pool.empty((*x_GRK.shape[:2], w_GNK.shape[1]), x_GRK.dtype)
        ticket = Ticket(largest_x=largest_x, largest_w=largest_w)
        ticket.reason, weight = unfit(largest_x, largest_w, dtype=x.dtype), None
        if not ticket.reason:
            weight = self._weights.of(w, lowering, w_GNK, public=public)
            ticket.reason = self._too_few_owners(weight)
        if weight is None or ticket.reason:
            with stats.timed("local"):
                torch.bmm(x_GRK, w_GNK.mT, out=y_GRN)
        else:
            ticket.weight = weight
            keep = train_w and self._key_shift
            pieces = [
                ForwardPiece(self._desk, weight, span, (x_GRK, w_GNK, y_GRN), keep=keep)
                for span in self._spans(lowering, public=weight.key is None, dw=keep)
            ]
            self._count("x")
            self._run(pieces)
            ticket.parts = [(piece.span, piece.kept) for piece in pieces]
        with stats.timed("lower"):
            return lowering.raise_y(y_GRN), ticket

    def backward(
        self,
        ticket: Ticket,
        lowering: Lowering,
        x: Tensor,
        w: Tensor,
        dy: Tensor,
        *,
        want_x: bool,
        want_w: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        stats, shape, weight = self._desk.stats, lowering.shape, ticket.weight
        with stats.timed("lower"):
            dy_GRN = lowering.lower_dy(dy)
            size = largest(row_norms(dy_GRN))
        sizes = {"x": (shape.groups, shape.rows, shape.k), "w": (shape.groups, shape.n, shape.k)}
        gradients = Gradients(
            cache(lambda: self._lowered(lowering.lower_x, x)),
            cache(lambda: self._lowered(lowering.lower_w, w)),
            dy_GRN,
            self._desk.pool.empty(sizes["x"], dy.dtype) if want_x else None,
            torch.zeros(sizes["w"], dtype=torch.float64) if want_w else None,
        )
        # Witnesses serve once: a second backward of the same graph shares X anew.
        parts, ticket.parts = ticket.parts, [(span, None) for span, _ in ticket.parts]
        if weight is None or unfit(size, ticket.largest_x, ticket.largest_w, dtype=dy.dtype):
            everything = Span(shape.groups, 0, shape.rows, 0, Crew(()))
            gradients.at_home(everything, stats)
        elif want_x or want_w:
            shifted = any(kept for _, kept in parts)
            self._count("dy", *(() if shifted or not want_w else "x"), products=want_x + want_w)
            self._run([GradientPiece(self._desk, weight, span, gradients, kept) for span, kept in parts])
        with stats.timed("lower"):
            dx, dw = gradients.dx_GRK, gradients.dw_GNK
            return (
                None if dx is None else lowering.raise_dx(dx),
                None if dw is None else lowering.raise_dw(dw.to(dy.dtype)),
            )

    def _too_few_owners(self, weight: Dealt) -> str | None:
        """Why a weight must not be sent, or None. Placement keeps most such calls before they come here."""
        secret = weight.key is not None
        return TOO_FEW_OWNERS if secret and len(self._desk.owners.fleets) < REPLICATED else None

    def _run(self, pieces: Sequence[Piece]) -> None:
        """Until every piece has its results, from the workers or from here."""
        todo = list(pieces)
        while todo:
            again = []
            with self._exchange.run(todo) as outcomes:
                for piece, result in outcomes:
                    if not isinstance(result, Missed):
                        piece.open(result)
                    elif result.lasting or piece.tries >= TRIES:
                        if not self._local_fallback:
                            raise result.error
                        self._desk.stats.add("local_fallbacks")
                        piece.at_home()
                    else:
                        again.append(piece)
            todo = again

    def _spans(self, lowering: Lowering, *, public: bool, dw: bool) -> list[Span]:
        """The rows in pieces, with lanes and crews. dw: each will have a partial dW."""
        shape, owners = lowering.shape, self._desk.owners
        speeds = [1.0] * owners.lanes
        shares = cut([shape.rows] * shape.groups, shape.k, shape.n, speeds, chunk=GRAIN, dw=dw)
        spans: list[Span] = []
        turn = self._desk.stats.count("products")  # so that no owner is left out
        lo = 0
        for size, lane in zip(
            apportion(shape.rows, shares.weights, 1, shares.grain), shares.lanes, strict=True
        ):
            if size:
                crew = Crew.of(len(owners.fleets), turn + len(spans), public=public)
                spans.append(Span(shape.groups, lo, lo + size, lane, crew))
            lo += size
        return spans

    def _lowered(self, lower: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
        with self._desk.stats.timed("lower"):
            return lower(t)

    def _count(self, *encoded: str, products: int = 1) -> None:
        """Products were sent, for which these operands were encoded. One by itself encodes two."""
        self._desk.stats.add("products", products)
        for operand in encoded:
            self._desk.stats.add(f"encoded_{operand}")
