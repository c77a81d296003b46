"""The verdict of a run: one paragraph in plain words, a tone, and the key figures. No figure is made up: what
the run did not have is said to be missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from tempo.report.page import figures as f
from tempo.report.page.text import Text, joined, sentences
from tempo.report.page.view import KeyFigure
from tempo.report.page.words import run as w
from tempo.report.page.words.attacks import ATTACKS
from tempo.report.run import Run
from tempo.report.sections import AttackRow

#: From worst to best: of several operands of an attack the worst counts.
WORST: Final = ("broken", "leaks", "undecided", "visible", "holds", "skipped")
#: Of a session at its end, in its file and in the log.
COUNTS: Final = ("checks", "checks_failed", "bytes_sent", "bytes_received")
_COUNTED: Final = {
    "broken": w.N_BROKEN,
    "leaks": w.N_LEAKS,
    "visible": w.N_VISIBLE,
    "undecided": w.N_UNDECIDED,
    "holds": w.N_HOLDS,
}


def own_rows(run: Run) -> list[AttackRow]:
    """All rows under the run's own scheme."""
    rows = [] if run.attacks is None else run.attacks.rows
    return [row for row in rows if row.scheme.partition(":")[0] == run.session.scheme]


def in_log(run: Run) -> bool:
    """Whether a session closed in the audit log with this run's own counts: that ties the log to the run."""
    s = run.session
    counts = {name: getattr(s, name) for name in COUNTS}
    return run.audit is not None and any(
        {name: each.get(name) for name in COUNTS} == counts for each in run.audit.closed
    )


def worst_rows(run: Run) -> list[AttackRow]:
    """The worst row of each attack under the run's own scheme, worst verdicts first."""
    best: dict[str, AttackRow] = {}
    for row in own_rows(run):
        if row.attack not in best or _rank(row) < _rank(best[row.attack]):
            best[row.attack] = row
    return sorted(best.values(), key=_rank)


def _rank(row: AttackRow) -> tuple[int, float]:
    at = WORST.index(row.verdict) if row.verdict in WORST else len(WORST)
    return at, -((row.score or 0.0) - (row.chance or 0.0))


#: References of `tempo attack` that are the user's: a script, a recording.
_OWN: Final = ("script", "transcript")


def verdicts(run: Run) -> Mapping[str, int]:
    return Counter(row.verdict for row in worst_rows(run))


def tone(run: Run) -> str:
    """bad: nothing is protected, or a promise was broken. good: proven, checked, attested, logged."""
    s, training = run.session, run.training
    one_owner = bool(s.settings.get("unsafe_one_owner"))
    if s.scheme in ("unsafe_none", "monomial") and s.offloaded_flops:
        return "bad"
    if (training and training.broken_promises) or one_owner:
        return "bad"
    if any(not each.accepted for each in run.attestations):
        return "bad"
    # On reference runs some attacks break mixing, which is why it is never good; on one's own it is news.
    own = (row for row in own_rows(run) if row.reference in _OWN)
    if any(row.verdict == "broken" and not row.shipped for row in own):
        return "bad"
    attested = bool(run.attestations) and not any(a.simulated for a in run.attestations)
    trusted = attested and in_log(run)
    found = verdicts(run)
    clean = not (found.get("broken") or found.get("leaks") or s.checks_failed)
    return "good" if trusted and clean and s.scheme == "shares" else "care"


def summary(run: Run) -> Text:
    s = run.session
    said = [_sent(run)]
    if s.offloaded_flops:
        said.append(_checked(run))
    if s.local_fallbacks:
        said.append(w.FALLBACK.of(n=f"{s.local_fallbacks:,}"))
    if (training := run.training) is not None:
        words = w.OTHER_ACCURACY if training.broken_promises else w.SAME_ACCURACY
        said.append(
            words.of(tempo=f.percent(training.tempo_accuracy), plain=f.percent(training.plain_accuracy))
        )
    if s.offloaded_flops:
        said += _secrecy(run)
    missing = [
        words
        for words, absent in (
            (w.MISSING_ACCURACY, run.training is None),
            (w.MISSING_COST, run.cost is None),
            (w.MISSING_ATTESTATION, not run.attestations),
            (w.MISSING_AUDIT, run.audit is None),
        )
        if absent
    ]
    if missing:
        said.append(w.MISSING.of(what=joined(missing)))
    return sentences(said)


