"""Sections of a run's page on time and money: parts, the timeline of a step, roofline and law, cost."""

from __future__ import annotations

from tempo.report.page import charts
from tempo.report.page import figures as f
from tempo.report.page.shared import folded
from tempo.report.page.text import NOTHING, Text, joined
from tempo.report.page.view import (
    BarTable,
    Block,
    Cell,
    Fold,
    Heading,
    LaneChart,
    Missing,
    Para,
    Section,
    Table,
)
from tempo.report.page.words import codes, common
from tempo.report.page.words import sections as w
from tempo.report.run import Run
from tempo.report.sections import CostRow


def time(run: Run) -> Section:
    parts = sorted(run.session.seconds.items(), key=lambda each: -each[1])
    total = sum(taken for _, taken in parts)
    blocks: list[Block] = []
    if total > 0:
        rows = [
            (codes.of(codes.PARTS, name), taken, f.seconds(taken), f.percent(taken / total, 0))
            for name, taken in parts
        ]
        blocks += [
            Para(w.TIME_LEAD.of(total=f.seconds(total))),
            BarTable(w.TIME, w.PART, common.SECONDS, charts.bars(rows), common.SHARE),
        ]
    else:
        blocks.append(Missing(common.NOT_MEASURED, common.WOULD_MEASURE, ["tempo demo"]))
    return Section("time", w.TIME, [*blocks, *_timeline(run)])


def _timeline(run: Run) -> list[Block]:
    found = None if run.timeline is None else charts.lanes(run.timeline.bars)
    if found is None:
        ask = ["tempo demo", 'session.trace("timeline.json")', "tempo report RUN --trace timeline.json"]
        return [Heading(w.STEP_TIMELINE), Missing(common.NOT_MEASURED, common.WOULD_MEASURE, ask)]
    lead = w.TIMELINE_LEAD.of(total=f.seconds(found.total_seconds))
    legend = [(kind, codes.of(codes.PARTS, part)) for part, kind in found.parts]
    inside: list[Block] = [
        Para(lead),
        LaneChart(
            w.STEP_TIMELINE,
            [(lane, _busy(lane)) for lane in found.lanes],
            f.seconds(found.total_seconds),
            legend,
            (w.LANE, w.BUSY),
        ),
    ]
    if found.left_out:
        inside.append(Para(w.LANES_LEFT.of(n=str(found.left_out)), "note"))
    says = w.TIMELINE_SAYS.of(n=str(len(found.lanes)), total=f.seconds(found.total_seconds))
    return [Fold(w.STEP_TIMELINE, says, inside)]


def _busy(lane: charts.Lane) -> Text:
    """Its parts, longest first; waiting last."""
    order = sorted(lane.stripes, key=lambda stripe: (stripe.part == "wait", -stripe.seconds))
    said = []
    for stripe in order:
        name, taken = codes.of(codes.PARTS, stripe.part), f.seconds(stripe.seconds)
        said.append(Text(f"{name.en} {taken.en}", f"{name.ja} {taken.ja}"))
    return joined(said)


def speed(run: Run) -> Section:
    if (found := run.speed) is None:
        ask = ["tempo bench layers --out results", "tempo report RUN --bench results"]
        return Section("speed", w.SPEED, [Missing(common.NOT_MEASURED, common.WOULD_MEASURE, ask)])
    rows: list[list[Cell]] = [
        [
            Text.same(row.op),
            _sizes(row.shape),
            row.scheme or "",
            f.seconds(row.seconds),
            f.times(row.speedup_over_tee_only),
            f.percent(row.roofline_share, 0),
            f.percent(row.law_share, 0),
        ]
        for row in found.rows
    ]
    heads = (*(common.OPERATION, common.SHAPE, w.SCHEME, w.STEP_SECONDS, w.SPEEDUP, w.ROOFLINE, w.LAW),)
    lead = Para(w.SPEED_LEAD.of(command=found.command or "tempo bench"))
    shares = [
        (Text.same(f"{row.op}, {row.scheme}"), row.law_share, f.percent(row.law_share, 0), NOTHING)
        for row in found.rows
        if row.law_share is not None
    ]
    table = Table(w.SPEED, heads, rows, frozenset({3, 4, 5, 6}))
    blocks: list[Block] = [lead]
    if not shares:
        blocks.append(folded(table))
    else:
        # Against the whole of the law, not against the longest bar.
        whole = [
            charts.Line(label, value, min(1.0, max(0.0, share)), note) for label, share, value, note in shares
        ]
        least, most = min(s for _, s, _, _ in shares), max(s for _, s, _, _ in shares)
        says = w.SPEED_SAYS.of(n=str(len(rows)), least=f.percent(least, 0), most=f.percent(most, 0))
        blocks += [BarTable(w.LAW, common.OPERATION, w.LAW, whole), Fold(w.SPEED_ROWS, says, [table])]
    return Section("speed", w.SPEED, blocks)


def _sizes(shape: str | list[int] | dict[str, int]) -> str:
    if isinstance(shape, str):
        return shape
    if isinstance(shape, list):
        return " x ".join(str(size) for size in shape)
    return ", ".join(f"{name} {size}" for name, size in shape.items())


def cost(run: Run) -> Section:
    ask = [
        "tempo plan MODEL --samples N --tee-per-hour PRICE --gpu-per-hour PRICE --json > plan.json",
        "tempo report RUN --plan plan.json",
    ]
    if run.cost is None:
        return Section("cost", w.COST, [Missing(common.NOT_MEASURED, common.WOULD_MEASURE, ask)])
    if not run.cost.rows:
        return Section("cost", w.COST, [Missing(w.COST_UNPRICED, common.WOULD_MEASURE, ask)])
    lead = Para(w.COST_LEAD.of(model=run.cost.model))
    return Section("cost", w.COST, [lead, *costs(run.cost.rows)])


def costs(rows: list[CostRow]) -> list[Block]:
    """The ways to run an epoch, as bars of money and as a table with what each assumes."""
    priced = [
        (
            codes.of(w.OPTIONS, row.option),
            row.cost,
            f.money(row.cost, row.currency),
            f.seconds(row.epoch_seconds),
        )
        for row in rows
        if row.cost is not None
    ]
    cells: list[list[Cell]] = [
        [
            codes.of(w.OPTIONS, row.option),
            f.seconds(row.epoch_seconds),
            w.NO_PRICE if row.cost is None else f.money(row.cost, row.currency),
            "; ".join(row.assumptions),
        ]
        for row in rows
    ]
    heads = (w.OPTION, common.SECONDS, w.PRICE, w.ASSUMING)
    table = Table(w.ASSUMING, heads, cells, frozenset({1, 2}))
    if not priced:
        return [table]
    chart = BarTable(w.COST, w.OPTION, w.PRICE, charts.bars(priced), common.SECONDS)
    return [chart, Fold(w.ASSUMING, w.ASSUMING_SAYS.of(n=str(len(cells))), [table])]
