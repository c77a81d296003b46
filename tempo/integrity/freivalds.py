"""Checks that a reply is the product of the operands that were sent (Freivalds, 1977).

With r a secret Gaussian, fresh per job and unknown to every worker:

    Y = X W^T       Y r  = X (W^T r)
    dX = dY W       dX r = dY (W r)
    dW = dY^T X     dW r = dY^T (X r)

The right-hand sides are taken while the operands are at hand, on the rounded values as sent, in
float64 (tempo/integrity/proof.py). Then one projection of the reply decides. X of a forward pass is gone
when dW arrives, so its projection is kept as a `Witness`. A probe is never used for two replies: accepting or
refusing one tells the worker something about it.

Axes: T rows of all groups, G groups, K, N features, P probes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import final

import torch
from torch import Tensor

from tempo.errors import IntegrityError, UsageError
from tempo.integrity.guarantee import Guarantee, guarantee
from tempo.integrity.proof import Proof, Witness, ask_grad_w, ask_rows, ask_witness, largest_norm
from tempo.integrity.reading import Reading
from tempo.integrity.sides import Sides
from tempo.integrity.tolerance import Tolerance
from tempo.kernels import Sums, survey
from tempo.ops import Arithmetic, Job, Op, Unverified
from tempo.secrecy.keys import SessionKey


@final
class Verifier:
    """Draws the probes of one session."""

    def __init__(self, key: SessionKey, probes: int) -> None:
        if probes < 1:
            raise UsageError(f"probes is at least 1, not {probes}")
        self._key = key
        self._probes = probes
        self._numbers = count()
        self._lock = threading.Lock()
        #: By operation and numbers: the longest inner and outer lengths that were checked.
        self._longest: dict[tuple[Op, torch.dtype, torch.dtype, Arithmetic], tuple[int, int]] = {}

    def probe(self, width: int) -> Tensor:
        """(width, P), from a stream of its own: threads may ask at once, and none ever runs dry."""
        return self._key.stream(("integrity", "probe", next(self._numbers))).gaussian(width, self._probes)

    def witness(self, x_TK: Tensor, rows: Sequence[int], arithmetic: Arithmetic = Arithmetic.FP32) -> Witness:
        """Take from X, as sent, what the check of a later dW needs. arithmetic: the least of it."""
        reading = Reading(x_TK, rows)
        taken = ask_witness(reading, self.probe, x_TK.shape[1], rows, arithmetic)
        reading.read()
        return taken()

    def begin(self, pieces: int = 1) -> Checks:
        """For a round of this many jobs of a kind that meet one W'."""
        return Checks(self, pieces)

    def note(self, job: Job) -> None:
        """A job is to be checked: `guarantees` will speak of its kind and lengths."""
        kind = (job.op, job.left.dtype, job.right.dtype, job.arithmetic)
        outer = job.result_shape[-1]
        inner = max(job.rows) if job.op is Op.GRAD_W else job.left.shape[1]
        with self._lock:
            longest = self._longest.get(kind, (0, 0))
            self._longest[kind] = (max(longest[0], inner), max(longest[1], outer))

    def guarantees(self, miss: float) -> list[Guarantee]:
        """What is found with probability 1 - miss, for every kind of job there was, at its longest."""
        with self._lock:
            kinds = sorted(self._longest.items(), key=str)
        return [
            guarantee(*kind, inner=inner, outer=outer, probes=self._probes, miss=miss)
            for kind, (inner, outer) in kinds
        ]


@final
class Checks:
    """The checks of one round of jobs."""

    def __init__(self, verifier: Verifier, pieces: int = 1) -> None:
        self._verifier = verifier
        self._sides = Sides(verifier.probe, max(1, pieces))
        self._proofs: dict[Job, Proof] = {}
        self.made = 0
        self.failed = 0

    def expect(self, job: Job, witness: Witness | None = None) -> None:
        """Prepare the check of `job` while its operands are at hand; for GRAD_W with an X that only
        a worker still holds, give its witness."""
        self.expect_all([job], witness)

    def expect_all(self, jobs: Sequence[Job], witness: Witness | None = None) -> None:
        """The same for jobs with one left operand, which is read once for all of them. witness: for the one
        GRAD_W among them."""
        reading, asked = _ask(self._verifier, self._sides, jobs, witness)
        reading.read()
        self._proofs |= {job: proved() for job, proved in asked.items()}

    def expect_and_keep(self, job: Job) -> Witness:
        """Prepare the check of Y = X W^T, and take in the same reading of X what that of a later dW needs."""
        reading, asked = _ask(self._verifier, self._sides, [job], None)
        draw, width = self._verifier.probe, job.left.shape[1]
        taken = ask_witness(reading, draw, width, job.rows, job.arithmetic)
        reading.read()
        self._proofs[job] = asked[job]()
        return taken()

    def accept(self, job: Job, reply: Unverified) -> Tensor:
        """The reply as a value, or IntegrityError. A second reply to the same job meets a fresh probe."""
        if job not in self._proofs:
            self.expect(job)
        proof = self._proofs.pop(job)
        self.made += 1
        try:
            return _check(job, proof, reply)
        except IntegrityError:
            self.failed += 1
            raise


