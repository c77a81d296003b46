"""What must hold of a chaos run. Each finding has a figure and what it may be at most.

The bound of a step's seconds: a job waits for its worker until its deadline D at most, and a worker that
missed one is out of use until it is found again. So a step takes at most what one takes undisturbed, and D
for each fault that was in force during it or began shortly before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import Any, Final, final

from tempo.chaos.orders import End, Step
from tempo.chaos.run import Outcome
from tempo.chaos.schedule import Fault
from tempo.chaos.training import DTYPES, curve
from tempo.numerics import loss_tolerance

#: |difference| of losses in float64 (docs/numerics.md, section 4).
EXACT: Final = 1e-9
#: Medians of so many windows, after a first part in which caches fill.
_WINDOWS: Final = 8
_WARM: Final = 0.3
#: Growth over the whole run that noise accounts for.
THREADS: Final = 2.0
DESCRIPTORS: Final = 3.0
RESIDENT_MIB: Final = 16.0
#: A step that nothing is done to may take this long on a busy machine, at least.
_QUIET_S: Final = 1.0
_SETTLE_S: Final = 5.0
_ENDS_LIFE: Final = (Fault.KILL, Fault.RESTART, Fault.LIE)


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """It holds where measured <= allowed, or for `least` where measured >= allowed."""

    check: str
    measured: float
    allowed: float
    unit: str
    detail: str
    least: bool = False

    @property
    def passed(self) -> bool:
        return self.measured >= self.allowed if self.least else self.measured <= self.allowed


def judge(outcome: Outcome) -> Iterator[Finding]:
    steps, end = outcome.steps, outcome.end
    yield Finding("it came to its end", float(bool(outcome.failure)), 0.0, "failures", outcome.failure)
    failed = [each["failed"] for each in outcome.done if each["failed"]]
    yield Finding("every fault was done and undone", len(failed), 0.0, "faults", "; ".join(failed[:3]))
    yield Finding("no process is left", outcome.left, 0.0, "processes", "")
    if len(steps) < 2 * _WINDOWS:
        return
    numbers = [step.number for step in steps]
    lost = len(set(range(1, (end.steps if end else numbers[-1]) + 1)) ^ set(numbers))
    yield Finding("no step is lost", lost, 0.0, "steps", f"{len(steps)} steps, in order")
    yield from _curves(steps, outcome.settings.seed)
    yield _seconds(outcome)
    yield from growth(steps)
    if end is not None:
        yield from _exercised(outcome)


def _curves(steps: Sequence[Step], seed: int) -> Iterator[Finding]:
    plain = {name: curve(seed, dtype, len(steps)) for name, dtype in DTYPES.items()}
    allowed = {
        "float64": [EXACT] * len(steps),
        "float32": loss_tolerance(plain["float32"], plain["float64"]),
    }
    for name in DTYPES:
        losses = [step.losses[name] for step in steps]
        shares = [abs(a - b) / c for a, b, c in zip(losses, plain[name], allowed[name], strict=True)]
        worst = max(range(len(shares)), key=lambda i: shares[i] if shares[i] == shares[i] else float("inf"))
        far = abs(losses[worst] - plain[name][worst])
        detail = f"worst at step {worst + 1}: {far:.3g} of {allowed[name][worst]:.3g}; loss "
        detail += f"{plain[name][0]:.4g} to {plain[name][-1]:.4g}"
        yield Finding(f"{name} curve", shares[worst], 1.0, "share of its bound", detail)


def _seconds(outcome: Outcome) -> Finding:
    deadline, worst, allowed, number = outcome.settings.deadline_s, 0.0, 1.0, 0
    usual = median(step.seconds for step in outcome.steps)
    quiet = max(_QUIET_S, 10 * usual)
    for step in outcome.steps:
        begin, end = step.at - deadline, step.at + step.seconds
        force = sum(begin < _over(h) and h["done_at"] < end for h in outcome.done)
        limit = quiet + deadline * force
        if step.seconds / limit > worst / allowed:
            worst, allowed, number = step.seconds, limit, step.number
    longest = max(step.seconds for step in outcome.steps)
    detail = f"step {number}, next to its bound; longest {longest:.3g} s, median {usual:.3g} s"
    return Finding("nothing hangs past its deadline", worst, allowed, "seconds", detail)


def _over(done: dict[str, Any]) -> float:
    """When a fault was over; a process that was ended takes a while to be back."""
    undone = done["undone_at"]
    return inf if undone is None else undone + (_SETTLE_S if done["fault"] in _ENDS_LIFE else 1.0)


def growth(steps: Sequence[Step]) -> Iterator[Finding]:
    """By the slope of medians of windows."""
    for what, of, allowed, unit in (
        ("threads", lambda s: s.threads, THREADS, "threads"),
        ("descriptors", lambda s: s.descriptors, DESCRIPTORS, "descriptors"),
        ("memory", lambda s: s.rss / (1 << 20), RESIDENT_MIB, "MiB"),
    ):
        warm = steps[int(_WARM * len(steps)) :]
        middle = medians([of(s) for s in warm])
        detail = f"medians {middle[0]:.4g} to {middle[-1]:.4g} over {len(warm)} steps"
        yield Finding(f"{what} do not grow", slope(middle) * len(middle), allowed, unit, detail)


def medians(values: Sequence[float]) -> list[float]:
    """Of _WINDOWS windows of even length."""
    width = len(values) // _WINDOWS
    return [float(median(values[i * width : (i + 1) * width])) for i in range(_WINDOWS)]


def slope(values: Sequence[float]) -> float:
    """Of the least-squares line, per value."""
    n = len(values)
    centre, mean = (n - 1) / 2, sum(values) / n
    over = sum((i - centre) * (v - mean) for i, v in enumerate(values))
    return over / sum((i - centre) ** 2 for i in range(n))


def _exercised(outcome: Outcome) -> Iterator[Finding]:
    """A run in which nothing happened proves nothing."""
    assert outcome.end is not None, "asked only of a run that came to its end"
    figures, kinds = outcome.end.figures, outcome.end.events
    faults = Counter(str(each["fault"]) for each in outcome.done)
    words = ", ".join(f"{name} {count}" for name, count in sorted(faults.items()))
    yield Finding("faults were done", len(outcome.done), 1.0, "faults", words, least=True)
    words = ", ".join(f"{name} {count}" for name, count in sorted(kinds.items()))
    seen = sum(kinds.get(kind, 0) for kind in ("lost", "deadline"))
    yield Finding("workers were lost, and came back", seen, 1.0, "events", words, least=True)
    words = f"{figures['checks']} checks, {figures['retries']} retries, "
    words += f"{figures['local_fallbacks']} in the master, {outcome.end.replaced} connections replaced"
    yield Finding("workers computed", figures["bytes_received"], 1e6, "bytes", words, least=True)
    yield from _standstill(outcome.end)
    if faults[Fault.LIE]:
        caught = figures["checks_failed"]
        yield Finding("lies were caught", caught, 1.0, "replies", f"of {faults[Fault.LIE]} liars", least=True)


def _standstill(end: End) -> Iterator[Finding]:
    """Every integrity failure: model and log did not advance before the recovery."""
    of = f"of {end.failures} integrity failures"
    yield Finding("no model advanced on a failure", end.advanced, 0.0, "failures", of)
    yield Finding("the audit log is not ahead of a failure", end.ahead, 0.0, "failures", of)
    missing, entered = abs(end.failures - end.entered), f"{end.entered} entered, {of}"
    yield Finding("the audit log holds every failure", missing, 0.0, "failures", entered)
