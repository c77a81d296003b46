"""`tempo report`: one page that says what a run did, what the provider saw, and what was not verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tempo.cli.guide import say_next
from tempo.cli.options import Json
from tempo.cli.output import document, print_json
from tempo.cli.pages import Language, ready_for_pages, write_page
from tempo.errors import UsageError

_PAGE: Final = Path("report.html")

if TYPE_CHECKING:
    from tempo.report.run import Run
    from tempo.report.sections import Audit, Source


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="File of a run or a plan, or the demo's folder.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = _PAGE,
    attack: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of tempo attack --out, or its folder.")
    ] = None,
    bench: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of tempo bench layers --out, or its folder.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="Of tempo plan --json: cost.")] = None,
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="Of session.trace(...), .json.")] = None,
    attestation: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of tempo attest verify --json.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="An audit log, which is verified now.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The log's public key, or a file that holds it.")
    ] = None,
    since: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A checkpoint of the log, to be extended.")
    ] = None,
    own_pictures: Annotated[
        bool, typer.Option("--own-pictures", help="Show pictures of inputs of your own model too.")
    ] = False,
    title: Annotated[str, typer.Option(help="What the run was.")] = "",
    language: Annotated[Language, typer.Option("--lang", help="That the page opens in.")] = Language.en,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all that the page shows as one JSON file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make one HTML page of a run, in English and Japanese, for people who decide.

    RUN is a file that session.report().save(...), tempo demo or tempo plan --json wrote, or the folder of
    tempo demo. What lies beside it in the folder (attack.json, bench-layers.json, plan.json, timeline.json,
    attestation.json) is read too.
    """
    ready_for_pages(out)
    from tempo.report.files import JsonFile
    from tempo.report.gather import Inputs, gather
    from tempo.report.page import plan_page, run_page
    from tempo.report.plan_file import PlanFile

    if run.is_file() and (file := JsonFile(run)).verb == "plan":
        others = (attack, bench, plan, trace, attestation, log, key, since, save)
        if any(each is not None for each in others) or own_pictures or title:
            raise UsageError(f"{run} is a plan: its page is made of it alone, with --out and --lang")
        made = file.convert({**file.fields, "sources": [file.source("plan")]}, PlanFile)
        write_page(plan_page(made), out, language)
        if as_json:
            print_json(document("report", [], out=str(out), page="plan"))
        else:
            say_next("tempo", "doctor")
        return
    whole = gather(
        Inputs(
            run=run,
            attack=attack,
            bench=bench,
            plan=plan,
            trace=trace,
            attestation=attestation,
            audit=_audit(log, key, since),
            own_pictures=own_pictures,
            title=title,
        )
    )
    if save is not None:
        whole.save(save)
    page = run_page(whole)
    write_page(page, out, language)
    if as_json:
        rows = [{"section": name, "present": there} for name, there in _present(whole)]
        verdict = {"tone": page.tone, "words": page.verdict.en}
        print_json(document("report", rows, out=str(out), page="run", verdict=verdict))
    else:
        again: dict[str, object] = {
            **{"--attack": attack, "--bench": bench, "--plan": plan, "--trace": trace},
            **{"--attestation": attestation, "--title": title, "--save": save},
            "--out": out if out != _PAGE else None,
            "--lang": language.value if language is not Language.en else None,
        }
        given = [word for name, value in again.items() if value for word in (name, value)]
        _next(whole, [run, *given, *(["--own-pictures"] if own_pictures else [])])


def _next(whole: Run, given: list[object]) -> None:
    """What the page still lacks, the weightiest first. given: the file of the run and the options, without
    which the page would lose what it has."""
    if whole.attacks is None or whole.attacks.of != "given":
        own = ("--script", "train.py:subject", "--scheme", whole.session.scheme, "--fast", "--out", "found")
        return say_next("tempo", "attack", *own)
    if whole.cost is None or not whole.cost.rows:
        return say_next("tempo", "plan", "train.py:build", "--samples", "60000", "--page", "plan.html")
    if whole.audit is None:
        return say_next("tempo", "report", *given, "--log", "log", "--key", "log.pub")
    say_next("tempo", "doctor")


def _present(run: Run) -> list[tuple[str, bool]]:
    """What the run had of what a report can show."""
    return [
        ("session", True),
        ("training", run.training is not None),
        ("timeline", run.timeline is not None),
        ("attacks", run.attacks is not None and run.attacks.of == "given"),
        ("speed", run.speed is not None),
        ("cost", run.cost is not None and bool(run.cost.rows)),
        ("attestation", bool(run.attestations)),
        ("audit", run.audit is not None),
    ]


def _audit(log: Path | None, key: str | None, since: Path | None) -> tuple[Audit, Source] | None:
    """The log, verified. Raises UsageError, TamperedError."""
    if log is None:
        if key is not None or since is not None:
            raise UsageError("--key and --since are of an audit log: name it with --log")
        return None
    if key is None:
        raise UsageError("--log needs --key: without the public key nothing of it can be verified")
    from tempo.cli.log import earlier_checkpoint, verifier_key
    from tempo.report.audit import audit_of

    public = verifier_key(key)
    earlier = None if since is None else earlier_checkpoint(since, public)[1]
    return audit_of(log, public, earlier)