def key_figures(run: Run) -> list[KeyFigure]:
    """Four to six."""
    s, out = run.session, []
    share = s.offloaded_flops / s.flops if s.flops else 0.0
    out.append(KeyFigure(f.percent(share), w.KEY_OFFLOADED))
    failed = KeyFigure(
        f.count(s.checks_failed),
        w.KEY_CHECKS.of(checks=f.count(s.checks)),
        "care" if s.checks_failed else "good",
    )
    out.append(failed)
    if run.training is not None:
        t = run.training
        out.append(
            KeyFigure(f.percent(t.tempo_accuracy), w.KEY_ACCURACY.of(plain=f.percent(t.plain_accuracy)))
        )
        if t.plain_seconds > 0:
            out.append(KeyFigure(f.times(t.tempo_seconds / t.plain_seconds), w.KEY_SLOWER))
    elif s.encodings_without_key_shift:
        saved = 1 - s.encodings / s.encodings_without_key_shift
        out.append(KeyFigure(f.percent(saved, 0), w.KEY_ENCODINGS))
    found = verdicts(run)
    if measured := sum(found.values()) - found.get("skipped", 0):
        open_ = found.get("broken", 0) + found.get("leaks", 0)
        words = w.KEY_ATTACKS.of(n=str(measured))
        out.append(
            KeyFigure(f.count(open_), words, "bad" if found.get("broken") else "care" if open_ else "good")
        )
    if len(out) < 6:
        out.append(KeyFigure(f.size(s.bytes_sent + s.bytes_received), w.KEY_SENT))
    return out


def _sent(run: Run) -> Text:
    s = run.session
    if not s.offloaded_flops:
        return w.NOTHING_SENT
    words = w.SENT_PUBLIC if "known-weights" in s.codes else w.SENT
    if s.scheme == "unsafe_none":
        words = w.SENT_CLEAR
    workers = sum(answered > 0 for answered in s.jobs.values())
    return words.of(share=f.percent(s.offloaded_flops / s.flops), workers=str(workers) if workers else f.NONE)


def _checked(run: Run) -> Text:
    s, training = run.session, run.training
    if not s.checks_failed:
        return w.ALL_RIGHT.of(checks=f.count(s.checks))
    names = ", ".join(s.quarantined) or f.NONE
    said = w.SOME_WRONG.of(failed=f.count(s.checks_failed), checks=f.count(s.checks), names=names)
    if training is not None and training.lies_told:
        return sentences([said, w.ON_PURPOSE.of(told=str(training.lies_told))])
    return said


def _secrecy(run: Run) -> list[Text]:
    scheme, found = run.session.scheme, _found(run)
    if scheme == "mixing":
        return [w.HEURISTIC.of(found=found), *_breakers(run)]
    if scheme == "monomial":
        return [w.PAPERS_MASK.of(found=found)]
    if scheme == "shares":
        owner = bool(run.session.settings.get("unsafe_one_owner"))
        return [w.PROVEN, *([w.ONE_OWNER] if owner else [])]
    return []


def _breakers(run: Run) -> list[Text]:
    """Attacks that broke the scheme, with what each presumes: few enough to be named."""
    names = []
    for row in worst_rows(run):
        if row.verdict == "broken":
            needs = ATTACKS[row.attack][1] if row.attack in ATTACKS else Text.same(row.side_knowledge)
            names.append(w.BREAKER.of(attack=row.attack, needs=needs))
    return [w.BROKEN_BY.of(names=joined(names))] if names else []


def says_of_attacks(run: Run) -> Text:
    """How many came to which verdict, and the names of those that broke the scheme or found a leak."""
    found = verdicts(run)
    parts = [words.of(n=str(found[name])) for name, words in _COUNTED.items() if found.get(name)]
    if found.get("skipped"):
        parts.append(w.N_SKIPPED.of(n=str(found["skipped"])))
    named = [Text.same(row.attack) for row in worst_rows(run) if row.verdict in ("broken", "leaks")]
    if named:
        parts.append(w.FIRST_TO_READ.of(names=joined(named)))
    return joined(parts, Text("; ", "、"))


def _found(run: Run) -> Text:
    found = verdicts(run)
    measured = sum(found.values()) - found.get("skipped", 0)
    if run.attacks is None or not measured:
        return w.NO_ATTACKS
    parts = [words.of(n=str(found[name])) for name, words in _COUNTED.items() if found.get(name)]
    origins = {row.shipped for row in worst_rows(run) if row.verdict != "skipped"}
    where = w.WHERE_BOTH if len(origins) == 2 else w.WHERE_SHIPPED if True in origins else w.WHERE_GIVEN
    return w.OF_ATTACKS.of(n=str(measured), where=where, parts=joined(parts))
