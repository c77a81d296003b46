"""Checks that a reply is the product of the operands that were sent (Freivalds, 1977).

With r a secret Gaussian, fresh per job and unknown to every worker:

    Y = X W^T       Y r  = X (W^T r)
    dX = dY W       dX r = dY (W r)
    dW = dY^T X     dW r = dY^T (X r)

The right-hand sides are taken while the operands are at hand, on the rounded values as sent, in
float64. Then one projection of the reply decides. X of a forward pass is gone when dW arrives, so
its projection is kept as a `Witness`. A probe is never used for two replies: accepting or
refusing one tells the worker something about it.

Axes: T rows of all groups, G groups, K, N features, P probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import final

import torch
from torch import Tensor

from tempo.errors import IntegrityError, UsageError
from tempo.integrity.tolerance import Tolerance, product_tolerance, rounding
from tempo.kernels import Hidden, contract, project
from tempo.ops import Arithmetic, Job, Op, Unverified, spans
from tempo.secrecy.keys import SessionKey, SingleUse


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


@dataclass(frozen=True, slots=True, repr=False)
class _Proof:
    """Expected projection of a reply, viewed as rows of `width` entries, and its tolerance."""

    probe: Tensor
    expected: Tensor
    tolerance: Tolerance


@final
class Verifier:
    """Draws the probes of one session."""

    def __init__(self, key: SessionKey, probes: int) -> None:
        if probes < 1:
            raise UsageError(f"probes is at least 1, not {probes}")
        self._key = key
        self._probes = probes
        self._numbers = count()

    def probe(self, width: int) -> Tensor:
        """(width, P), from a stream of its own: threads may ask at once, and none ever runs dry."""
        return self._key.stream(("integrity", "probe", next(self._numbers))).gaussian(width, self._probes)

    def witness(self, x_TK: Tensor, rows: Sequence[int], arithmetic: Arithmetic = Arithmetic.FP32) -> Witness:
        """Take from X, as sent, what the check of a later dW needs. arithmetic: the least of it."""
        probe_KP = self.probe(x_TK.shape[1])
        projection_TP, norms_T = project(x_TK, probe_KP)
        spread_TP = None
        if arithmetic is not Arithmetic.FP32:
            spread_TP = projection_TP.square() + project(x_TK, probe_KP.square(), squared=True)[0]
        return Witness(probe_KP, projection_TP, _group_norms(norms_T, rows), spread_TP)

    def begin(self) -> Checks:
        return Checks(self)


@final
class Checks:
    """The checks of one round of jobs."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._proofs: dict[Job, _Proof] = {}
        self.made = 0
        self.failed = 0

    def expect(self, job: Job, witness: Witness | None = None) -> None:
        """Prepare the check of `job` while its operands are at hand; for GRAD_W with an X that only
        a worker still holds, give its witness."""
        self._proofs[job] = _prove(self._verifier, job, witness)

    def accept(self, job: Job, reply: Unverified) -> Tensor:
        """The reply as a value, or IntegrityError. A second reply to the same job meets a fresh probe."""
        proof = self._proofs.pop(job, None) or _prove(self._verifier, job, None)
        self.made += 1
        try:
            return _check(job, proof, reply)
        except IntegrityError:
            self.failed += 1
            raise


def _prove(verifier: Verifier, job: Job, witness: Witness | None) -> _Proof:
    left, right = job.left.tensor, job.right.tensor
    if left is None:
        raise UsageError("a job is checked on its operands as sent: the left one is missing")
    if job.op is Op.GRAD_W:
        if witness is None:
            if right is None:
                raise UsageError("X has left the master without a witness: dW cannot be checked")
            witness = verifier.witness(right, job.rows, job.arithmetic)
        return _prove_grad_w(job, left, witness)
    if right is None:
        raise UsageError("a job is checked on its operands as sent: the right one is missing")
    return _prove_rows(verifier, job, left, right)