def prove(verifier: Verifier, jobs: Sequence[Job], witness: Witness | None = None) -> dict[Job, Proof]:
    """Fresh probes for these jobs, which have one left operand, and what they shall find."""
    reading, asked = _ask(verifier, Sides(verifier.probe), jobs, witness)
    reading.read()
    return {job: proved() for job, proved in asked.items()}


def _ask(
    verifier: Verifier, sides: Sides, jobs: Sequence[Job], witness: Witness | None
) -> tuple[Reading, dict[Job, Callable[[], Proof]]]:
    """The reading of the left operand of these jobs, not done yet, and what makes their proofs after it."""
    first = jobs[0]
    left, rows = first.left.tensor, first.rows
    if left is None:
        raise UsageError("a job is checked on its operands as sent: the left one is missing")
    if any(job.left.tensor is not left or job.rows != rows for job in jobs):
        raise UsageError("jobs that are prepared together have one left operand")
    reading = Reading(left, rows)
    asked: dict[Job, Callable[[], Proof]] = {}
    for job in jobs:
        verifier.note(job)
        right = job.right.tensor
        if job.op is Op.GRAD_W:
            if witness is None:
                if right is None:
                    raise UsageError("X has left the master without a witness: dW cannot be checked")
                witness = verifier.witness(right, rows, job.arithmetic)
            asked[job] = ask_grad_w(reading, job, left.dtype, witness)
        elif right is None:
            raise UsageError("a job is checked on its operands as sent: the right one is missing")
        else:
            asked[job] = ask_rows(reading, sides, job, left.dtype, right)
    return reading, asked


def _check(job: Job, proof: Proof, reply: Unverified) -> Tensor:
    result = reply.open_for_check()
    if tuple(result.shape) != job.result_shape or result.dtype != job.result_dtype:
        raise IntegrityError(
            f"{job.op.value}: the reply is {tuple(result.shape)} {result.dtype}, "
            f"the request asked for {job.result_shape} {job.result_dtype}"
        )
    found = judge(proof, result)
    if found.passed.all():
        return result
    beyond = ~((found.difference <= found.tolerance.sound).all(1) & found.small)
    raise IntegrityError(
        f"{job.op.value}: {int((~found.passed).sum())} of {found.passed.numel()} rows differ from the "
        f"product of what was sent by more than rounding explains"
        + (f", {int(beyond.sum())} of them by more than any rounding could" if beyond.any() else "")
    )


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Judgement:
    """difference, allowed: (rows, P), or (rows, 1) where one serves all probes. small (rows,): no larger than
    an honest row can be. tolerance: `allowed` is its calibrated tier."""

    difference: Tensor
    allowed: Tensor
    small: Tensor
    tolerance: Tolerance

    @property
    def within(self) -> Tensor:
        """(rows, P). NaN compares false, so it is refused as well; within an infinite tolerance anything
        would pass."""
        return (self.difference <= self.allowed) & self.allowed.isfinite()

    @property
    def passed(self) -> Tensor:
        """(rows,), by all probes."""
        return self.within.all(1) & self.small


def judge(proof: Proof, result: Tensor) -> Judgement:
    """Each row of a result of the right shape and dtype against each probe."""
    rounded = result.dtype == torch.bfloat16
    asked = [Sums(proof.probe), *([Sums(proof.probe.square(), squared=True)] if rounded else [])]
    found = survey(result.reshape(-1, result.shape[-1]), asked)
    norms, tolerance = found.norms, proof.tolerance
    difference = (found.along[0] - proof.expected).abs_()
    if rounded:
        tolerance = tolerance.rounded(found.along[1], norms.unsqueeze(1), largest_norm(proof.probe))
    return Judgement(difference, tolerance.calibrated, norms <= tolerance.largest, tolerance)
