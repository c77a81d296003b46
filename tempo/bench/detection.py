"""How often a wrong reply is found, against its size: the curves of `tempo bench integrity`.

One product, many wrong replies to it, each judged with many probes at once by what judges replies in a
session.
A trial is one decision on one wrong reply with fresh probes.

    relative_size   ||D|| / ||row|| of the row that is moved most, in tolerances
    tolerances      ||D|| of that row / its calibrated tolerance (root mean square over probes)
    threshold       the size in tolerances above which misses are promised to be fewer than t
    expected        the share that section 8 of docs/numerics.md predicts, where the tolerance is the same
                    for all probes
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final, final

import torch
from torch import Tensor

from tempo.bench.arithmetics import FORMS, Form, answer, cut_tf32, exact, job_of, sizes, to_bf16, to_tf32
from tempo.bench.budget import Budget
from tempo.bench.honest import PROBES
from tempo.bench.operands import Shape, normal, pair_of
from tempo.bench.result import Result
from tempo.bench.tampers import TAMPERS, Target
from tempo.integrity import Verifier
from tempo.integrity.freivalds import judge, prove
from tempo.integrity.guarantee import STATED_MISS, guarantee, missed
from tempo.integrity.proof import Proof
from tempo.ops import Arithmetic, Job, Op
from tempo.secrecy.keys import SessionKey

Say = Callable[[str], None]

#: (what the worker does to operands, what was asked): less than was asked for.
_LESS: Final = (
    ("bf16 for float32", to_bf16, Arithmetic.FP32),
    ("tf32 for float32", to_tf32, Arithmetic.FP32),
    ("tf32 cut off for float32", cut_tf32, Arithmetic.FP32),
    ("bf16 for tf32", to_bf16, Arithmetic.TF32),
)


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """trials: of each point of a curve, over `draws` wrong replies. sizes: in tolerances. inner: lengths at
    which a worker computes in less than was asked."""

    trials: int = 1024
    draws: int = 8
    sizes: Sequence[float] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
    shapes: Sequence[Shape] = (Shape("square", (96,), 256, 128),)
    inner: Sequence[int] = (64, 256, 768, 2048, 4096)


@final
class Court:
    """One job and as many proofs of it as wrong replies are drawn, each for many trials."""

    def __init__(self, job: Job, reply: Tensor, settings: Settings) -> None:
        self.job, self.reply = job, reply
        self._trials = settings.trials // settings.draws
        self._proofs = [_proof(job, PROBES * self._trials) for _ in range(settings.draws)]
        self.exact = exact(job).reshape(-1, reply.shape[-1])
        true = reply.reshape(self.exact.shape)
        allowed = judge(self._proofs[0], reply).allowed
        self.target = Target(job, true.double(), allowed.square().mean(1).sqrt())
        stated = guarantee(
            job.op,
            job.left.dtype,
            job.right.dtype,
            job.arithmetic,
            inner=max(job.rows) if job.op is Op.GRAD_W else job.left.shape[1],
            outer=reply.shape[-1],
            probes=PROBES,
            miss=STATED_MISS,
        )
        #: ||D|| of each row (T,) from which on misses are promised to be rare.
        norms, rows = sizes(job)
        self.promised_T = torch.minimum(stated.of_norms * norms, stated.of_row * rows)
        self.threshold = float((self.promised_T / self.target.tolerance_T).amin())

    def try_all(self, lie: Callable[[], Tensor]) -> Verdict:
        """As many wrong replies as there are proofs: the true one, and what `lie` adds to it."""
        detected, largest, relative, expected, above = 0, [], [], 0.0, True
        for proof in self._proofs:
            forged = (self.target.y + lie()).to(self.reply.dtype)
            found = judge(proof, forged.reshape(self.reply.shape))
            within_TB = found.within.view(found.small.numel(), self._trials, PROBES).all(2)
            passed = (within_TB & found.small.unsqueeze(1)).all(0)
            detected += self._trials - int(passed.sum())
            moved_T = torch.linalg.vector_norm(forged.double() - self.exact, dim=1)
            size_T = (moved_T / self.target.tolerance_T).nan_to_num(0.0)
            worst = int(size_T.argmax())
            largest.append(float(size_T[worst]))
            relative.append(float(moved_T[worst] / torch.linalg.vector_norm(self.exact[worst])))
            expected += 1 - missed(largest[-1], PROBES)
            above &= bool((moved_T >= self.promised_T).any())
        count = len(self._proofs)
        fixed = self.job.arithmetic is Arithmetic.FP32 and self.reply.dtype != torch.bfloat16
        return Verdict(
            trials=self._trials * count,
            detected=detected,
            tolerances=sum(largest) / count,
            relative=sum(relative) / count,
            expected=expected / count if fixed else None,
            above=above,
        )


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """above: every one of the replies had a row beyond the promised threshold."""

    trials: int
    detected: int
    tolerances: float
    relative: float
    expected: float | None
    above: bool


def run(settings: Settings, result: Result, budget: Budget, say: Say) -> None:
    g = torch.Generator().manual_seed(1)
    promise = Promise()
    for shape in settings.shapes:
        for form in FORMS:
            for op in Op:
                what = f"tampering with {op.value} in {form.name}, {shape.text}"
                if not budget.fits(what, 1.0):
                    continue
                say(f"integrity: {what}")
                job = job_of(op, *pair_of(op, shape, normal, g), shape.rows, form)
                court = Court(job, answer(job, form.rounds), settings)
                for tamper in TAMPERS:
                    for size in settings.sizes if tamper.sized else (1.0,):
                        found = court.try_all(lambda t=tamper, s=size, c=court: t.lie(c.target, s, g))  # type: ignore[misc]
                        _add(result, op, form.name, tamper.name, court, found, shape.text)
                        promise.take(tamper.name, found)
    promise.conclude(result)


def reduced(settings: Settings, result: Result, budget: Budget, say: Say) -> None:
    """Workers that compute in less than they were asked for: what they save, they save at every row."""
    g = torch.Generator().manual_seed(2)
    promise = Promise()
    for inner in settings.inner:
        for op in Op:
            what = f"less than was asked for, {op.value}, inner length {inner}"
            if not budget.fits(what, 0.05 * settings.draws):
                continue
            say(f"integrity: {what}")
            shape = {
                Op.PRODUCT: Shape("", (64,), inner, 64),
                Op.GRAD_X: Shape("", (64,), 64, inner),
                Op.GRAD_W: Shape("", (inner,), 64, 64),
            }[op]
            for name, rounds, asked in _LESS:
                form = Form("float32" if asked is Arithmetic.FP32 else "float32, tf32", torch.float32, asked)
                job = job_of(op, *pair_of(op, shape, normal, g), shape.rows, form)
                court = Court(job, answer(job, form.rounds), settings)
                forged = answer(job, rounds).reshape(court.target.y.shape).double()
                found = court.try_all(lambda f=forged, c=court: f - c.target.y)  # type: ignore[misc]
                _add(result, op, form.name, name, court, found, shape.text)
                promise.take(name, found)
    promise.conclude(result)


@final
class Promise:
    """Above the stated threshold at most t of the trials may be missed."""

    def __init__(self) -> None:
        self._trials: dict[str, int] = defaultdict(int)
        self._missed: dict[str, int] = defaultdict(int)

    def take(self, tamper: str, found: Verdict) -> None:
        if found.above:
            self._trials[tamper] += found.trials
            self._missed[tamper] += found.trials - found.detected

    def conclude(self, result: Result) -> None:
        rows = result.extra.setdefault("above_threshold", [])
        for tamper, trials in self._trials.items():
            wrong, allowed = self._missed[tamper], STATED_MISS * trials
            rows.append({"tamper": tamper, "trials": trials, "missed": wrong, "allowed": allowed})
            if wrong > allowed + 4 * sqrt(allowed) + 1:
                result.broken.append(f"{tamper}: {wrong} of {trials} missed above the stated threshold")


def _proof(job: Job, probes: int) -> Proof:
    return prove(Verifier(SessionKey(), probes), [job])[job]


def _add(result: Result, op: Op, dtype: str, tamper: str, court: Court, found: Verdict, shape: str) -> None:
    result.add(
        op=op.value,
        dtype=dtype,
        tamper=tamper,
        relative_size=found.relative,
        trials=found.trials,
        detected=found.detected,
        shape=shape,
        operands="normal",
        probes=PROBES,
        tolerances=found.tolerances,
        threshold=court.threshold,
        expected=found.expected,
    )
