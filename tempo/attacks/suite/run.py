"""Runs attacks over subjects and schemes: the undefended run first, since every score is judged against it.

    for each subject:  record in the clear, attack, score                   the undefended scores
                       for each scheme: record, attack, score, judge

Recordings hold secrets of the reference's model and are removed at once.
"""

from __future__ import annotations

import math
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from tempo.attacks.attack import NothingToAttack
from tempo.attacks.reference.subject import Subject
from tempo.attacks.registry import Entry
from tempo.attacks.suite.again import doubtful, settled
from tempo.attacks.suite.clock import Clock, OutOfTime, deadline
from tempo.attacks.suite.recording import Recording, architecture_of, record
from tempo.attacks.suite.rows import NOTHING, Picture, Result, Row
from tempo.attacks.suite.side import NEEDS, SideKnowledge
from tempo.attacks.suite.variant import UNDEFENDED, Variant
from tempo.attacks.verdict import Finding, Trials, finding
from tempo.errors import TempoError

#: Pictures that are kept of one attack on one recording.
_PICTURES: Final = 6
#: A second recording and an attack on it are given up after so many seconds more than the attack may take.
_RECORDING_S: Final = 120.0

#: Score of an attack on an operand in the clear.
Undefended = dict[tuple[str, str], float]


class Watcher(ABC):
    """Abstract: who is told how far the suite is."""

    @abstractmethod
    def say(self, text: str) -> None:
        """A notice."""

    @abstractmethod
    def begin(self, runs: int) -> None:
        """So many attacks on recordings are to come."""

    @abstractmethod
    def running(self, what: str, limit_s: float = math.inf) -> None:
        """What comes next, and in how many seconds it will be stopped."""

    @abstractmethod
    def done(self, rows: Sequence[Row], pictures: Sequence[Picture] = ()) -> None:
        """One attack on one recording, or one that was skipped."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """entries: attacks by the name of each subject. makers: how subjects are made, by name. variants: of all
    attacks; also: of those that name them."""

    entries: Mapping[str, Sequence[Entry]]
    makers: Mapping[str, Callable[[Callable[[str], None]], Subject]]
    variants: Sequence[Variant]
    also: Sequence[Variant] = ()

    @property
    def recorded(self) -> list[Variant]:
        """The undefended one first, wanted or not."""
        clear = Variant(UNDEFENDED)
        return list(dict.fromkeys([clear, *self.variants, *self.also]))

    @property
    def wanted(self) -> set[str]:
        return {str(variant) for variant in (*self.variants, *self.also)}

    def of(self, name: str, variant: Variant) -> list[Entry]:
        """Attacks of a subject under a variant."""
        extra = variant in self.also and variant not in self.variants
        return [e for e in self.entries[name] if not extra or str(variant) in e.also]

    @property
    def runs(self) -> int:
        return sum(len(self.of(name, variant)) for name in self.entries for variant in self.recorded)


def run(plan: Plan, clock: Clock, watcher: Watcher, before: Sequence[Row] = ()) -> Result:
    """before: rows that an earlier process had found of the same plan; the rest is run.

    Raises UsageError for settings that a scheme refuses; whatever else fails is a skipped row.
    """
    start = time.monotonic()
    result = Result()
    suite = _Suite(plan, clock, watcher, result, before)
    watcher.begin(plan.runs)
    for name in plan.entries:
        suite.attack_subject(name)
    result.rows = [row for row in result.rows if row.scheme in plan.wanted]
    result.seconds = time.monotonic() - start
    return result


@final
class _Suite:
    def __init__(
        self, plan: Plan, clock: Clock, watcher: Watcher, result: Result, before: Sequence[Row] = ()
    ) -> None:
        self._plan, self._clock, self._watcher, self._result = plan, clock, watcher, result
        self._before = before
        self._finished = {(row.reference, row.scheme, row.attack) for row in before}
        self._left = plan.runs - len(self._finished)

    def attack_subject(self, name: str) -> None:
        try:
            subject = self._plan.makers[name](self._watcher.say)
        except TempoError as error:
            for variant in self._plan.recorded:
                self._skip_all(self._rest(variant, name), variant, name, f"{name} could not be had: {error}")
            return
        self._result.subjects[name] = subject.title
        undefended = undefended_of(self._before, name)
        side: SideKnowledge | None = None
        for variant in self._plan.recorded:
            rest = self._rest(variant, name)
            if not rest:
                continue
            if self._clock.left_s <= 0:
                self._skip_all(rest, variant, name, "out of time: not begun")
                continue
            self._watcher.running(f"{name}, {variant}: recording")
            with tempfile.TemporaryDirectory(prefix="tempo-attack-") as folder:
                try:
                    recording = record(subject, variant, Path(folder))
                except NothingToAttack as error:
                    self._skip_all(rest, variant, name, f"{NOTHING}: {error}")
                    continue
                side = side or SideKnowledge(subject, architecture_of(recording, subject.model))
                for entry in rest:
                    self._attack(entry, name, recording, side, undefended, subject)

    def _rest(self, variant: Variant, name: str) -> list[Entry]:
        """Attacks under the variant that were not run before."""
        return [
            entry
            for entry in self._plan.of(name, variant)
            if (name, str(variant), entry.attack.name) not in self._finished
        ]

    def attack_recording(self, entries: Sequence[Entry], name: str, recording: Recording) -> None:
        """One that was made elsewhere: without side knowledge besides the architecture, and without an
        undefended score."""
        side = SideKnowledge(None, architecture_of(recording, None))
        for entry in entries:
            self._attack(entry, name, recording, side, {})

    def _attack(
        self,
        entry: Entry,
        name: str,
        recording: Recording,
        side: SideKnowledge,
        undefended: Undefended,
        subject: Subject | None = None,
    ) -> None:
        """subject: to be recorded again, where that can be."""
        attack, variant = entry.attack, recording.variant
        seconds = self._clock.share_s(self._left)
        self._watcher.running(f"{name}, {variant}: {attack.name}", seconds)
        self._left -= 1
        start = time.monotonic()
        shown: list[Picture] = []
        try:
            if seconds <= 0:
                raise OutOfTime
            # Made once for all attacks that take it, so that the first of them does not pay for it.
            knowledge = side.of(attack.knowledge, recording)
            if knowledge is None:
                raise NothingToAttack(f"{name} has no {NEEDS.get(attack.knowledge, 'such knowledge')}")
            with deadline(seconds):
                guess = attack.run(recording.transcript, knowledge)
                trials = entry.scorer.score(guess, recording.truth)
                pictures = entry.scorer.pictures(guess, recording.truth)[:_PICTURES]
        except NothingToAttack as error:
            rows = [skipped(entry, variant, name, f"{NOTHING}: {error}", start)]
        except OutOfTime:
            spent = f"after {time.monotonic() - start:.0f} s" if seconds > 0 else "not begun"
            rows = [skipped(entry, variant, name, f"out of time: {spent}", start)]
        except Exception as error:  # a fault of one attack must not hide what the others found
            rows = [skipped(entry, variant, name, f"failed: {type(error).__name__}: {error}", start)]
        else:
            rows = _judged(entry, variant, name, trials, undefended, start)
            if subject is not None and variant.scheme != UNDEFENDED and any(map(doubtful, rows)):
                self._watcher.running(f"{name}, {variant}: {attack.name}, again", seconds + _RECORDING_S)
                again = self._again(entry, subject, variant, side, seconds)
                rows = [settled(row, again) for row in rows]
            shown = [
                Picture(attack.name, str(variant), name, title, recovered.detach(), true.detach())
                for title, recovered, true in pictures
            ]
        self._result.pictures += shown
        self._result.rows += rows
        self._watcher.done(rows, shown)

    def _again(
        self, entry: Entry, subject: Subject, variant: Variant, side: SideKnowledge, seconds: float
    ) -> Mapping[str, Trials] | None:
        """Trials of one attack on a recording of its own. None where time does not allow it."""
        if self._clock.left_s < seconds:
            return None
        with tempfile.TemporaryDirectory(prefix="tempo-attack-") as folder:
            recording = record(subject, variant, Path(folder))
            knowledge = side.of(entry.attack.knowledge, recording)
            try:
                with deadline(seconds):
                    guess = entry.attack.run(recording.transcript, knowledge)
                    return entry.scorer.score(guess, recording.truth)
            except OutOfTime:
                return None
            except Exception:  # it found something the first time: that it fails now says nothing
                return {}

    def _skip_all(self, entries: Sequence[Entry], variant: Variant, name: str, why: str) -> None:
        for entry in entries:
            row = skipped(entry, variant, name, why, time.monotonic())
            self._left -= 1
            self._result.rows.append(row)
            self._watcher.done([row])


def run_on_recording(
    entries: Sequence[Entry], name: str, recording: Recording, clock: Clock, watcher: Watcher
) -> Result:
    """Attacks on a transcript that was recorded elsewhere, judged by the truth that was kept beside it."""
    start = time.monotonic()
    result = Result(subjects={name: "a recorded transcript"})
    watcher.begin(len(entries))
    plan = Plan({name: entries}, {}, [recording.variant])
    _Suite(plan, clock, watcher, result).attack_recording(entries, name, recording)
    result.seconds = time.monotonic() - start
    return result


def undefended_of(rows: Sequence[Row], name: str) -> Undefended:
    """Scores of a subject in the clear."""
    return {
        (row.attack, row.finding.operand): row.finding.score
        for row in rows
        if row.finding is not None and (row.reference, row.scheme) == (name, UNDEFENDED)
    }


def _judged(
    entry: Entry,
    variant: Variant,
    name: str,
    trials: Mapping[str, Trials],
    undefended: Undefended,
    start: float,
) -> list[Row]:
    """A row for each kind of operand. In the clear, the score is the undefended one."""
    attack = entry.attack
    seconds = time.monotonic() - start
    visible = {attack.name} if entry.visible.under(variant.scheme, key_shift=variant.key_shift) else set()
    rows = []
    for operand, each in trials.items():
        found = finding(attack.name, str(variant), operand, attack.side_knowledge, each, float("nan"))
        if variant.scheme == UNDEFENDED:
            undefended[attack.name, operand] = found.score
        clear = undefended.get((attack.name, operand), float("nan"))
        found = finding(attack.name, str(variant), operand, attack.side_knowledge, each, clear, visible)
        rows.append(_row(entry, variant, name, seconds, found, each.chance_from))
    return rows or [skipped(entry, variant, name, "failed: the judge returned no trials", start)]


def skipped(entry: Entry, variant: Variant, name: str, why: str, start: float) -> Row:
    """A row that says why there is no finding."""
    return _row(entry, variant, name, time.monotonic() - start, why=" ".join(why.split()))


def _row(
    entry: Entry,
    variant: Variant,
    name: str,
    seconds: float,
    found: Finding | None = None,
    chance_from: str = "",
    why: str = "",
) -> Row:
    of = entry.attack
    head = (of.name, str(variant), name, of.side_knowledge, of.metric)
    return Row(*head, seconds, found, chance_from, why)
