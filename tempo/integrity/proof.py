"""What is taken from the operands of a job while they are at hand: the expected projection of its reply.

    Y = X W^T       Y r  = X (W^T r)
    dX = dY W       dX r = dY (W r)
    dW = dY^T X     dW r = dY^T (X r)

Each `ask_...` asks a reading of the left operand for what it needs and returns what makes the proof of it
once the operand has been read: several jobs share one reading. Nothing else do they share: every job has
probes of its own.

Axes: T rows of all groups, G groups, K, N features, P probes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tempo.errors import UsageError
from tempo.integrity.reading import Reading
from tempo.integrity.sides import Draw, Sides
from tempo.integrity.tolerance import Tolerance, product_tolerance, rounding
from tempo.kernels import Hidden
from tempo.ops import Arithmetic, Job, Op, spans
from tempo.secrecy.keys import SingleUse


@final
class Witness(Hidden):
    """What the check of dW = dY^T X needs of X once X is gone. For one reply."""

    __slots__ = ("frobenius_G", "once", "probe_KP", "projection_TP", "spread_TP")

    def __init__(
        self, probe_KP: Tensor, projection_TP: Tensor, frobenius_G: Tensor, spread_TP: Tensor | None
    ) -> None:
        """spread_TP: h of `tempo.integrity.tolerance`, where a worker may round X."""
        self.probe_KP = probe_KP
        self.projection_TP = projection_TP
        self.frobenius_G = frobenius_G
        self.spread_TP = spread_TP
        self.once = SingleUse()


@final
@dataclass(frozen=True, slots=True, repr=False)
class Proof:
    """Expected projection of a reply, viewed as rows of `width` entries, and its tolerance."""

    probe: Tensor
    expected: Tensor
    tolerance: Tolerance


def ask_witness(
    reading: Reading, draw: Draw, width: int, rows: Sequence[int], arithmetic: Arithmetic
) -> Callable[[], Witness]:
    """Of X (T, width). arithmetic: the least of the later dW."""
    probe_KP = draw(width)
    projection = reading.along(probe_KP)
    squares = None
    if arithmetic is not Arithmetic.FP32:
        squares = reading.along(probe_KP.square(), squared=True)

    def taken() -> Witness:
        projection_TP = reading.take(projection).contiguous()  # it outlives the other columns
        spread_TP = None if squares is None else projection_TP.square() + reading.take(squares)
        return Witness(probe_KP, projection_TP, _frobenius(reading.norms, rows), spread_TP)

    return taken


def ask_rows(
    reading: Reading, sides: Sides, job: Job, left: torch.dtype, w_GNK: Tensor
) -> Callable[[], Proof]:
    """Y or dX: the left operand, of dtype `left`, times w of each row's group, W^T or W. Expected (T, P)."""
    rounds = rounding(left, w_GNK.dtype, job.arithmetic)
    n, k = w_GNK.shape[1:]
    inner, outer = (n, k) if job.op is Op.GRAD_X else (k, n)
    side = sides.take(w_GNK, job.op, rounded=bool(rounds.unit))
    projection = reading.along(side.v_GIP)
    spread = None if side.h_GIP is None else reading.along(side.h_GIP, squared=True)

    def proved() -> Proof:
        expected_TP = reading.take(projection)
        tolerance = product_tolerance(
            reading.norms,
            _by_row(side.norms_G, job.rows),
            inner=inner,
            outer=outer,
            rounding=rounds,
            dtype=torch.promote_types(left, torch.float32),
            probe_norm=largest_norm(side.probe_OP),
            expected=expected_TP,
            spread=None if spread is None else reading.take(spread),
        )
        return Proof(side.probe_OP, expected_TP, tolerance)

    return proved


def ask_grad_w(reading: Reading, job: Job, left: torch.dtype, witness: Witness) -> Callable[[], Proof]:
    """dY^T (X r), group after group: expected (G N, P)."""
    witness.once.spend("probe")
    rounds = rounding(left, job.right.dtype, job.arithmetic)
    h_TP = witness.spread_TP if rounds.unit else None
    if rounds.unit and h_TP is None:
        raise UsageError("this witness of X was taken for a worker that does not round X")
    projection = reading.down(witness.projection_TP)
    spread = None if h_TP is None else reading.down(h_TP, squared=True)
    rows, n = job.rows, job.left.shape[1]

    def proved() -> Proof:
        expected = reading.take(projection).flatten(0, 1)
        tolerance = product_tolerance(
            reading.squares.sqrt().flatten(),
            witness.frobenius_G if len(rows) == 1 else witness.frobenius_G.repeat_interleave(n),
            inner=max(rows),
            outer=witness.probe_KP.shape[0],
            rounding=rounds,
            dtype=job.result_dtype,
            probe_norm=largest_norm(witness.probe_KP),
            expected=expected,
            spread=None if spread is None else reading.take(spread).flatten(0, 1),
        )
        return Proof(witness.probe_KP, expected, tolerance)

    return proved


def largest_norm(probe: Tensor) -> float:
    return float(torch.linalg.vector_norm(probe, dim=0).amax())


def _frobenius(norms_T: Tensor, rows: Sequence[int]) -> Tensor:
    """(G,) from the norms of the rows."""
    if len(set(rows)) == 1:
        norms_G: Tensor = torch.linalg.vector_norm(norms_T.view(len(rows), rows[0]), dim=1)
        return norms_G
    return torch.stack([torch.linalg.vector_norm(norms_T[lo:hi]) for lo, hi in spans(rows)])


def _by_row(of_G: Tensor, rows: Sequence[int]) -> Tensor:
    """(T,), or (1,) where one number serves for all."""
    return of_G if len(rows) == 1 else of_G.repeat_interleave(torch.tensor(rows))
