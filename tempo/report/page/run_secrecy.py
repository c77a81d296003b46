"""Sections of a run's page on secrecy: what was protected and how, what workers saw and could learn."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tempo.report.page import figures as f
from tempo.report.page.png import data_uri
from tempo.report.page.run_verdict import says_of_attacks, worst_rows
from tempo.report.page.shared import class_of, visible_table
from tempo.report.page.text import NOTHING, Text, joined
from tempo.report.page.view import (
    Badge,
    Block,
    Cell,
    Code,
    Commands,
    Fold,
    Gallery,
    Gauge,
    Heading,
    Pair,
    Para,
    Section,
    Table,
    Terms,
)
from tempo.report.page.words import attacks as wa
from tempo.report.page.words import codes, common
from tempo.report.page.words import run as wr
from tempo.report.page.words import sections as w
from tempo.report.run import Placed, Run
from tempo.report.sections import Picture
from tempo.report.verdicts import OWN

TONES: Final = {"broken": "bad", "leaks": "bad", "visible": "care", "undecided": "care", "holds": "good"}
_MOST_PICTURES: Final = 12


def protected(run: Run) -> Section:
    s = run.session
    blocks: list[Block] = [
        Heading(w.SCHEME),
        Terms([(Code(s.scheme), codes.of(wr.SCHEMES, s.scheme))]),
    ]
    if s.scheme in ("mixing", "monomial"):
        blocks.append(Para(wr.KEY_SHIFT_ON if s.key_shift else wr.KEY_SHIFT_OFF))
    changed = [(name, value) for name, value in s.settings.items() if name != "scheme"]
    if changed:
        rows: list[list[Cell]] = [[Code(name), str(value)] for name, value in changed]
        names = Text.same(", ".join(name for name, _ in changed))
        table = Table(wr.SETTINGS, (wr.SETTING, common.FIGURE), rows, slim=True)
        blocks.append(Fold(wr.SETTINGS, names, [table]))
    elif s.settings:
        blocks.append(Para(wr.SETTINGS_NONE))
    return Section("protected", w.PROTECTED, [*blocks, _placement(run)])


def _placement(run: Run) -> Block:
    """Layers that are alike in operation, shape, place, reason and what is seen of them are one row."""
    alike: dict[tuple[str, str, bool, str, tuple[str, ...]], list[Placed]] = {}
    for row in run.session.rows:
        key = (row.operation, row.shape, row.offloaded, row.reason, tuple(row.visible))
        alike.setdefault(key, []).append(row)
    total = run.session.flops or 1
    rows: list[list[Cell]] = []
    for (operation, shape, sent, reason, seen), several in alike.items():
        place = Badge(common.AT_WORKERS, "care") if sent else Badge(common.IN_TEE, "good")
        rows.append(
            [
                named([row.module for row in several]),
                operation,
                shape,
                place,
                codes.reason(reason) if reason else "",
                f.percent(sum(row.flops for row in several) / total),
                class_of(seen),
            ]
        )
    heads = (
        *(common.LAYER, common.OPERATION, common.SHAPE, common.WHERE, common.REASON, common.FLOPS_SHARE),
        common.SEEN,
    )
    says = common.PLACED_SAYS.of(
        n=str(len(rows)),
        sent=str(sum(sent for _, _, sent, _, _ in alike)),
        share=f.percent(run.session.offloaded_flops / total),
    )
    return Fold(w.PLACEMENT, says, [Table(w.PLACEMENT, heads, rows, frozenset({5}))])


def named(modules: list[str]) -> Text:
    first = Text.same(modules[0]) if modules and modules[0] else common.WHOLE_MODEL
    more = len(modules) - 1
    return common.AND_MORE.of(first=first, n=str(more)) if more > 0 else first


def saw(run: Run) -> Section:
    s = run.session
    blocks: list[Block] = []
    if s.offloaded_flops:
        counted = Counter(code for row in s.rows if row.offloaded for code in row.visible)
        blocks.append(Para(w.SAW_LEAD.of(sent=f.size(s.bytes_sent), received=f.size(s.bytes_received))))
        blocks.append(visible_table(counted))
    else:
        blocks.append(Para(w.SAW_NOTHING))
    if s.jobs:
        jobs: list[list[Cell]] = [[name, f"{n:,}"] for name, n in s.jobs.items()]
        says = w.JOBS_SAYS.of(jobs=f"{sum(s.jobs.values()):,}", workers=str(len(s.jobs)))
        table = Table(w.PER_WORKER, (w.WORKER, w.JOBS), jobs, frozenset({1}), slim=True)
        blocks.append(Fold(w.PER_WORKER, says, [table]))
    return Section("saw", w.SAW, [*blocks, *_attacks(run), *_pictures(run)])


def _attacks(run: Run) -> list[Block]:
    found = run.attacks
    blocks: list[Block] = [Heading(w.ATTACKS)]
    own = f"{OWN} {run.session.scheme}"
    if found is None:
        return [*blocks, Para(common.NOT_MEASURED, "missing"), Commands(common.WOULD_MEASURE, [own])]
    if found.of == "shipped":
        blocks.append(Para(w.ATTACKS_SHIPPED.of(date=found.date)))
    else:
        blocks.append(Para(w.ATTACKS_GIVEN.of(command=found.command or "tempo attack")))
        if any(row.shipped for row in worst_rows(run)):
            blocks.append(Para(w.ATTACKS_REST))
    rows: list[list[Cell]] = []
    for row in worst_rows(run):
        tries, needs = wa.ATTACKS.get(row.attack, (Text.same(row.operand), Text.same(row.side_knowledge)))
        rows.append(
            [
                Text.same(row.attack),
                tries,
                needs,
                Badge(codes.of(wa.VERDICTS, row.verdict), TONES.get(row.verdict, "plain")),
                Gauge(row.score, row.chance, row.undefended) if row.score is not None else "",
                f.fixed(row.score),
                f.fixed(row.chance),
                f.fixed(row.undefended),
                "" if row.verdict == "skipped" else w.BY_RELEASE if row.shipped else w.BY_REPORT,
            ]
        )
    heads = (
        *(
            w.ATTACK,
            common.MEANING,
            w.NEEDS,
            w.VERDICT,
            w.GAUGE,
            w.SCORE,
            w.CHANCE,
            w.UNDEFENDED,
            w.MEASURED_BY,
        ),
    )
    meant = [name for name in wa.MEANINGS if any(row.verdict == name for row in worst_rows(run))]
    inside: list[Block] = [
        Table(w.ATTACKS, heads, rows, frozenset({5, 6, 7})),
        Para(w.SCALE_NOTE, "note"),
        Terms([_meaning(name) for name in meant]),
    ]
    blocks.append(Fold(w.ATTACKS_EACH, says_of_attacks(run), inside))
    if found.of == "shipped":
        blocks.append(Commands(w.OWN_ATTACKS, [own]))
    return blocks


def _meaning(name: str) -> tuple[Cell, Text]:
    return Badge(wa.VERDICTS[name], TONES.get(name, "plain")), wa.MEANINGS[name]


def _pictures(run: Run) -> list[Block]:
    found = run.attacks
    if found is None or not (found.pictures or found.pictures_left_out):
        return []
    blocks: list[Block] = [Heading(w.PICTURES)]
    if any(each.reference in ("script", "transcript") for each in found.pictures):
        blocks.append(Para(w.PICTURES_OWN, "warn"))
    if found.pictures:
        # Of the run's own scheme first; then others, to compare with.
        order = sorted(found.pictures, key=lambda p: p.scheme.partition(":")[0] != run.session.scheme)
        by_scheme: dict[str, list[Picture]] = {}
        for each in order:
            by_scheme.setdefault(each.scheme, []).append(each)
        share = max(3, _MOST_PICTURES // max(1, len(by_scheme)))
        blocks.append(Para(w.PICTURES_LEAD))
        others: list[Pair] = []
        for scheme, several in by_scheme.items():
            pairs = [_pair(each) for each in several[:share]]
            if scheme.partition(":")[0] == run.session.scheme:
                blocks.append(Gallery(pairs, w.RECOVERED, w.TRUE))
            else:
                others += pairs
        if others:
            names = joined([Text.same(s) for s in by_scheme if s.partition(":")[0] != run.session.scheme])
            blocks.append(Fold(w.PICTURES_OTHER, names, [Gallery(others, w.RECOVERED, w.TRUE)]))
    if found.pictures_left_out:
        blocks.append(Para(w.PICTURES_LEFT.of(n=str(found.pictures_left_out)), "note"))
    return blocks


def _pair(p: Picture) -> Pair:
    def alt(what: Text) -> Text:
        return w.PICTURE_ALT.of(what=what, attack=p.attack, scheme=p.scheme, title=p.title)

    return Pair(
        Text.same(f"{p.scheme}: {p.attack}, {p.title}") if p.title else NOTHING,
        data_uri(p.width, p.height, p.recovered),
        data_uri(p.width, p.height, p.true),
        alt(w.RECOVERED),
        alt(w.TRUE),
    )
