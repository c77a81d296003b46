"""Sections of a plan's page: time, money, placement, what would be seen."""

from __future__ import annotations

from collections import Counter

from tempo.plan.command import measuring
from tempo.report.page import charts
from tempo.report.page import figures as f
from tempo.report.page.run_secrecy import named
from tempo.report.page.run_time import costs
from tempo.report.page.shared import visible_table
from tempo.report.page.text import NOTHING, Text
from tempo.report.page.view import (
    Badge,
    BarTable,
    Block,
    Cell,
    Fold,
    Heading,
    Missing,
    Para,
    Section,
    Table,
)
from tempo.report.page.words import codes, common
from tempo.report.page.words import plan as w
from tempo.report.page.words import sections as ws
from tempo.report.plan_file import EvenRow, PlanFile, PlanRow


def prediction(plan: PlanFile) -> Section:
    t = plan.totals
    each = w.REQUEST if plan.inference else w.STEP
    whole = [
        (w.TEE_ALONE, t.tee_seconds, f.seconds(t.tee_seconds), NOTHING),
        (w.TEE_FASTEST, t.tee_fastest_seconds, f.seconds(t.tee_fastest_seconds), NOTHING),
        (w.AS_PLANNED, t.tempo_seconds, f.seconds(t.tempo_seconds), NOTHING),
    ]
    parts = [
        *((codes.of(codes.PARTS, name), taken) for name, taken in t.master_seconds.items()),
        (w.KEPT, t.kept_seconds),
        (w.NOT_LINEAR, t.other_seconds),
    ]
    rows = [(name, taken, f.seconds(taken), NOTHING) for name, taken in sorted(parts, key=lambda p: -p[1])]
    blocks: list[Block] = [
        Para(w.TIME_LEAD.of(unit=each)),
        BarTable(w.TIME, common.NAME, common.SECONDS, charts.bars(whole)),
        Heading(w.MASTER),
        BarTable(w.MASTER, ws.PART, common.SECONDS, charts.bars(rows)),
        Heading(w.COMPARED),
    ]
    if plan.measured:
        compared: list[list[Cell]] = [
            [
                codes.of(codes.PARTS, m.part),
                f.seconds(m.predicted_seconds),
                f.seconds(m.measured_seconds),
                f.fixed(m.ratio, 2),
            ]
            for m in plan.measured
        ]
        heads = (ws.PART, w.PREDICTION, w.MEASUREMENT, w.RATIO)
        blocks.append(Table(w.COMPARED, heads, compared, frozenset({1, 2, 3})))
    else:
        ask = [
            measuring(
                plan.model,
                batch=plan.batch,
                scheme=plan.scheme,
                inference=plan.inference,
                wire=plan.wire,
                arithmetic=plan.arithmetic,
            )
        ]
        blocks.append(Missing(w.NOT_YET, common.WOULD_MEASURE, ask))
    return Section("time", w.TIME, blocks)


def cost(plan: PlanFile) -> Section:
    if not plan.money:
        ask = [
            f"tempo plan {plan.model} --samples N --tee-per-hour PRICE --gpu-per-hour PRICE --page plan.html"
        ]
        return Section("cost", w.COST, [Missing(w.NO_MONEY, common.WOULD_MEASURE, ask)])
    blocks: list[Block] = [Para(w.COST_LEAD), *costs(plan.money)]
    if plan.break_even:
        heads = (w.PRICE_POINT, w.BREAK_EVEN_PRICE, w.YOURS)
        rows: list[list[Cell]] = [_even(each) for each in plan.break_even]
        blocks += [
            Heading(w.BREAK_EVEN),
            Para(w.BREAK_EVEN_LEAD),
            Table(w.BREAK_EVEN, heads, rows, frozenset({1, 2})),
        ]
    return Section("cost", w.COST, blocks)


def _even(each: EvenRow) -> list[Cell]:
    per = {"hour": w.PER_HOUR, "GB": w.PER_GB}.get(each.unit, w.PER_EPOCH)
    price = w.NEVER if each.price is None else per.of(price=f.money(each.price, each.currency))
    yours: Cell = ""
    if each.yours is not None:
        shown = f.money(each.yours, each.currency)
        tone = {True: "good", False: "bad", None: "plain"}[each.favours_tempo]
        yours = Badge(shown, tone)
    return [codes.of(w.EVEN, each.name), price, yours]


def placement(plan: PlanFile) -> Section:
    total = sum(row.all_flops for row in plan.rows) or 1
    alike: dict[tuple[str, str, str, str], list[PlanRow]] = {}
    for row in plan.rows:
        alike.setdefault((row.operation, _shape(row), row.decision, row.reason), []).append(row)
    rows: list[list[Cell]] = []
    for (operation, shape, _, reason), several in alike.items():
        first = several[0]
        count = sum(row.count for row in several)
        rows.append(
            [
                named([module for row in several for module in row.modules]),
                operation,
                shape,
                str(count),
                f.percent(sum(row.all_flops for row in several) / total),
                f.seconds(first.tee_seconds),
                "" if first.tempo_seconds is None else f.seconds(first.tempo_seconds),
                "" if first.law_share is None else f.percent(first.law_share, 0),
                Badge(w.OFFLOAD, "care") if first.sent else Badge(w.STAY, "good"),
                codes.short_reason(reason),
            ]
        )
    heads = (
        *(common.LAYER, common.OPERATION, common.SHAPE, w.COUNT, common.FLOPS_SHARE, w.TEE_TIME),
        *(w.TEMPO_TIME, w.LAW, w.DECISION, common.REASON),
    )
    says = common.PLACED_SAYS.of(
        n=str(len(rows)),
        sent=str(sum(several[0].sent for several in alike.values())),
        share=f.percent(plan.sent_share),
    )
    table = Table(w.PLACEMENT, heads, rows, frozenset({3, 4, 5, 6, 7}))
    return Section("placement", w.PLACEMENT, [Fold(w.PLACEMENT, says, [table])])


def _shape(row: PlanRow) -> str:
    if isinstance(row.shape, str):
        return row.shape
    s = row.shape
    sizes = f"{s.get('rows')} x {s.get('in_features')} to {s.get('out_features')}"
    groups = s.get("groups", 1)
    return sizes if groups == 1 else f"{groups} x ({sizes})"


def leakage(plan: PlanFile) -> Section:
    counted: Counter[str] = Counter()
    for row in plan.rows:
        for code in row.visible:
            counted[code] += row.count
    if not counted:
        return Section("leak", w.LEAK, [Para(w.LEAKAGE_NONE)])
    scheme = Text.same(plan.scheme)
    return Section(
        "leak",
        w.LEAK,
        [
            Para(w.LEAK_LEAD),
            visible_table(counted),
            Missing(
                w.NOT_YET,
                common.WOULD_MEASURE,
                [f"tempo attack --script train.py:subject --scheme {scheme.en}"],
            ),
        ],
    )
