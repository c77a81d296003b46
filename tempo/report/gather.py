"""A run's file from what the verbs wrote: the session from `Report.save` or the demo, the rest from others.

tempo report FOLDER      demo.json or run.json, and beside it whatever NAMES says
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import msgspec

from tempo.errors import UsageError
from tempo.report import verdicts
from tempo.report.files import JsonFile
from tempo.report.run import VERSION, Run
from tempo.report.sections import (
    AttackRow,
    Attacks,
    Attestation,
    Audit,
    Cost,
    CostRow,
    Picture,
    Source,
    Speed,
    SpeedRow,
    Timeline,
)

#: Of the run itself in a folder, the first that is there.
RUNS: Final = ("run.json", "demo.json")
#: Of what may lie beside it, by option.
NAMES: Final = {
    "attack": "attack.json",
    "bench": "bench-layers.json",
    "plan": "plan.json",
    "trace": "timeline.json",
    "attestation": "attestation.json",
}
#: Subjects of `tempo attack` that are not the package's own: pictures of them show somebody's data.
_OWN: Final = frozenset({"script", "transcript"})
PICTURES: Final = "pictures.json"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Files by what they are; run: a file or a folder. audit: of a log that the caller verified, and its
    source. own_pictures: those that show inputs of one's own model too."""

    run: Path
    attack: Path | None = None
    bench: Path | None = None
    plan: Path | None = None
    trace: Path | None = None
    attestation: Path | None = None
    audit: tuple[Audit, Source] | None = None
    own_pictures: bool = False
    title: str = ""


def gather(inputs: Inputs) -> Run:
    """Raises OutsideError for a file that cannot be read, UsageError for one that is something else."""
    file = JsonFile(_run_of(inputs.run))
    run = from_demo(file) if file.verb == "demo" else _saved(file)
    changes: dict[str, Any] = {}
    sources = [*run.sources, file.source("run")]
    if (path := _beside(inputs, "attack")) is not None:
        changes["attacks"], more = _attacks(path, run.session.scheme, own_pictures=inputs.own_pictures)
        sources += more
    elif run.attacks is None:
        changes["attacks"] = shipped(run.session.scheme)
    if (path := _beside(inputs, "bench")) is not None:
        found = JsonFile(path)
        changes["speed"] = _speed(found)
        sources.append(found.source("bench"))
    if (path := _beside(inputs, "plan")) is not None:
        found = JsonFile(path).expect("plan")
        changes["cost"] = _cost(found)
        sources.append(found.source("plan"))
    if (path := _beside(inputs, "trace")) is not None:
        found = JsonFile(path)
        changes["timeline"] = timeline(found)
        sources.append(found.source("trace"))
    if (path := _beside(inputs, "attestation")) is not None:
        found = JsonFile(path).expect("attest verify")
        changes["attestations"] = [_attestation(found, row) for row in found.fields.get("rows", [])]
        sources.append(found.source("attestation"))
    if inputs.audit is not None:
        changes["audit"], source = inputs.audit
        sources.append(source)
    title = inputs.title or run.title
    return msgspec.structs.replace(run, **changes, sources=sources, title=title, made_at=now())


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _run_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in RUNS:
        if (path / name).is_file():
            return path / name
    raise UsageError(
        f"{path} holds no {' or '.join(RUNS)}: name a file that Report.save or tempo demo wrote, or run "
        "tempo demo"
    )


def _beside(inputs: Inputs, option: str) -> Path | None:
    """As named, or what lies in the run's folder."""
    given: Path | None = getattr(inputs, option)
    if given is not None:
        return given / NAMES[option] if given.is_dir() else given
    usual = inputs.run / NAMES[option]
    return usual if inputs.run.is_dir() and usual.is_file() else None


def _saved(file: JsonFile) -> Run:
    if "tempo_run" not in file.fields:
        raise UsageError(
            f"{file.path} is no run: expected a file that session.report().save(...) or tempo demo wrote"
        )
    return file.convert(file.fields, Run)


def from_demo(file: JsonFile) -> Run:
    """Of what `tempo demo` wrote."""
    f = file.fields
    rows = f.get("rows") or []

    def column(name: str) -> list[Any]:
        return [row.get(name) if isinstance(row, dict) else None for row in rows]

    training = {
        **f,
        "plain_losses": column("plain_loss"),
        "tempo_losses": column("tempo_loss"),
        "allowed_differences": column("allowed_difference"),
        "plain_seconds": f.get("plain_train_seconds"),
        "tempo_seconds": f.get("tempo_train_seconds"),
        "data": f.get("images"),
    }
    head: dict[str, Any] = {name: f[name] for name in ("tempo", "machine", "commit") if name in f}
    whole = {**head, "tempo_run": VERSION, "made_at": now(), "session": f.get("report"), "training": training}
    return file.convert({**whole, "title": "tempo demo"}, Run)


