"""Sections of a run's page on what went wrong and what was kept: integrity, availability, accuracy."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tempo.report.page import charts
from tempo.report.page import figures as f
from tempo.report.page.text import Text, joined
from tempo.report.page.view import (
    Badge,
    Block,
    Cell,
    CurveChart,
    Fold,
    Heading,
    Items,
    Missing,
    Para,
    Section,
    Table,
)
from tempo.report.page.words import codes, common
from tempo.report.page.words import sections as w
from tempo.report.run import Run
from tempo.report.sections import Training

#: Events that are listed one by one.
_LISTED: Final = 60
_ALARMS: Final = frozenset({"check_failed", "protocol"})


def events(run: Run) -> Section:
    s = run.session
    rows: list[list[Cell]] = [
        [w.CHECKS, f.count(s.checks)],
        [w.FAILED, f.count(s.checks_failed)],
        [w.SET_ASIDE, ", ".join(s.quarantined) or common.NONE],
        [w.RETRIES, f.count(s.retries)],
        [w.FALLBACKS, f.count(s.local_fallbacks)],
    ]
    blocks: list[Block] = [Table(w.EVENTS, (common.NAME, common.FIGURE), rows, frozenset({1}), slim=True)]
    if (training := run.training) is not None and training.lies_told:
        told = w.TOLD_AND_CAUGHT.of(told=str(training.lies_told), caught=str(s.checks_failed))
        blocks.append(Para(told, "note"))
    if s.events:
        counted = [(codes.of(codes.EVENTS, k), n) for k, n in Counter(e.kind for e in s.events).most_common()]
        kinds: list[list[Cell]] = [[kind, f"{n:,}"] for kind, n in counted]
        by_kind = Table(w.EVENT, (w.WHAT_IT_IS, w.TIMES), kinds, frozenset({1}), slim=True)
        listed = s.events[:_LISTED]
        each: list[list[Cell]] = [
            [
                e.worker,
                Badge(codes.of(codes.EVENTS, e.kind), "bad" if e.kind in _ALARMS else "plain"),
                e.detail,
            ]
            for e in listed
        ]
        caption = w.LIST_OF_EVENTS.of(shown=str(len(listed)), n=f"{len(s.events):,}")
        says = joined([Text(f"{kind.en} ({n:,})", f"{kind.ja} {n:,} 件") for kind, n in counted])
        in_order = Table(caption, (w.WORKER, w.EVENT, w.DETAIL), each)
        blocks.append(Fold(caption, says, [by_kind, in_order]))
    else:
        blocks.append(Para(w.NO_EVENTS))
    return Section("events", w.EVENTS, [*blocks, *_promises(run)])


def _promises(run: Run) -> list[Block]:
    found = run.session.integrity
    if not found:
        return [Heading(w.PROMISES), Para(w.EXACT)] if run.session.scheme == "shares" else []
    rows: list[list[Cell]] = []
    for each in found:
        said = w.PROMISE.of(size=f.share(each.of_row), miss=f.share(each.miss, 1))
        rows.append([each.op, f"{each.dtype} ({each.arithmetic})", str(each.probes), said])
    heads = (common.OPERATION, w.ARITHMETIC, w.PROBES, w.PROMISES)
    says = w.PROMISES_SAYS.of(
        n=str(len(rows)),
        size=f.share(max(each.of_row for each in found)),
        miss=f.share(max(each.miss for each in found), 1),
    )
    return [Fold(w.PROMISES, says, [Table(w.PROMISES, heads, rows, frozenset({2}))])]


def accuracy(run: Run) -> Section:
    if (t := run.training) is None:
        why = Missing(common.NOT_MEASURED, common.WOULD_MEASURE, ["tempo demo"])
        return Section("accuracy", w.ACCURACY, [why])
    lead = w.ACCURACY_LEAD.of(
        parameters=f.count(t.parameters), data=t.data, steps=f"{t.steps:,}", batch=str(t.batch)
    )
    blocks: list[Block] = [Para(lead), _compared(t), Para(w.OWN_CORES, "note")]
    if t.broken_promises:
        blocks += [Heading(w.BROKEN), Items([Text.same(each) for each in t.broken_promises])]
    if charts_of := _curves(t):
        blocks.append(Fold(w.CURVES, w.CURVES_SAYS.of(steps=f"{t.steps:,}"), charts_of))
    return Section("accuracy", w.ACCURACY, blocks)


def _compared(t: Training) -> Table:
    def last(losses: list[float]) -> str:
        return f"{losses[-1]:.4f}" if losses else ""

    steps = max(1, t.steps)
    rows: list[list[Cell]] = [
        [w.ACCURACY_ROW, f.percent(t.plain_accuracy, 2), f.percent(t.tempo_accuracy, 2)],
        [w.LAST_LOSS, last(t.plain_losses), last(t.tempo_losses)],
        [w.STEP_SECONDS, f.seconds(t.plain_seconds / steps), f.seconds(t.tempo_seconds / steps)],
        [w.WORST, "", f.figure(t.worst_difference)],
        [w.ALLOWED, "", f.figure(max(t.allowed_differences, default=None))],
    ]
    return Table(w.ACCURACY, (common.NAME, w.PLAIN, w.TEMPO), rows, frozenset({1, 2}), slim=True)


def _curves(t: Training) -> list[Block]:
    marks = [("lie", step) for step in t.lie_steps] + (
        [("kill", t.kill_step)] if t.kill_step is not None else []
    )
    legend = [("lie", w.LIE_MARK)] * bool(t.lie_steps) + [("kill", w.KILL_MARK)] * (t.kill_step is not None)
    difference = [abs(a - b) for a, b in zip(t.plain_losses, t.tempo_losses, strict=False)]
    drawn = (
        (w.LOSS, charts.curves([("one", w.PLAIN, t.plain_losses), ("two", w.TEMPO, t.tempo_losses)], marks)),
        (
            w.DIFFERENCE,
            charts.log_curves(
                [("one", w.ALLOWED, t.allowed_differences), ("two", w.MEASURED, difference)], marks
            ),
        ),
    )
    return [
        CurveChart(caption, w.CURVE_ALT.of(what=caption, steps=str(made.steps)), w.STEP, made, legend)
        for caption, made in drawn
        if made is not None
    ]
