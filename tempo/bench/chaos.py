"""Suite `chaos`: training goes on, step for step, while its workers are killed, cut off and lie; and a
master that is interrupted or out of memory leaves nothing behind. A row is one thing that must hold."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from tempo.bench.result import CHAOS_FIELDS, Result
from tempo.chaos import ends, judge
from tempo.chaos import run as chaos

Say = Callable[[str], None]


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """minutes of training under chaos. seed: of the schedule. ends: masters that are interrupted, and as many
    that run out of memory."""

    minutes: float = 5.0
    seed: int = 1
    workers: int = 4
    ends: int = 5


FAST = Settings(minutes=0.6, ends=1)


def run(settings: Settings, say: Say = print) -> Result:
    """Logs of a run that failed stay, and the notes say where."""
    result = Result("chaos", CHAOS_FIELDS)
    folder = Path(tempfile.mkdtemp(prefix="tempo-chaos-"))
    asked = chaos.Settings(seed=settings.seed, workers=settings.workers, seconds=60 * settings.minutes)
    (folder / "run").mkdir()
    outcome = chaos.run(asked, folder / "run", say)
    _add(result, judge.judge(outcome))
    for how in ends.How:
        for number in range(settings.ends):
            say(f"chaos: {how.value}, {number + 1} of {settings.ends}")
            place = folder / f"{how.value}-{number}"
            place.mkdir()
            found = list(ends.judge(how, ends.end(how, place, settings.seed + number)))
            _add(result, found if not number else [each for each in found if not each.passed])
    result.extra = {
        "seed": settings.seed,
        "network": outcome.network,
        "deadline_seconds": asked.deadline_s,
        "steps": len(outcome.steps),
        "ends": settings.ends,
        "schedule": outcome.done,
        "session": _session(outcome),
    }
    result.note(f"workers run in {outcome.network}")
    result.note("a fault is replayed by --seed and the same --minutes; done_at says when each was done")
    if broken(result):
        result.note(f"something did not hold: logs of every process are in {folder}")
    else:
        shutil.rmtree(folder)
    return result


def broken(result: Result) -> bool:
    """A promise was not kept."""
    return not all(row["passed"] for row in result.rows)


def _session(outcome: chaos.Outcome) -> dict[str, int]:
    """Figures and events of the session, flat."""
    if outcome.end is None:
        return {}
    return {**outcome.end.figures, **outcome.end.events}


def _add(result: Result, findings: Iterable[judge.Finding]) -> None:
    for each in findings:
        fields = {name: value for name, value in asdict(each).items() if name != "least"}
        result.add(**fields, passed=each.passed)
