"""What is run, from what a user asked for. Raises UsageError, with what there is to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tempo.attacks.record import truth_of
from tempo.attacks.reference import REFERENCES
from tempo.attacks.registry import ATTACKS, Entry
from tempo.attacks.suite.recording import Recording
from tempo.attacks.suite.rows import RANK
from tempo.attacks.suite.run import Plan
from tempo.attacks.suite.script import subject_of
from tempo.attacks.suite.variant import KNOWN, UNDEFENDED, Variant
from tempo.attacks.transcript import Transcript
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Verdict
from tempo.errors import UsageError

ALL: Final = "all"


def chosen(names: Sequence[str], only: str | None) -> list[Entry]:
    """Entries of the registry by name, or all of them; of these those whose name contains `only`."""
    known = {entry.attack.name for entry in ATTACKS}
    for name in names:
        if name != ALL and name not in known:
            raise UsageError(f"there is no attack {name!r}; there are {', '.join(sorted(known))}")
    found = [
        entry
        for entry in ATTACKS
        if (ALL in names or entry.attack.name in names) and (only or "") in entry.attack.name
    ]
    if not found:
        raise UsageError(f"no attack is named like {only!r}; there are {', '.join(sorted(known))}")
    return found


def listing() -> list[str]:
    """A line for each attack: number, name, title, references."""
    return [
        f"{e.attack.number:>2}  {e.attack.name:<24} {e.attack.title} ({', '.join(e.references)})"
        for e in ATTACKS
    ]


def schemes(names: Sequence[str] | None) -> list[Variant]:
    """Without a wish the undefended run and every scheme there is."""
    every = [UNDEFENDED, *(name for name in KNOWN if name != UNDEFENDED)]
    return list(dict.fromkeys(Variant.parse(name) for name in names or every))


def forbidden(require: str | None, fail_on: str | None) -> set[str]:
    """Verdicts that end in exit code 1."""
    known = [verdict.value for verdict in RANK]
    out: set[str] = set()
    if require is not None:
        if require not in known[: known.index(Verdict.VISIBLE) + 1]:
            raise UsageError(f"--require {require!r}: expected holds or visible")
        out |= set(known[known.index(require) + 1 :])
    for name in fail_on.split(",") if fail_on is not None else ():
        if name not in known:
            raise UsageError(f"--fail-on {name!r}: expected some of {', '.join(known)}, with commas")
        out.add(name)
    return out


def of_references(
    names: Sequence[str] | None,
    entries: Sequence[Entry],
    variants: Sequence[Variant],
    *,
    fast: bool,
    also: bool = False,
) -> Plan:
    """fast: each attack on the first of its references that was asked for, else on all of these. also: under
    the further settings that entries name, too."""
    for name in names or ():
        if name not in REFERENCES:
            raise UsageError(f"there is no reference {name!r}; there are {', '.join(REFERENCES)}")
    wanted = tuple(names or REFERENCES)
    of_each: dict[str, list[Entry]] = {}
    for entry in entries:
        fitting = [name for name in entry.references if name in wanted]
        for name in fitting[:1] if fast else fitting:
            of_each.setdefault(name, []).append(entry)
    if not of_each:
        raise UsageError(f"none of these attacks is run on {', '.join(wanted)}: see tempo attack --list")
    chosen = {name: of_each[name] for name in REFERENCES if name in of_each}
    further = [Variant.parse(text) for entry in entries for text in entry.also] if also else []
    return Plan(chosen, REFERENCES, variants, list(dict.fromkeys(further)))


def of_script(name: str, steps: int, entries: Sequence[Entry], variants: Sequence[Variant]) -> Plan:
    """Every attack is tried; those that need what the script does not tell are listed as skipped."""
    subject = subject_of(name, steps)
    return Plan({subject.name: entries}, {subject.name: lambda say: subject}, variants)


def recording_in(folder: Path, truth: Path | None, variant: Variant) -> Recording:
    """folder: a recording, or several in folders of their own (workers that collude).
    Raises DataError where nothing was recorded, or there is no truth to judge by."""
    parts = sorted(part for part in folder.glob("*") if part.is_dir() and part.name.startswith("worker"))
    transcript = Transcript.read(*(parts or [folder]))
    return Recording(variant, transcript, Truth(truth) if truth is not None else truth_of(folder))