def _prove_rows(verifier: Verifier, job: Job, left: Tensor, w_GNK: Tensor) -> _Proof:
    """left (T, inner) times w of each row's group, W^T or W: expected (T, P)."""
    rounds = rounding(left.dtype, w_GNK.dtype, job.arithmetic)
    n, k = w_GNK.shape[1:]
    inner, outer = (n, k) if job.op is Op.GRAD_X else (k, n)
    probe_OP = verifier.probe(outer)
    # W r or W^T r, and norms whose norm is that of W.
    through = project if job.op is Op.GRAD_X else _contract
    expected, norms, right, spread = [], [], [], []
    for w_NK, (lo, hi) in zip(w_GNK, spans(job.rows), strict=True):
        v_IP, norms_I = through(w_NK, probe_OP)
        projection, norms_R = project(left[lo:hi], v_IP)
        expected.append(projection)
        norms.append(norms_R)
        right.append(torch.linalg.vector_norm(norms_I).expand(hi - lo))
        if rounds.unit:
            h_IP = v_IP.square() + through(w_NK, probe_OP.square(), squared=True)[0]
            spread.append(project(left[lo:hi], h_IP, squared=True)[0])
    expected_TP = torch.cat(expected)
    tolerance = product_tolerance(
        torch.cat(norms),
        torch.cat(right),
        inner=inner,
        outer=outer,
        rounding=rounds,
        dtype=torch.promote_types(left.dtype, torch.float32),
        probe_norm=_largest_norm(probe_OP),
        expected=expected_TP,
        spread=torch.cat(spread) if spread else None,
    )
    return _Proof(probe_OP, expected_TP, tolerance)


def _prove_grad_w(job: Job, dy_TN: Tensor, witness: Witness) -> _Proof:
    """dY^T (X r), group after group: expected (G N, P)."""
    witness.once.spend("probe")
    rounds = rounding(dy_TN.dtype, job.right.dtype, job.arithmetic)
    h_TP = witness.spread_TP if rounds.unit else None
    if rounds.unit and h_TP is None:
        raise UsageError("this witness of X was taken for a worker that does not round X")
    rows, n = job.rows, dy_TN.shape[1]
    expected = torch.empty(len(rows), n, witness.probe_KP.shape[1], dtype=torch.float64)
    squares = torch.empty(len(rows), n, dtype=torch.float64)
    spread = None if h_TP is None else torch.empty_like(expected)
    for g, (lo, hi) in enumerate(spans(rows)):
        expected[g], squares[g] = contract(dy_TN[lo:hi], witness.projection_TP[lo:hi])
        if spread is not None and h_TP is not None:
            spread[g] = contract(dy_TN[lo:hi], h_TP[lo:hi], squared=True)[0]
    tolerance = product_tolerance(
        squares.sqrt_().flatten(),
        witness.frobenius_G.repeat_interleave(n),
        inner=max(rows),
        outer=witness.probe_KP.shape[0],
        rounding=rounds,
        dtype=job.result_dtype,
        probe_norm=_largest_norm(witness.probe_KP),
        expected=expected.flatten(0, 1),
        spread=None if spread is None else spread.flatten(0, 1),
    )
    return _Proof(witness.probe_KP, expected.flatten(0, 1), tolerance)


def _check(job: Job, proof: _Proof, reply: Unverified) -> Tensor:
    result = reply.open_for_check()
    if tuple(result.shape) != job.result_shape or result.dtype != job.result_dtype:
        raise IntegrityError(
            f"{job.op.value}: the reply is {tuple(result.shape)} {result.dtype}, "
            f"the request asked for {job.result_shape} {job.result_dtype}"
        )
    rows_RF = result.reshape(-1, result.shape[-1])
    projection, norms = project(rows_RF, proof.probe)
    difference = (projection - proof.expected).abs()
    tolerance = proof.tolerance
    if result.dtype == torch.bfloat16:
        squares = project(rows_RF, proof.probe.square(), squared=True)[0]
        tolerance = tolerance.rounded(squares, norms.unsqueeze(1), _largest_norm(proof.probe))
    # NaN compares false, so it is refused as well; within an infinite tolerance anything would pass.
    allowed = tolerance.calibrated
    passed = ((difference <= allowed) & allowed.isfinite()).all(1) & (norms <= tolerance.largest)
    if passed.all():
        return result
    beyond = ~((difference <= tolerance.sound).all(1) & (norms <= tolerance.largest))
    raise IntegrityError(
        f"{job.op.value}: {int((~passed).sum())} of {passed.numel()} rows differ from the product of what "
        f"was sent by more than rounding explains"
        + (f", {int(beyond.sum())} of them by more than any rounding could" if beyond.any() else "")
    )


def _contract(a_RF: Tensor, q_RP: Tensor, *, squared: bool = False) -> tuple[Tensor, Tensor]:
    out, squares = contract(a_RF, q_RP, squared=squared)
    return out, squares.sqrt_()


def _group_norms(norms_T: Tensor, rows: Sequence[int]) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(norms_T[lo:hi]) for lo, hi in spans(rows)])


def _largest_norm(probe: Tensor) -> float:
    return float(torch.linalg.vector_norm(probe, dim=0).amax())
