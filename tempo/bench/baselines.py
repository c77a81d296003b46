"""One training or inference step, timed three ways: in the TEE alone, on workers in the clear, under Tempo.

tee-only      PyTorch on the master's cores, in float32 and in bfloat16 under autocast where the CPU has it.
              The faster of the two is what speed-ups are against.
unprotected   the same products on the same workers over the same connection, without key, encoding or check:
              a plain client of the wire. The operands of a convolution are lowered here, since workers know
              products alone; that time counts. Replies are received and not looked at.
tempo         a Session. master_seconds is what the master does itself: the wall time of a step less the time
              in which it only waits, with local workers held still meanwhile (tempo/bench/quiet.py). Its
              replies are computed and checked. Verification is never off: figures without it have its
              measured seconds taken off.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from tempo.bench.crew import Crew
from tempo.bench.quiet import WAIT, quiet, waited
from tempo.bench.timing import Repeats, Spread, Work, interleaved, measure, timed
from tempo.bench.trace import Tracer, Watched
from tempo.fleet import Worker
from tempo.lowering.base import Lowering
from tempo.ops import Job, Op, Operand
from tempo.secrecy.rows import apportion
from tempo.session import Session

_FAR_S = 3600.0


@final
@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """module on x; with dy also its backward pass, dx included if x requires it.

    loss: makes a scalar of the output instead of taking dy, for whole models. after: ends a training step,
    such as the optimizer's update.
    """

    module: nn.Module
    x: Tensor
    dy: Tensor | None = None
    loss: Callable[[Tensor], Tensor] | None = None
    after: Work | None = None

    def run(self) -> object:
        if self.dy is None and self.loss is None:
            with torch.no_grad():
                return self.module(self.x)
        y = self.module(self.x)
        if self.loss is not None:
            self.loss(y).backward()
        else:
            y.backward(None if self.dy is None else self.dy.to(y.dtype))
        if self.after is not None:
            self.after()
        return y

    @property
    def trains(self) -> bool:
        return self.dy is not None or self.loss is not None

    def prepare(self) -> None:
        """Between two steps: no gradients, and weights changed as an optimizer would, so that training
        encodes them anew. Inference keeps them."""
        self.x.grad = None
        for parameter in self.module.parameters():
            parameter.grad = None
            if self.trains:
                with torch.no_grad():
                    parameter.add_(0.0)


def tee_only(step: Step, arithmetic: str, repeats: Repeats) -> Spread:
    """Seconds of a step here. arithmetic: "fp32", or "bf16" under autocast."""
    context = torch.autocast("cpu", torch.bfloat16) if arithmetic == "bf16" else nullcontext()

    def run() -> None:
        with context:
            step.run()

    return _measure(run, step.prepare, repeats)


def whole_on_device(step: Step, device: str, arithmetic: str, repeats: Repeats) -> Spread:
    """Seconds of a step with module and data on that device throughout: what one would rent without Tempo."""
    module = copy.deepcopy(step.module).to(device)
    there = Step(module, step.x.to(device), loss=None if step.loss is None else _loss_on(step.loss))
    context = torch.autocast(torch.device(device).type, torch.bfloat16)

    def run() -> None:
        with context if arithmetic == "bf16" else nullcontext():
            there.run()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    return _measure(run, there.prepare, repeats)


def _loss_on(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The loss of an output that lives elsewhere: its labels are here. A few numbers cross."""
    return lambda y: loss(y.float().cpu())


def _measure(run: Work, prepare: Work, repeats: Repeats, *, warm: bool = True) -> Spread:
    return interleaved({"": run}, repeats, prepare={"": prepare}, warm=warm)[""]


@final
@dataclass(frozen=True, slots=True)
class Protected:
    """seconds: whole steps. master: the master's own part of a step. check, check_quiet: verification within
    either, the mean of a step. passes: all that the master does for products, within `master`; what remains
    is the rest of the model. sent, received: bytes of a step. flops: of the workers' products in a step."""

    seconds: Spread
    master: Spread
    check: float
    check_quiet: float
    passes: float
    flops: float
    sent: float
    received: float


