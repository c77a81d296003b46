"""`tempo run`: a user's own script, with the session that tempo.toml describes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tempo.cli.output import document, print_json, stderr

if TYPE_CHECKING:
    from tempo.run.run import Outcome

_NO_SESSION: Final = 2
_OUT: Final = 1
_ERR: Final = 2


def run(
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="It calls tempo.session().")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGS", help="Its own.")] = None,
    config: Annotated[Path, typer.Option(help="Workers, scheme, vault, prices, ...")] = Path("tempo.toml"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; the script's words go to standard error.")
    ] = False,
) -> None:
    """Run a script as `python SCRIPT ARGS` does, and report on standard error. Options come before SCRIPT.

    Exit: the script's own code; 2: it did not call tempo.session()."""
    from tempo.run.run import run as run_it

    with _aside() if as_json else nullcontext():
        outcome = run_it(config, script, arguments or ())
    code = outcome.ended.code
    if not outcome.reports and not code:
        code = _NO_SESSION
    if as_json:
        rows = [row for report in outcome.reports for row in report.to_dict()["rows"]]
        print_json(document("run", rows, **outcome.fields(), exit_code=code))
    _say(outcome, tables=not as_json)
    if code:
        raise typer.Exit(code)


@contextmanager
def _aside() -> Iterator[None]:
    """Inside, what this process and those that it starts print goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(_OUT)
    os.dup2(_ERR, _OUT)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, _OUT)
        os.close(kept)


def _say(outcome: Outcome, *, tables: bool) -> None:
    """The report, the script's own traceback, and last what must not be missed."""
    from tempo.report.alarm import alarm
    from tempo.run.script import INTERRUPTED, traceback_of

    console, ended = stderr(), outcome.ended
    sys.stdout.flush()
    for report in outcome.reports if tables else ():
        console.print(str(report), markup=False, soft_wrap=True, end="")
    if tables and outcome.cost is not None:
        console.print(_price(outcome), markup=False, soft_wrap=True)
    if ended.code == INTERRUPTED:
        console.print("Interrupted.", style="red")
    elif ended.error is not None:
        sys.stderr.write(traceback_of(ended.error))
    if ended.said:
        console.print(ended.said, markup=False, soft_wrap=True)
    if not outcome.reports and ended.error is None:
        console.print(
            f"{outcome.script} did not call tempo.session(), so this run knows of no protection: let it call "
            "tempo.session() and session.protect(model) (docs/run.md)",
            style="red",
            markup=False,
            soft_wrap=True,
        )
    for report in outcome.reports:
        if (words := alarm(report)) is not None:
            console.print(words, style="bold red", markup=False, soft_wrap=True)


def _price(outcome: Outcome) -> str:
    cost = outcome.cost
    assert cost is not None, "asked where there are prices"
    total = "not known" if cost.cost is None else f"{cost.cost:.2f} {outcome.currency}"
    return f"cost: {total} for {outcome.seconds:.1f} s ({'; '.join(cost.assumptions)})"