def shipped(scheme: str) -> Attacks | None:
    """What this release's own measurement says of a scheme; None where there is none."""
    data = verdicts.shipped()
    cells = data["schemes"].get(scheme)
    if cells is None:
        return None
    rows = [
        msgspec.convert(
            {**cell, "attack": name, "scheme": scheme, "note": cell.get("why", ""), "shipped": True},
            AttackRow,
        )
        for name, cell in cells.items()
    ]
    return Attacks(of="shipped", date=data["date"], command=data["command"], rows=rows)


def _attacks(path: Path, scheme: str, *, own_pictures: bool) -> tuple[Attacks, list[Source]]:
    """Rows of all schemes, so that the page can say how this one compares; pictures lie beside the file."""
    file = JsonFile(path).expect("attack")
    rows = file.convert(file.fields.get("rows", []), list[AttackRow])
    if not any(_of(row) == scheme for row in rows):
        there = ", ".join(dict.fromkeys(row.scheme for row in rows)) or "none"
        raise UsageError(f"{path} says nothing of scheme {scheme}, which this run used, but of {there}")
    sources = [file.source("attack")]
    pictures: list[Picture] = []
    beside = path.with_name(PICTURES)
    if beside.is_file():
        drawn = JsonFile(beside)
        pictures = drawn.convert(drawn.fields.get("pictures", []), list[Picture])
        sources.append(drawn.source("pictures"))
    shown = [each for each in pictures if own_pictures or each.reference not in _OWN]
    date = str(file.fields.get("date", ""))
    command = str(file.fields.get("command", ""))
    left = len(pictures) - len(shown)
    # What was not measured now is as the release found it: few attacks must not look like few findings.
    measured = {row.attack for row in rows if _of(row) == scheme and row.verdict != "skipped"}
    whole = shipped(scheme)
    rows = [row for row in rows if row.attack in measured or _of(row) != scheme]
    rows += [] if whole is None else [row for row in whole.rows if row.attack not in measured]
    return (
        Attacks(of="given", date=date, command=command, rows=rows, pictures=shown, pictures_left_out=left),
        sources,
    )


def _of(row: AttackRow) -> str:
    """Its scheme, without settings."""
    return row.scheme.partition(":")[0]


def _speed(file: JsonFile) -> Speed:
    if not file.verb.startswith("bench "):
        raise UsageError(f"{file.path} is no output of tempo bench --json")
    rows = [
        row for row in file.fields.get("rows", []) if isinstance(row, dict) and row.get("mode") == "tempo"
    ]
    if not rows:
        raise UsageError(f"{file.path} has no step under Tempo in it: tempo bench layers --out FOLDER")
    of_step = [row for row in rows if row.get("verify") is not False]
    return Speed(command=str(file.fields.get("command", "")), rows=file.convert(of_step, list[SpeedRow]))


def _cost(file: JsonFile) -> Cost:
    rows = file.convert(file.fields.get("money", []), list[CostRow])
    return Cost(model=str(file.fields.get("model", "")), rows=rows)


def _attestation(file: JsonFile, row: Any) -> Attestation:
    if not isinstance(row, dict):
        raise UsageError(f"{file.path}: a row is no object")
    kind = str(row.get("kind") or "")
    detail = ""
    if not row.get("admitted"):
        detail = f"{row.get('step')}: found {row.get('found')}, expected {row.get('expected')}"
    return Attestation(
        kind=kind,
        policy=str(file.fields.get("policy", "")),
        accepted=row.get("admitted") is True,
        simulated="simulated" in kind,
        detail=detail,
    )


def timeline(file: JsonFile) -> Timeline:
    """Of the Trace Event Format, as `Session.trace` and `tempo bench --trace` write it."""
    events: Sequence[Any] = file.fields.get("traceEvents", [])
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise UsageError(f"{file.path} is no timeline: expected what Session.trace(...) wrote, .json")
    names = {
        e.get("tid"): str(e["args"].get("name"))
        for e in events
        if e.get("ph") == "M" and isinstance(e.get("args"), dict)
    }
    bars = [
        {
            "part": e.get("name"),
            "lane": names.get(e.get("tid"), str(e.get("tid"))),
            "start": 1e-6 * e["ts"],
            "seconds": 1e-6 * e["dur"],
        }
        for e in events
        if e.get("ph") == "X" and all(isinstance(e.get(key), int | float) for key in ("ts", "dur"))
    ]
    other = file.fields.get("otherData")
    title = other.get("title", "") if isinstance(other, dict) else ""
    return file.convert({"bars": bars, "title": title}, Timeline)
