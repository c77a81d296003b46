"""A step under Tempo, and the master's own part of it.

The master's part is the wall time of a step less the time in which it only waits, with local workers held
still meanwhile (tempo/bench/quiet.py). Replies are computed and checked. Verification is never off: figures
without it have its measured seconds taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, final

from tempo.bench.baselines import Step, measure_step
from tempo.bench.counted import Counted
from tempo.bench.crew import Crew
from tempo.bench.quiet import WAIT, quiet, waited
from tempo.bench.timing import Repeats, Spread, timed
from tempo.bench.trace import Tracer
from tempo.facade import Session


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
        self._counted = [Counted(worker) for worker in workers]
        try:
            self.session = Session(list(self._counted), **options)
        except BaseException:
            for worker in workers:
                worker.close()
            raise
        # The one place outside the session that watches it.
        self._stats, self._fleet = self.session._stats, self.session._fleet

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
            whole = measure_step(step.run, step.prepare, repeats, warm=False)
            middle, flops = self.session.report(), self._flops() - flops
            own: list[float] = []
            with quiet(self._stats, self._pids) as hush:
                for _ in range(max(repeats.least, min(whole.count, repeats.most))):
                    step.prepare()
                    idle = waited(self._stats.seconds) + hush.seconds
                    took = timed(step.run)
                    own.append(took - (waited(self._stats.seconds) + hush.seconds - idle))
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
        return sum(worker.flops for worker in self._counted)

    def _trace(self, step: Step, title: str) -> None:
        tracer = self._tracer
        if tracer is None or tracer.done:
            return
        step.prepare()
        with tracer.step(title, self._stats, self._fleet):
            step.run()
