"""What happens to which worker and when. All of it follows from a seed, so that a failure can be replayed.

A fault begins `at` seconds after the first step and is undone `seconds` later. Faults of one worker do not
overlap; those of different workers do, so that at times nobody is left and the master computes alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, final

from tempo.errors import UsageError


class Fault(StrEnum):
    """What is done to a worker, or to the link in front of it."""

    KILL = "kill"  # SIGKILL; started again at the end
    STOP = "stop"  # SIGSTOP, then SIGCONT
    RESTART = "restart"  # SIGTERM, and started again at once
    CUT = "cut"  # every connection closed
    DROP = "drop"  # the link carries nothing, and nobody is told
    DELAY = "delay"  # each piece arrives `amount` seconds later
    THROTTLE = "throttle"  # `amount` bytes a second
    CORRUPT = "corrupt"  # one bit flipped in the next `amount` pieces that pass
    LIE = "lie"  # killed, and started as a worker that answers falsely; then killed and started honest


#: How often each is drawn. Starting a process costs seconds of a core: those faults are rarer.
_WEIGHTS: Final = {
    Fault.KILL: 2,
    Fault.STOP: 3,
    Fault.RESTART: 1,
    Fault.CUT: 3,
    Fault.DROP: 3,
    Fault.DELAY: 2,
    Fault.THROTTLE: 2,
    Fault.CORRUPT: 3,
    Fault.LIE: 2,
}
_SECONDS: Final = (0.5, 4.0)
#: Per fault: least and most of `amount`.
_AMOUNTS: Final = {Fault.DELAY: (0.01, 0.2), Fault.THROTTLE: (2e5, 4e6), Fault.CORRUPT: (1, 4)}
#: Lies that only a check finds, from an early job on. A worker that is caught is left alone for twice as
#: long each time, so one worker lies this often at most.
_LIES: Final = ("flip_entry", "scale", "swap", "stale", "nan", "zeros")
_MOST_LIES: Final = 6
#: A process that is killed or replaced has this long to load and to be found again.
_SETTLE: Final = 4.0


@final
@dataclass(frozen=True, slots=True)
class Happening:
    """amount: see `Fault`; 0 where there is none. lie: KIND:FIRST:COUNT, or empty."""

    at: float
    worker: int
    fault: Fault
    seconds: float
    amount: float = 0.0
    lie: str = ""

    def fields(self) -> dict[str, Any]:
        return asdict(self)


def draw(
    seed: int, workers: int, seconds: float, *, every: float = 1.5, faults: Sequence[Fault] = tuple(Fault)
) -> list[Happening]:
    """Happenings in the order in which they begin, over `seconds`, one each `every` seconds on average.
    Each of `faults` comes up once before chance alone decides. Raises UsageError where nothing can be drawn.
    """
    if workers < 1 or not (seconds > 0 and every > 0) or not faults:
        raise UsageError("a schedule has a worker, a fault, and seconds: more than 0 of each")
    rng = random.Random(seed)  # noqa: S311 (no secret: the seed is printed)
    first = list(faults)
    rng.shuffle(first)
    free, lies = [0.0] * workers, [0] * workers
    out: list[Happening] = []
    at = 0.0
    while (at := at + rng.uniform(0.2, 1.8) * every) < seconds:
        idle = [w for w in range(workers) if free[w] <= at]
        if not idle:
            continue
        worker = rng.choice(idle)
        able = [f for f in faults if f is not Fault.LIE or lies[worker] < _MOST_LIES]
        if not able:
            continue
        fault = first.pop() if first else rng.choices(able, [_WEIGHTS[f] for f in able])[0]
        out.append(_one(rng, at, worker, fault))
        lies[worker] += fault is Fault.LIE
        settle = _SETTLE if fault in (Fault.KILL, Fault.RESTART, Fault.LIE) else 0.5
        free[worker] = at + out[-1].seconds + settle
    return out


def _one(rng: random.Random, at: float, worker: int, fault: Fault) -> Happening:
    seconds = round(rng.uniform(*_SECONDS), 3)
    amount = round(rng.uniform(*_AMOUNTS[fault]), 3) if fault in _AMOUNTS else 0.0
    lie = ""
    if fault is Fault.LIE:
        lie = f"{rng.choice(_LIES)}:{rng.randrange(6)}:1000"
        seconds = round(seconds + _SETTLE, 3)  # it has to be found again before it can lie
    return Happening(round(at, 3), worker, fault, seconds, amount, lie)
