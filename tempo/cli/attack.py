"""`tempo attack`: what the cloud could learn, measured on what a worker really received."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tempo.cli.guide import say_next
from tempo.cli.options import Json
from tempo.cli.output import document, print_json, result_folder, stderr, to_json, writing
from tempo.errors import UsageError

if TYPE_CHECKING:
    from tempo.attacks.registry import Entry
    from tempo.attacks.suite.clock import Clock
    from tempo.attacks.suite.rows import Result
    from tempo.attacks.suite.variant import Variant
    from tempo.cli.attack_view import Screen

#: Seconds of all attacks together with --fast, which leaves a minute of a quarter of an hour to the rest.
_FAST_S = 840.0
_FAST_EACH_S = 60.0
_EACH_S = 900.0
_NO_END_S = 1e9
#: References that are attacked at once: each takes a gigabyte or two of memory.
_JOBS = 2


def attack(
    suite: Annotated[
        list[str] | None, typer.Option(help="all, or an attack by name; repeated. [default: all]")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Of these, attacks whose name contains this text.")] = None,
    scheme: Annotated[
        list[str] | None,
        typer.Option(
            help="SCHEME or SCHEME:SETTING=VALUE,...; repeated. [default: unsafe_none and every scheme]"
        ),
    ] = None,
    reference: Annotated[
        list[str] | None, typer.Option(help="images, mlp, head, steps, kinds, finetune, text; repeated.")
    ] = None,
    script: Annotated[
        str | None,
        typer.Option(help="Your own model: script.py:function or module:function (docs/secrecy.md)."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of --script: training steps that are recorded.")] = 3,
    transcript: Annotated[
        Path | None, typer.Option(help="Folder with recordings of workers, instead of running anything.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Of --transcript, to judge by [default: its folder truth].")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="One reference for each attack, a quarter of an hour in all.")
    ] = False,
    budget: Annotated[
        float | None, typer.Option(min=1.0, help="Seconds; what does not fit is listed as skipped.")
    ] = None,
    require: Annotated[
        str | None,
        typer.Option(help="holds or visible: exit with 1 where a verdict is worse, or was not reached."),
    ] = None,
    fail_on: Annotated[
        str | None, typer.Option(help="Verdicts, separated by commas: exit with 1 where there is one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for JSON, tables and pictures.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what --out holds of a run that was cut short.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes, each with a reference of its own. [default: 2, or the cores]"),
    ] = None,
    as_json: Json = False,
    listed: Annotated[bool, typer.Option("--list", help="Name the attacks and end.")] = False,
) -> None:
    """Measure what the cloud could learn: attacks on what a worker really received."""
    for package in ("scipy", "sklearn", *(["matplotlib"] if out else [])):
        if find_spec(package) is None:
            raise UsageError(f"attacks need {package}: pip install 'tempo-confidential[attack]'")
    from tempo.attacks.suite.choose import chosen, forbidden, listing, of_references, schemes
    from tempo.attacks.suite.clock import Clock
    from tempo.attacks.suite.journal import Journal
    from tempo.attacks.suite.pool import run_on_references
    from tempo.cli.attack_view import Screen, show

    if listed:
        if as_json:
            print_json(document("attack", [{"attack": line.split()[1], "line": line} for line in listing()]))
            return
        for line in listing():
            typer.echo(line)
        return
    if sum(given is not None for given in (script, transcript)) + bool(reference) > 1:
        raise UsageError("--reference, --script and --transcript exclude one another")
    if truth is not None and transcript is None:
        raise UsageError("--truth belongs to --transcript")
    unwanted = forbidden(require, fail_on)
    entries = chosen(suite or ["all"], only)
    variants = schemes(scheme)
    if resume and out is None:
        raise UsageError("--resume goes on with what --out holds: name that folder")
    result_folder(out)
    seconds = budget or (_FAST_S if fast else _NO_END_S)
    clock = Clock(seconds, _FAST_EACH_S * max(1.0, seconds / _FAST_S) if fast else _EACH_S)
    with Screen(stderr()) as screen:
        if transcript is not None or script is not None:
            result = _of_ones_own(entries, variants, script, steps, transcript, truth, clock, screen)
        else:
            plan = of_references(reference, entries, variants, fast=fast, also=not scheme)
            most = jobs or min(_JOBS, len(os.sched_getaffinity(0)))
            with Journal(screen, out, resume=resume) as journal:
                result = journal.whole(run_on_references(plan, clock, journal, most, journal.rows))
    rows = [row.to_dict() for row in result.rows]
    command = shlex.join(["tempo", *sys.argv[1:]])
    fields = document("attack", rows, command=command, subjects=result.subjects, seconds=result.seconds)
    if out is not None:
        _write(out, fields, result)
    if as_json:
        print_json(fields)
    else:
        show(result)
    # Of the undefended run nothing is promised.
    names = [str(v) for v in variants if v.scheme != "unsafe_none"]
    broken = result.against(unwanted, names) if unwanted else []
    for each in broken:
        stderr().print(f"[red]Not kept:[/red] {each}", soft_wrap=True)
    if broken:
        raise typer.Exit(1)
    if out is not None and not as_json:
        say_next("tempo", "report", "run.json", "--attack", out)


def _of_ones_own(
    entries: Sequence[Entry],
    variants: Sequence[Variant],
    script: str | None,
    steps: int,
    transcript: Path | None,
    truth: Path | None,
    clock: Clock,
    screen: Screen,
) -> Result:
    from tempo.attacks.suite.choose import of_script, recording_in
    from tempo.attacks.suite.run import run, run_on_recording

    if transcript is None:
        return run(of_script(str(script), steps, entries, variants), clock, screen)
    if len(variants) != 1:
        raise UsageError("--transcript was recorded under one scheme: say which, with --scheme")
    recording = recording_in(transcript, truth, variants[0])
    return run_on_recording(entries, "transcript", recording, clock, screen)


def _write(out: Path, fields: dict[str, Any], result: Result) -> None:
    from tempo.attacks.suite.figures import draw
    from tempo.attacks.suite.pictures import pictures_json
    from tempo.attacks.suite.report import as_csv, markdown
    from tempo.attacks.suite.summary import summary

    with writing(out):
        pictures = draw(result, out)
        (out / "attack.json").write_text(to_json(fields) + "\n")
        (out / "verdicts.json").write_text(to_json(summary(fields, result)) + "\n")
        (out / "pictures.json").write_text(pictures_json(result) + "\n")
        (out / "attack.csv").write_text(as_csv(result))
        (out / "attack.md").write_text(markdown(fields, result, pictures))
    stderr().print(
        f"Written: {out}/attack.json, .csv, .md, verdicts.json, pictures.json and {len(pictures)} pictures",
        soft_wrap=True,
    )