@final
class Bench:
    """A session on a crew of its own, and what is measured on it."""

    def __init__(self, crew: Crew, *, tracer: Tracer | None = None, **options: Any) -> None:
        workers = crew.start()
        self._pids = crew.pids(workers)
        self._tracer = tracer
        self._watched = [Watched(worker, tracer) for worker in workers]
        try:
            self.session = Session(list(self._watched), **options)
        except BaseException:
            for worker in workers:
                worker.close()
            raise
        self._stats = self.session._stats  # the one place outside the session that watches it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.close()

    def measure(
        self, step: Step, repeats: Repeats, title: str = "", *, unsafe_offload: Sequence[str] = ()
    ) -> Protected:
        """The module is protected for the time being. Raises IntegrityError where a reply was false: nobody
        wants figures of that."""
        model = self.session.protect(step.module, unsafe_offload=unsafe_offload)
        try:
            step.prepare()
            step.run()
            self._trace(step, title)
            before, flops = self.session.report(), self._flops()
            whole = _measure(step.run, step.prepare, repeats, warm=False)
            middle, flops = self.session.report(), self._flops() - flops
            own: list[float] = []
            with quiet(self._stats, self._pids):
                for _ in range(max(repeats.least, min(whole.count, repeats.most))):
                    step.prepare()
                    idle = waited(self._stats.seconds)
                    took = timed(step.run)
                    own.append(took - (waited(self._stats.seconds) - idle))
            after = self.session.report()
        finally:
            self.session.unprotect(model)
        runs = whole.count

        def part(start: dict[str, float], end: dict[str, float], name: str) -> float:
            return end.get(name, 0.0) - start.get(name, 0.0)

        passes = sum(part(middle.seconds, after.seconds, name) for name in after.seconds if name != WAIT)

        return Protected(
            seconds=whole,
            master=Spread.of(own),
            check=part(before.seconds, middle.seconds, "check") / runs,
            check_quiet=part(middle.seconds, after.seconds, "check") / len(own),
            passes=passes / len(own),
            flops=flops / runs,
            sent=(middle.bytes_sent - before.bytes_sent) / runs,
            received=(middle.bytes_received - before.bytes_received) / runs,
        )

    def _flops(self) -> int:
        return sum(worker.flops for worker in self._watched)

    def _trace(self, step: Step, title: str) -> None:
        tracer = self._tracer
        if tracer is None or tracer.done:
            return
        step.prepare()
        self._stats.watch(tracer)
        tracer.on, tracer.title = True, title
        try:
            step.run()
        finally:
            tracer.on = False
            self._stats.watch(None)
        tracer.done = bool(tracer.spans)


@final
@dataclass(frozen=True, slots=True)
class Plain:
    """seconds of a step on workers in the clear, bytes to and from them."""

    seconds: Spread
    sent: float
    received: float


def unprotected(
    workers: Sequence[Worker], lowering: Lowering, x: Tensor, w: Tensor, dy: Tensor, repeats: Repeats
) -> Plain:
    """Forward and both gradients of one layer on workers in the clear, its rows divided evenly."""
    client = _Client(workers, lowering)
    client.step(x, w, dy)
    before = client.traffic()
    seconds = measure(lambda: client.step(x, w, dy), repeats, warm=False)
    after = client.traffic()
    sent, received = ((b - a) / seconds.count for a, b in zip(before, after, strict=True))
    return Plain(seconds, sent, received)


_ids = count(1 << 41)


@final
class _Client:
    """Each worker gets a share of the rows of every group, keeps X and W, and is told to drop them after."""

    def __init__(self, workers: Sequence[Worker], lowering: Lowering) -> None:
        self._workers = workers
        self._lowering = lowering
        sizes = apportion(lowering.shape.rows, [1.0] * len(workers), 1)
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self._parts = [(lo, lo + size) for lo, size in zip(starts, sizes, strict=True) if size]

    def traffic(self) -> tuple[int, int]:
        return sum(w.bytes_sent for w in self._workers), sum(w.bytes_received for w in self._workers)

    def step(self, x: Tensor, w: Tensor, dy: Tensor) -> None:
        lowering = self._lowering
        x_GRK, dy_GRN = lowering.lower_x(x), lowering.lower_dy(dy)
        weight = _operand(lowering.lower_w(w).contiguous())
        errors: list[BaseException] = []

        def share(worker: Worker, lo: int, hi: int) -> None:
            try:
                rows = (hi - lo,) * lowering.shape.groups
                rows_x = _operand(x_GRK[:, lo:hi].reshape(-1, lowering.shape.k))
                rows_dy = _operand(dy_GRN[:, lo:hi].reshape(-1, lowering.shape.n))
                until = time.monotonic() + _FAR_S
                worker.run(Job(Op.PRODUCT, rows_x, weight, rows), frozenset({rows_x.id, weight.id}), until)
                worker.run(Job(Op.GRAD_W, rows_dy, rows_x, rows), frozenset({rows_dy.id}), until)
                worker.run(Job(Op.GRAD_X, rows_dy, weight, rows), frozenset(), until)
                worker.release((rows_x.id, rows_dy.id, weight.id), until)
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=share, args=(worker, lo, hi))
            for worker, (lo, hi) in zip(self._workers, self._parts, strict=False)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]


def _operand(tensor: Tensor) -> Operand:
    return Operand(next(_ids), tuple(tensor.shape), tensor.dtype, tensor, keep=True)
