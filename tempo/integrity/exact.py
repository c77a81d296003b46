"""The check of products on shares: exact, so without a tolerance.

Replies are added up and Chinese remaindering makes them an integer result, which is the product of the
integers sent or is not. One probe r, uniform modulo Q = 2^61 - 1, secret and fresh for each product:

    Y = X W^T       Y r  = X (W^T r)       mod Q
    dX = dY W       dX r = dY (W r)        mod Q
    dW = dY^T X     dW r = dY^T (X r)      mod Q

An entry that is wrong differs by less than 2^39.5 < Q, so by something that is not 0 modulo Q, and then a
wrong row passes for one r in Q: with 2^-61, whatever was done to how many replies. X of a forward pass is
gone when dW arrives, so X r is kept as a witness. No probe is used twice.

Only where that fails each reply is looked at by itself, on the operands of its own worker, modulo the primes:

    reply r = l_0 (r_0 + r_1) r + l_1 r_0 r     mod p, REPEATS independent r for each prime

A wrong reply escapes with 229^-REPEATS = 2^-62. Axes: T rows of all groups, G groups, K, N features.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Final, final

import torch
from torch import Tensor

from tempo.errors import IntegrityError
from tempo.integrity.mersenne import columns_times, draw, results_times, rows_times
from tempo.kernels import Hidden
from tempo.ops import PRIMES, Op, RingJob, Unverified, grad_w, grad_x, product, spans
from tempo.secrecy.chinese import whole
from tempo.secrecy.fixed import HALF, LARGEST, Integers
from tempo.secrecy.keys import SessionKey, SingleUse

#: Probes of one reply by itself.
REPEATS: Final = 8


@final
class ExactWitness(Hidden):
    """What the check of dW needs of X once X is gone. For one product."""

    __slots__ = ("once", "probe_K", "projection_T")

    def __init__(self, probe_K: Tensor, projection_T: Tensor) -> None:
        self.probe_K = probe_K
        self.projection_T = projection_T
        self.once = SingleUse()


@final
class ExactProof(Hidden):
    """The projection that the integers of one product must have. For one result."""

    __slots__ = ("_expected", "_op", "_probe", "_shape")

    def __init__(self, op: Op, shape: Sequence[int], probe: Tensor, expected: Tensor) -> None:
        self._op = op
        self._shape = (len(PRIMES), *shape)
        self._probe = probe
        self._expected = expected

    def accept(self, replies: Sequence[Unverified]) -> Tensor:
        """The integers, float64, that the replies of the two or three workers add up to.
        Raises IntegrityError where they are not the product."""
        opened = [reply.open_for_check() for reply in replies]
        for reply in opened:
            if tuple(reply.shape) != self._shape or reply.dtype != torch.uint8:
                raise IntegrityError(
                    f"{self._op.value}: a reply is {tuple(reply.shape)} {reply.dtype}, the request asked for "
                    f"{self._shape} {torch.uint8}"
                )
        result = whole(opened)
        projection = results_times(result.flatten(0, -2), self._probe, HALF)
        wrong = int((projection != self._expected).sum())
        if wrong:
            raise IntegrityError(
                f"{self._op.value}: {wrong} of {len(projection)} rows are not the product of what was shared"
            )
        return result


@final
class ExactVerifier:
    """Draws the probes of one session."""

    def __init__(self, key: SessionKey) -> None:
        self._key = key
        self._numbers = count()

    def witness(self, x: Integers) -> ExactWitness:
        """Take from X what the check of a later dW needs."""
        probe_K = self._probe(x.values.shape[1])
        return ExactWitness(probe_K, _rows(x.values, probe_K))

    def rows(self, op: Op, left: Integers, w: Integers, rows: Sequence[int]) -> ExactProof:
        """For Y = X W^T and dX = dY W: `op` says which."""
        n, k = w.values.shape[1:]
        probe = self._probe(k if op is Op.GRAD_X else n)
        through = _rows if op is Op.GRAD_X else _columns
        expected = [
            _rows(left.values[lo:hi], through(w_NK, probe))
            for w_NK, (lo, hi) in zip(w.values, spans(rows), strict=True)
        ]
        return ExactProof(op, (sum(rows), len(probe)), probe, torch.cat(expected))

    def grad_w(self, dy: Integers, witness: ExactWitness, rows: Sequence[int]) -> ExactProof:
        """For dW = dY^T X. Uses up the witness of X."""
        witness.once.spend("probe")
        expected = [_columns(dy.values[lo:hi], witness.projection_T[lo:hi]) for lo, hi in spans(rows)]
        shape = (len(rows), dy.values.shape[1], len(witness.probe_K))
        return ExactProof(Op.GRAD_W, shape, witness.probe_K, torch.cat(expected))

    def liars(self, jobs: Sequence[RingJob], replies: Sequence[Unverified]) -> list[int]:
        """Which of the replies are false, by position, each judged on the operands of its own job, which
        must all be here."""
        return [i for i, pair in enumerate(zip(jobs, replies, strict=True)) if not self._true(*pair)]

    def _true(self, job: RingJob, reply: Unverified) -> bool:
        result = reply.open_for_check()
        left, right = job.left.expanded(), job.right.expanded()
        width = result.shape[-1]
        stream = self._key.stream(("integrity", "liar", next(self._numbers)))
        for i, p in enumerate(PRIMES):
            # A word modulo p is uniform up to 2^-55.
            r = stream.words(width, REPEATS).remainder(p).double()
            halves = left[:, i].double(), right[:, i].double()
            if not torch.equal(_by(result[i].double(), r).remainder(p), _expected(job, *halves, r, p)):
                return False
        return True

    def _probe(self, width: int) -> Tensor:
        return draw(self._key.stream(("integrity", "exact", next(self._numbers))), width)


def _rows(a_RF: Tensor, v_F: Tensor) -> Tensor:
    """Norms are LARGEST at most, so sums of magnitudes are by Cauchy and Schwarz F^(1/2) times that."""
    return rows_times(a_RF, v_F, LARGEST * max(a_RF.shape[1], 1) ** 0.5)


def _columns(a_RF: Tensor, v_R: Tensor) -> Tensor:
    return columns_times(a_RF, v_R, LARGEST * max(a_RF.shape[0], 1) ** 0.5)


def _by(result: Tensor, r: Tensor) -> Tensor:
    """Rows of a result times the probes: below 2^8 2^8 F, exact."""
    return result.flatten(0, -2) @ r


def _expected(job: RingJob, left_H: Tensor, right_H: Tensor, r: Tensor, p: int) -> Tensor:
    """(l_0 (r_0 + r_1) + l_1 r_0) r mod p, without that product."""
    partners = [right_H[0]] if len(left_H) == 1 else [right_H.sum(0), right_H[0]]
    total = torch.zeros(())
    for left, right in zip(left_H, partners, strict=True):
        total = total + _through(job, left, right, r, p)
    return total.remainder(p)


def _through(job: RingJob, left: Tensor, right: Tensor, r: Tensor, p: int) -> Tensor:
    """left (right r) mod p, or left^T (right r) for dW: rows of the result by probes."""
    match job.op:
        case Op.PRODUCT:  # right (G, N, K): v (G, K, P), then as weights (G, P, K)
            v = (right.mT @ r).remainder(p)
            return product(left, v.mT.contiguous(), job.rows).remainder(p)
        case Op.GRAD_X:
            v = (right @ r).remainder(p)
            return grad_x(left, v, job.rows).remainder(p)
        case Op.GRAD_W:
            v = (right @ r).remainder(p)
            return grad_w(left, v, job.rows).remainder(p).flatten(0, 1)
