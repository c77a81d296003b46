"""Times workers and the links to them: real jobs, through the fleet and its protocol, each reply checked.

    seconds of a job = round trip + sent / up + received / down + flops / rate(op)

A worker that answers falsely is treated as in any run. One that is slow on purpose, or fast for now, can
only mislead the plan about itself: what may be sent at all never depends on figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Final, final

import msgspec
import torch
from torch import Tensor

from tempo.errors import IntegrityError, OutsideError
from tempo.fleet import Done, Fleet, Task
from tempo.integrity import Verifier
from tempo.integrity.exact import ExactVerifier
from tempo.ops import Job, Op, Operand, RingJob, RingOperand, Unverified
from tempo.ops.ring import MAX_HALVES
from tempo.plan.machine import RING, WorkerFigures, rate_name
from tempo.plan.passes import random_like
from tempo.plan.samples import Sample, figures_of
from tempo.secrecy.chinese import residues_of
from tempo.secrecy.form import FULL, Form, Precision
from tempo.secrecy.keys import SessionKey

#: Rows and columns of results that are to cost little to send.
_OUTER: Final = 512
#: Inner lengths tried, until computing takes longer than all else.
_INNER: Final = (1024, 4096, 16384)
_RING_INNER: Final = 1024
#: Of a product that is not timed.
_FIRST: Final = 64
#: Seconds an operand of the next inner length may take to send.
_PATIENCE_S: Final = 1.0
#: Tries until every worker answers for itself, and the pause between two.
_MEETINGS: Final = 20
_PAUSE_S: Final = 0.1


@final
class LinkTimer:
    """Jobs of one calibration. ids: names of operands, unique among all of the fleet's. precision: products
    are timed in the numbers that it sends, and in float32. residues: products of shares are timed too."""

    def __init__(
        self,
        fleet: Fleet,
        ids: Iterator[int],
        *,
        probes: int,
        precision: Precision = FULL,
        residues: bool = False,
    ) -> None:
        self._fleet = fleet
        best = (precision.best(torch.float32, delicate=delicate) for delicate in (False, True))
        self._forms = tuple(dict.fromkeys((Form(torch.float32), *best)))
        self._residues = residues
        self._exact = ExactVerifier(SessionKey())
        self._ids = ids
        self._verifier = Verifier(SessionKey(), probes)
        #: For each lane, a job whose operands its worker holds: to run at once on all.
        self._held: dict[int, tuple[Job, float]] = {}
        self._used: list[int] = []
        self._names: dict[int, str] = {}

    def measure(self) -> tuple[list[WorkerFigures], float, float]:
        """Figures of each worker; speed of all at once against each alone; overlap of master and workers.

        Raises OutsideError where no worker answers.
        """
        try:
            names = self._meet()
            workers = [self._worker(lane, name) for lane, name in enumerate(names)]
            return workers, *self._at_once()
        finally:
            self._fleet.release(self._used)

    # ---- one worker ---------------------------------------------------------------------------

    def _meet(self) -> list[str]:
        """Wait until every worker has answered once; the name of the one that each lane goes to."""
        for _ in range(_MEETINGS):
            tiny = self._job(Op.PRODUCT, 64, 64, 64)
            lanes = range(self._fleet.width)
            names = [done.worker for done in self._fleet_run(Task(tiny, lane) for lane in lanes)]
            # While one starts, another answers for it.
            if names and len(set(names)) == len(names) == self._fleet.width:
                return names
            time.sleep(_PAUSE_S)
        raise OutsideError("not every worker answered: calibrate when they are all there, or name fewer")

    def _worker(self, lane: int, name: str) -> WorkerFigures:
        self._names[lane] = name
        tiny = self._job(Op.PRODUCT, 64, 64, 64)
        samples = [Sample(None, tiny.left.nbytes + tiny.right.nbytes, 64 * 64 * 4, 0, self._best(lane, tiny))]
        trip = samples[0].seconds
        for rows, k, n in ((4096, 512, 64), (4096, 64, 512)):
            job = self._job(Op.PRODUCT, rows, k, n)
            sent, received = job.left.nbytes + job.right.nbytes, rows * n * 4
            samples.append(Sample(Op.PRODUCT.value, sent, received, job.flops, self._best(lane, job)))
        for form in self._forms:
            for op in Op:
                samples += self._compute(lane, op, form, trip)
        figures = figures_of(name, samples)
        if not self._residues:
            return figures
        rates = {**figures.flops_per_second, RING: self._ring(lane, figures)}
        return msgspec.structs.replace(figures, flops_per_second=rates)

    def _ring(self, lane: int, figures: WorkerFigures) -> float:
        """Flops per second on residues, of two shares that the worker holds already."""
        job = self._ring_job()
        away = figures.round_trip_seconds + job.result_nbytes / figures.down_bytes_per_second
        self._run_ring(lane, job)
        seconds = min(self._run_ring(lane, job) for _ in range(3))
        # What cannot be told from the link's part is bounded by all of it.
        return job.flops / max(seconds - away, seconds / 10)

    def _compute(self, lane: int, op: Op, form: Form, trip: float) -> list[Sample]:
        """Products of operands that the worker holds already."""
        samples: list[Sample] = []
        rate = rate_name(op.value, form)
        self._run(lane, self._long_job(op, _FIRST, form))  # what starts with the first product of a kind
        for inner in _INNER:
            job = self._long_job(op, inner, form)
            held, received = job.left.nbytes + job.right.nbytes, job.result_nbytes
            first = self._run(lane, job)
            samples.append(Sample(rate, held, received, job.flops, first))
            again = self._best(lane, job)
            samples.append(Sample(rate, 0, received, job.flops, again))
            if rate == Op.PRODUCT.value:
                self._held[lane] = (job, again)
            if (again > 4 * trip and again > 0.01) or 4 * first > _PATIENCE_S:
                break
        return samples

    def _best(self, lane: int, job: Job, repeats: int = 4) -> float:
        return min(self._run(lane, job) for _ in range(repeats))

    def _run(self, lane: int, job: Job) -> float:
        """Seconds until the reply was there; the check comes after. Raises OutsideError where the worker
        of this lane is so late, or so wrong, that others answer for it."""
        for _ in range(_MEETINGS):
            (done,) = self._fleet_run(iter([Task(job, lane)]))
            if done.worker == self._names[lane]:
                return done.value[1] - done.value[0]
        raise OutsideError(f"worker {self._names[lane]} gives no answers to measure: leave it out")

    def _run_ring(self, lane: int, job: RingJob) -> float:
        """Seconds of a job on shares, its reply checked afterwards."""
        started = time.perf_counter()

        def accept(sent: RingJob, reply: Unverified) -> float:
            arrived = time.perf_counter()
            if self._exact.liars([sent], [reply]):
                raise IntegrityError("a product of residues is wrong")
            return arrived - started

        (done,) = self._fleet.run(iter([Task(job, lane)]), accept)
        if not isinstance(done, Done) or done.worker != self._names[lane]:
            raise OutsideError(f"worker {self._names[lane]} gives no answers to measure: leave it out")
        return done.value

    def _fleet_run(self, tasks: Iterator[Task[Job]]) -> list[Done[tuple[float, float]]]:
        checks = self._verifier.begin()
        started = time.perf_counter()

        def accept(job: Job, reply: Unverified) -> tuple[float, float]:
            arrived = time.perf_counter()
            checks.accept(job, reply)
            return started, arrived

        found: list[Done[tuple[float, float]]] = []
        for outcome in self._fleet.run(tasks, accept):
            if not isinstance(outcome, Done):
                raise OutsideError(f"calibration could not be finished: {outcome.error}")
            found.append(outcome)
        return found

    # ---- all of them --------------------------------------------------------------------------

    def _at_once(self) -> tuple[float, float]:
        """(together, overlap). The master's side is a product of its own, on all its threads."""
        tasks = [Task(job, lane) for lane, (job, _) in self._held.items()]
        alone = max(seconds for _, seconds in self._held.values())
        all_of_them = min(_last(self._fleet_run(iter(tasks))) for _ in range(2))
        a = random_like(1024, 1024)

        def master() -> None:
            for _ in range(rounds):
                a.mul(0.5).add_(a)

        rounds = 8
        once = _seconds(master) / rounds
        rounds = max(1, round(all_of_them / once))
        own = min(_seconds(master) for _ in range(2))
        both = median(self._both(tasks, master) for _ in range(3))
        saved = (own + all_of_them - both) / min(own, all_of_them)
        return min(1.0, alone / all_of_them), min(1.0, max(0.0, saved))

    def _both(self, tasks: Sequence[Task[Job]], master: Callable[[], None]) -> float:
        """Seconds until replies and the master's own work are there, as `Engine` interleaves them."""
        started = time.perf_counter()

        def feed() -> Iterator[Task[Job]]:
            yield from tasks
            master()

        done = self._fleet_run(feed())
        return max(each.value[1] for each in done) - started

    # ---- jobs ---------------------------------------------------------------------------------

    def _job(self, op: Op, rows: int, k: int, n: int) -> Job:
        """A fresh X (rows, K) and W (N, K)."""
        return Job(op, self._operand(random_like(rows, k)), self._operand(random_like(1, n, k)), (rows,))

    def _long_job(self, op: Op, inner: int, form: Form) -> Job:
        """A small result of a long sum; operands are kept."""
        left = {Op.GRAD_W: (inner, _OUTER)}.get(op, (_OUTER, inner))
        right = {Op.PRODUCT: (1, _OUTER, inner), Op.GRAD_X: (1, inner, _OUTER), Op.GRAD_W: (inner, _OUTER)}[
            op
        ]
        rows = (left[0],)
        return Job(
            op,
            self._operand(random_like(*left).to(form.dtype), keep=True),
            self._operand(random_like(*right).to(form.dtype), keep=True),
            rows,
            form.arithmetic,
        )

    def _ring_job(self) -> RingJob:
        """Two shares of each operand, residues of their own: noise, as shares are."""
        left, right = (self._residual(shape) for shape in ((_OUTER, _RING_INNER), (1, _OUTER, _RING_INNER)))
        return RingJob(Op.PRODUCT, left, right, (_OUTER,))

    def _residual(self, shape: tuple[int, ...]) -> RingOperand:
        number = next(self._ids)
        self._used.append(number)
        halves = (residues_of(random_like(*shape).mul_(1000.0).round_()) for _ in range(MAX_HALVES))
        return RingOperand(number, shape, tuple(halves), keep=True)

    def _operand(self, tensor: Tensor, *, keep: bool = False) -> Operand:
        number = next(self._ids)
        self._used += [number] * keep
        return Operand(number, tuple(tensor.shape), tensor.dtype, tensor, keep)


def _last(done: Sequence[Done[tuple[float, float]]]) -> float:
    return max(each.value[1] - each.value[0] for each in done)


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
