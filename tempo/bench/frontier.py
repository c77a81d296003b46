"""Suite `frontier`: what each setting of `mixing` leaves to attacks, and what it costs the master.

    leakage      of an attack on real operands, 0 to 1:
                 (score - chance) / (undefended score - chance), of the operand that gives most away, where
                 the interval of the score lies above chance; 0 where not, or nothing is to be attacked
    cpu_ratio    processor seconds of the master in one layer, forward and backward / those of a copy of its
                 operands (tempo/bench/knobs.py)

A setting is on the line (`pareto`) where no other one costs less and leaks less on the mean of the attacks.
Attacks are those that some knob answers, each on one reference run (tempo/attacks/reference); what no knob
changes is in `tempo attack`. Leakage is noisy: intervals stand in the rows. A mean counts attacks and does
not weigh them, so read the rows of what matters to you.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final, final

from tempo.attacks.reference import REFERENCES
from tempo.attacks.reference.subject import Subject
from tempo.attacks.registry import ATTACKS, Entry
from tempo.attacks.suite.clock import Clock
from tempo.attacks.suite.rows import Picture
from tempo.attacks.suite.rows import Row as Found
from tempo.attacks.suite.run import Plan, Watcher
from tempo.attacks.suite.run import run as attack
from tempo.attacks.suite.variant import Variant
from tempo.attacks.verdict import Verdict
from tempo.bench import knobs
from tempo.bench.crew import Crew
from tempo.bench.knobs import SETTINGS, Layer, Say, Setting
from tempo.bench.result import Result, Row
from tempo.bench.timing import Repeats
from tempo.errors import UsageError

FIELDS: Final = (
    *("setting", "options", "attack", "number", "reference", "operand", "score", "low", "high", "chance"),
    *("undefended", "leakage", "verdict", "note", "attack_seconds", "cpu_ratio", "memcpy_ratio"),
    *("master_seconds", "cpu_seconds", "memcpy_seconds"),
)
_COSTS: Final = ("cpu_ratio", "memcpy_ratio", "master_seconds", "cpu_seconds", "memcpy_seconds")

#: By reference: attacks that a knob answers, by name.
ANSWERED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "kinds": ("reuse", "adaptive-known", "learned-distinguishing"),
        "steps": ("similarity",),
        "mlp": ("blind-separation", "products"),
        "images": ("spatial",),
        "finetune": ("directions", "moments", "row-blocks", "exact-constraints"),
    }
)
#: Where time is short: those that told settings apart.
_ANSWERED_FAST: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"kinds": ("reuse", "adaptive-known"), "steps": ("similarity",)}
)
_FAST_NAMES: Final = (
    *("default", "rounds 1, row_rounds 1", "decoys 8", "key_shift False", "decoys 8, key_shift False"),
    *("weight_uses 8, unsafe_many_uses True", "weight_uses 256, unsafe_many_uses True"),
)


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """attacks: names by reference. batches: of each phase of a reference, at most. each_s: of one attack on
    one recording. budget_s: of all attacks."""

    settings: Sequence[Setting] = SETTINGS
    attacks: Mapping[str, Sequence[str]] = field(default_factory=lambda: ANSWERED)
    layer: Layer = field(default_factory=lambda: Layer(4096, 1024, 1024))
    crew: Crew = field(default_factory=lambda: Crew.parse("1"))
    repeats: Repeats = field(default_factory=lambda: Repeats(3, 7, 1.5))
    batches: int = 80
    each_s: float = 120.0
    budget_s: float = 7200.0


FAST: Final = Settings(
    settings=tuple(each for each in SETTINGS if each.name in _FAST_NAMES),
    attacks=_ANSWERED_FAST,
    layer=Layer(2048, 512, 512),
    repeats=Repeats(2, 5, 0.5),
    batches=12,
    each_s=20.0,
    budget_s=200.0,
)


def run(settings: Settings, say: Say = print) -> Result:
    """Raises UsageError for an attack or a reference that there is none of, and two settings of one name."""
    names = [each.name for each in settings.settings]
    if len(set(names)) != len(names):
        raise UsageError(f"settings need names of their own, not {', '.join(names)}")
    entries = {name: _entries(name, wanted) for name, wanted in settings.attacks.items()}
    cost = knobs.rows(settings.settings, settings.layer, settings.crew, settings.repeats, say)
    return joined(settings.settings, cost, leaks(settings, entries, say))


def leaks(settings: Settings, entries: Mapping[str, Sequence[Entry]], say: Say) -> list[Found]:
    """What attacks find under each setting, whose `scheme` names the setting."""
    makers = {name: partial(_short, name, settings.batches) for name in entries}
    plan = Plan(entries, makers, [_variant(each) for each in settings.settings])
    return attack(plan, Clock(settings.budget_s, settings.each_s), _Saying(say)).rows


def joined(settings: Sequence[Setting], cost: Sequence[Row], found: Sequence[Found]) -> Result:
    """cost: rows of bench knobs, one for each setting. found: of `leaks`."""
    result, costs = Result("frontier", FIELDS), {str(row["setting"]): row for row in cost}
    numbers = {entry.attack.name: entry.attack.number for entry in ATTACKS}
    for setting in settings:
        spent = {key: costs[setting.name][key] for key in _COSTS}
        of = {"setting": setting.name, "options": dict(setting.options)}
        for row in found:
            if row.scheme == str(_variant(setting)) and not row.missed:
                result.add(**of, number=numbers[row.attack], **_told(row), **spent)
    for row in found:
        if row.missed:
            result.skipped.append({"what": f"{row.attack} on {row.reference}, {row.scheme}", "why": row.why})
    _conclude(result, [each.name for each in settings], costs)
    return result


def leakage(row: Found) -> float:
    """Share of the way from chance to the undefended score, 0 to 1."""
    of = row.finding
    if of is None or of.verdict in (Verdict.HOLDS, Verdict.UNDECIDED):
        return 0.0
    # Where the undefended run was not told from chance either, all that is above chance counts.
    whole = of.undefended - of.chance if of.undefended > of.chance else 1.0 - of.chance
    if not math.isfinite(whole) or whole <= 0:
        return 1.0
    return min(1.0, max(0.0, (of.score - of.chance) / whole))


def on_the_line(points: Mapping[str, tuple[float, float]]) -> set[str]:
    """Names of points (cost, leakage) that no other one is better than in both."""
    return {
        name
        for name, (cost, leak) in points.items()
        if not any((c <= cost and k <= leak) and (c, k) != (cost, leak) for c, k in points.values())
    }


def _variant(setting: Setting) -> Variant:
    return Variant("mixing", tuple(setting.options.items()))


def _short(name: str, batches: int, say: Say) -> Subject:
    """A reference of which fewer batches are run."""
    subject = REFERENCES[name](say)
    phases = tuple(replace(each, batches=each.batches[:batches]) for each in subject.phases)
    public = replace(subject.public, decoys=subject.public.decoys[:batches])
    return replace(subject, phases=phases, public=public)


def _entries(reference: str, wanted: Sequence[str]) -> list[Entry]:
    known = {entry.attack.name: entry for entry in ATTACKS}
    if reference not in REFERENCES:
        raise UsageError(f"there is no reference {reference!r}; there are {', '.join(REFERENCES)}")
    for name in wanted:
        if name not in known:
            raise UsageError(f"there is no attack {name!r}; there are {', '.join(sorted(known))}")
    return [known[name] for name in wanted]


def _told(row: Found) -> Row:
    fields = row.to_dict()
    names = ("attack", "reference", "operand", "score", "low", "high", "chance", "undefended", "verdict")
    return {
        **{name: fields[name] for name in names},
        "note": fields["note"],
        "leakage": leakage(row),
        "attack_seconds": row.seconds,
    }


def _conclude(result: Result, names: Sequence[str], costs: Mapping[str, Row]) -> None:
    """One line for each setting, over the attacks that were run on every setting."""
    worst: dict[str, dict[str, float]] = {name: {} for name in names}
    for row in result.rows:
        of = worst[row["setting"]]
        key = f"{row['attack']} on {row['reference']}"
        of[key] = max(of.get(key, 0.0), row["leakage"])
    common = sorted(set.intersection(*(set(of) for of in worst.values()))) if worst else []
    if not common:
        result.note("no attack was run on every setting: give more time with --budget")
        return
    key = "memcpy_ratio" if any(costs[name]["cpu_ratio"] is None for name in names) else "cpu_ratio"
    points = {
        name: (float(costs[name][key]), sum(worst[name][each] for each in common) / len(common))
        for name in names
    }
    line = on_the_line(points)
    result.extra["settings"] = [
        _line(name, points[name], worst[name], common, name in line) for name in names
    ]
    result.note(f"mean leakage is over {', '.join(common)}; pareto: none is cheaper and leaks less")
    result.note(f"cost is {key}; where others use the machine, processor time is the steadier figure")


def _line(
    name: str, point: tuple[float, float], worst: Mapping[str, float], common: Sequence[str], best: bool
) -> dict[str, Any]:
    most = max(common, key=lambda each: worst[each])
    return {
        "setting": name,
        "cost_ratio": point[0],
        "mean_leakage": point[1],
        "worst_leakage": worst[most],
        "worst_attack": most if worst[most] > 0 else "",
        "pareto": best,
        **{f"leakage of {each}": worst[each] for each in common},
    }


@final
class _Saying(Watcher):
    def __init__(self, say: Say) -> None:
        self._say = say

    def say(self, text: str) -> None:
        self._say(text)

    def begin(self, runs: int) -> None:
        self._say(f"frontier: {runs} attacks on recordings")

    def running(self, what: str, limit_s: float = math.inf) -> None:
        self._say(f"frontier: {what}")

    def done(self, rows: Sequence[Found], pictures: Sequence[Picture] = ()) -> None:
        pass
