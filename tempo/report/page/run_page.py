"""The page of a run: its sections in their order, and what was not verified."""

from __future__ import annotations

from tempo.report.page import figures as f
from tempo.report.page.run_events import accuracy, events
from tempo.report.page.run_secrecy import protected, saw
from tempo.report.page.run_time import cost, speed, time
from tempo.report.page.run_verdict import in_log, key_figures, summary, tone, worst_rows
from tempo.report.page.shared import origin
from tempo.report.page.text import Text, joined
from tempo.report.page.view import (
    Block,
    Cell,
    Code,
    Fold,
    Heading,
    Items,
    Missing,
    Page,
    Para,
    Section,
    Table,
)
from tempo.report.page.words import codes, common, gaps
from tempo.report.page.words import run as wr
from tempo.report.page.words import sections as w
from tempo.report.run import Run


def run_page(run: Run) -> Page:
    how = tone(run)
    title = Text.same(run.title) if run.title else common.REPORT
    return Page(
        kind_of=common.REPORT,
        title=title,
        tone=how,
        verdict=wr.TONES[how],
        summary=summary(run),
        figures=key_figures(run),
        made=common.MADE.of(at=run.made_at, version=run.tempo),
        sections=[
            protected(run),
            saw(run),
            events(run),
            accuracy(run),
            time(run),
            speed(run),
            cost(run),
            trust(run),
            unverified(run),
            origin(run.machine, run.commit, run.sources),
        ],
        onward="unverified",
    )


def trust(run: Run) -> Section:
    """Attestation and audit log."""
    blocks: list[Block] = [Heading(w.ATTESTATION)]
    for each in run.attestations:
        words = w.ATTESTED if each.accepted else w.REFUSED
        said = words.of(kind=each.kind, policy=each.policy)
        blocks.append(Para(said, "" if each.accepted else "warn"))
        if each.detail:
            blocks.append(Para(Text.same(each.detail), "note"))
        if each.simulated:
            blocks.append(Para(w.SIMULATED, "warn"))
    if not run.attestations:
        ask = [
            "tempo attest verify EVIDENCE --policy POLICY --signer KEY --nonce HEX --json > attestation.json",
            "tempo report RUN --attestation attestation.json",
        ]
        blocks.append(Missing(common.NOT_MEASURED, common.WOULD_MEASURE, ask))
    blocks.append(Heading(w.AUDIT))
    if (log := run.audit) is None:
        ask = ["tempo report RUN --log LOG --key KEY"]
        return Section("trust", w.TRUST, [*blocks, Missing(common.NOT_MEASURED, common.WOULD_MEASURE, ask)])
    lead = w.AUDIT_LEAD.of(
        entries=f"{log.entries:,}", origin=log.origin, first=log.first or "", last=log.last or ""
    )
    extends = w.AUDIT_ALONE
    if log.extends_entries is not None:
        extends = w.AUDIT_EXTENDS.of(n=f"{log.extends_entries:,}")
    kinds: list[list[Cell]] = [[Code(kind), f"{n:,}"] for kind, n in log.kinds.items()]
    root: list[list[Cell]] = [[w.AUDIT_ROOT, Code(log.root)]]
    blocks += [
        Para(lead),
        Para(extends),
        Para(w.AUDIT_TIED) if in_log(run) else Para(w.AUDIT_UNTIED, "warn"),
        *([Para(w.AUDIT_UNSIGNED.of(n=f.size(log.unsigned_bytes)), "warn")] if log.unsigned_bytes else []),
        Table(w.AUDIT, (w.KIND, w.ENTRIES), kinds, frozenset({1}), slim=True),
        Table(w.AUDIT_ROOT, (common.NAME, common.FIGURE), root, slim=True),
    ]
    return Section("trust", w.TRUST, blocks)


def unverified(run: Run) -> Section:
    """What is missing from this run, what the session itself says, and what no run can show."""
    s, said = run.session, []
    if run.training is None:
        said.append(gaps.ACCURACY)
    if not run.attestations:
        said.append(gaps.ATTESTATION)
    elif any(each.simulated for each in run.attestations):
        said.append(gaps.SIMULATED)
    if run.attestations:
        said.append(gaps.ATTESTATION_TIED)
    if run.audit is None:
        said.append(gaps.AUDIT)
    elif not in_log(run):
        said.append(gaps.AUDIT_TIED)
    if run.attacks is None:
        said.append(gaps.ATTACKS)
    elif all(row.shipped for row in run.attacks.rows):
        said.append(gaps.SHIPPED)
    elif any(row.shipped for row in run.attacks.rows):
        said.append(gaps.PARTLY)
    skipped = [row.attack for row in worst_rows(run) if row.verdict == "skipped"]
    undecided = [row.attack for row in worst_rows(run) if row.verdict == "undecided"]
    if undecided:
        said.append(gaps.UNDECIDED.of(names=joined([Text.same(name) for name in undecided])))
    if skipped:
        said.append(gaps.SKIPPED.of(names=joined([Text.same(name) for name in skipped])))
    if s.scheme == "mixing":
        said.append(gaps.HEURISTIC)
    if s.scheme == "shares":
        said.append(gaps.COLLUSION)
    if run.timeline is None:
        said.append(gaps.TIMELINE)
    if run.speed is None:
        said.append(gaps.SPEED)
    if run.cost is None or not run.cost.rows:
        said.append(gaps.COST)
    blocks: list[Block] = [Para(common.UNVERIFIED_LEAD), Items([*said, *common.STANDING])]
    if s.notes:
        notes = Items([codes.note(each) for each in s.notes])
        blocks.append(Fold(gaps.NOTES, common.ITEMS_SAYS.of(n=str(len(s.notes))), [notes]))
    return Section("unverified", common.UNVERIFIED, blocks)
