"""The adoption path on a plan's page: three stages, their criteria in the user's own figures."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tempo.report.page import figures as f
from tempo.report.page.text import Text, fields_of, joined
from tempo.report.page.view import Badge, Block, Cell, Code, Fold, Heading, Para, Section, Table
from tempo.report.page.words import adoption as w
from tempo.report.page.words import codes
from tempo.report.plan_file import CriterionRow, PlanFile

_TONES: Final = {"met": "good", "not met": "bad", "open": "plain"}


def adoption(plan: PlanFile) -> Section:
    margin = next(
        (
            c.values["margin_share"]
            for stage in plan.adoption
            for c in stage.criteria
            if "margin_share" in c.values
        ),
        0.0,
    )
    blocks: list[Block] = [Para(w.LEAD.of(margin=f.percent(float(margin), 0)))]
    for number, stage in enumerate(plan.adoption, 1):
        name = codes.of(w.STAGES, stage.name)
        title = Text(f"{number}. {name.en}", f"{number}. {name.ja}")
        blocks += [Heading(title), Para(codes.of(w.PURPOSE, stage.name))]
        rows: list[list[Cell]] = [
            [
                criterion(each, plan.currency),
                Badge(codes.of(w.STATES, each.state), _TONES.get(each.state, "plain")),
                Code(each.command) if each.command else "",
            ]
            for each in stage.criteria
        ]
        counted = Counter(each.state for each in stage.criteria)
        says = joined(
            [w.OF_STATE.of(state=codes.of(w.STATES, name), n=str(n)) for name, n in counted.items()]
        )
        blocks.append(Fold(w.CRITERIA_OF, says, [Table(title, (w.CRITERION, w.STATE, w.COMMAND), rows)]))
    return Section("adoption", w.TITLE, blocks)


def criterion(of: CriterionRow, currency: str) -> Text:
    """In words, with its figures. A criterion of another version is shown as it is."""
    words = w.CRITERIA.get(of.name)
    shown = {name: _shown(name, value, currency) for name, value in of.values.items()}
    if words is None or not (fields_of(words.en) | fields_of(words.ja)) <= set(shown):
        return Text.same(of.name)
    return words.of(**shown)


def _shown(name: str, value: float | str, currency: str) -> Text:
    """By the unit in the name."""
    if isinstance(value, str):
        return codes.CLASSES.get(value, Text.same(value)) if name == "leakage_class" else Text.same(value)
    match name.rpartition("_")[2]:
        case "seconds":
            return f.seconds(value)
        case "bytes":
            return f.size(value)
        case "cost" | "price":
            return f.money(value, currency)
        case "share":
            return f.percent(value, 0)
        case "times":
            return f.times(value)
        case _:
            return f.count(value)
