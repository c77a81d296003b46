"""The page of a plan: before money is spent."""

from __future__ import annotations

from typing import Any, Final

from tempo.report.page import figures as f
from tempo.report.page.plan_sections import cost, leakage, placement, prediction
from tempo.report.page.plan_stages import adoption
from tempo.report.page.shared import class_of, means_of, origin
from tempo.report.page.text import Text, sentences
from tempo.report.page.view import Items, KeyFigure, Page, Para, Section
from tempo.report.page.words import common
from tempo.report.page.words import plan as w
from tempo.report.plan_file import PlanFile

#: A gain below this is within what predictions are off by.
_GAIN: Final = 1.0


def plan_page(plan: PlanFile) -> Page:
    how = tone(plan)
    made = w.CALIBRATED.of(at=str(plan.calibration.get("measured_at", "")), version=plan.tempo)
    return Page(
        kind_of=common.PLAN,
        title=w.TITLE.of(model=plan.model),
        tone=how,
        verdict=w.TONES[how],
        summary=summary(plan),
        figures=key_figures(plan),
        made=made,
        sections=[
            prediction(plan),
            cost(plan),
            placement(plan),
            leakage(plan),
            adoption(plan),
            assumptions(),
            origin(_machine(plan), plan.commit, plan.sources, Para(made)),
        ],
        onward="assumptions",
    )


def unit(plan: PlanFile) -> Text:
    return w.REQUEST if plan.inference else w.STEP


def tone(plan: PlanFile) -> str:
    """good: faster than the TEE alone in any arithmetic, and no alternative is cheaper as far as prices are
    known. bad: not even faster."""
    t = plan.totals
    if not plan.sent_share or t.speedup_over_tee <= _GAIN:
        return "bad"
    tempo, others = (
        _cost_of(plan, "tempo"),
        [_cost_of(plan, name) for name in ("tee-only", "confidential-gpu")],
    )
    dearer = tempo is not None and any(other is not None and other < tempo for other in others)
    return "care" if dearer or t.tempo_seconds >= t.tee_fastest_seconds else "good"


def summary(plan: PlanFile) -> Text:
    t = plan.totals
    words = w.FASTER if plan.sent_share and t.speedup_over_tee > _GAIN else w.SLOWER
    said = [
        words.of(
            unit=unit(plan),
            tempo=f.seconds(t.tempo_seconds),
            tee=f.seconds(t.tee_seconds),
            times=f.times(t.speedup_over_tee),
            share=f.percent(plan.sent_share),
        )
    ]
    if t.tee_fastest_seconds <= t.tempo_seconds and t.tee_fastest_seconds < t.tee_seconds:
        said.append(w.FASTEST.of(fastest=f.seconds(t.tee_fastest_seconds)))
    tempo, tee = _cost_of(plan, "tempo"), _cost_of(plan, "tee-only")
    if tempo is not None and tee is not None:
        said.append(w.CHEAPER.of(tempo=f.money(tempo, plan.currency), tee=f.money(tee, plan.currency)))
        if (price := _cost_of(plan, "confidential-gpu")) is not None:
            said.append(w.CONFIDENTIAL.of(price=f.money(price, plan.currency)))
    else:
        said.append(w.NO_MONEY)
    if plan.sent_share:
        said.append(w.LEAKAGE.of(kind=means_of(plan.codes), scheme=plan.scheme))
    else:
        said.append(w.LEAKAGE_NONE)
    return sentences([*said, w.PREDICTED])


def key_figures(plan: PlanFile) -> list[KeyFigure]:
    t, each = plan.totals, unit(plan)
    gains = plan.sent_share and t.speedup_over_tee > _GAIN
    out = [
        KeyFigure(f.times(t.speedup_over_tee), w.KEY_SPEED, "good" if gains else "bad"),
        KeyFigure(f.seconds(t.tempo_seconds), w.KEY_STEP.of(unit=each)),
        KeyFigure(f.percent(plan.sent_share), w.KEY_SHARE),
        KeyFigure(class_of(plan.codes), w.KEY_CLASS),
    ]
    if (price := _cost_of(plan, "tempo")) is not None:
        out.append(KeyFigure(f.money(price, plan.currency), w.KEY_COST))
    if plan.sent_share:
        out.append(KeyFigure(f.size(t.bytes_up + t.bytes_down), w.KEY_BYTES.of(unit=each)))
    return out


def assumptions() -> Section:
    return Section("assumptions", w.ASSUMPTIONS, [Items([*w.ASSUMED, *common.STANDING])])


def _cost_of(plan: PlanFile, option: str) -> float | None:
    return next((row.cost for row in plan.money if row.option == option), None)


def _machine(plan: PlanFile) -> dict[str, Any]:
    """The one that was measured, which may be another than the one that planned."""
    tee = plan.calibration.get("tee")
    measured = {"cpu": tee.get("cpu")} if isinstance(tee, dict) else {}
    return {**plan.machine, **measured}
