"""The command line: `tempo VERB`, one verb per file.

Exit codes: 0 done; 1 a promise was not kept; 2 bad usage or settings; 3 the outside world (worker, file,
network); 130 interrupted. A fault of Tempo itself is 70.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape

from tempo.cli import attack, attest, bench, demo, doctor, log, plan, report, run_script, seal, vault, worker
from tempo.cli.output import stderr, tempo_version
from tempo.errors import TempoError

INTERRUPTED = 130
FAULT = 70

app = typer.Typer(
    name="tempo",
    help="Confidential deep learning on GPUs nobody has to trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tempo {tempo_version()}")
        raise typer.Exit


@app.callback()
def _tempo(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("attack")(attack.attack)
app.command("bench")(bench.bench)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("plan")(plan.plan)
app.command("report")(report.report)
app.command("run", context_settings={"allow_interspersed_args": False})(run_script.run)
app.command("seal")(seal.seal)
app.command("unseal")(seal.unseal)
app.add_typer(attest.app, name="attest")
app.add_typer(log.app, name="log")
app.add_typer(vault.app, name="vault")
app.add_typer(worker.app, name="worker")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit. Errors are one red line on standard error, without a traceback."""
    # Read when torch loads: threads that spin between products would take the cores of local workers.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """The exit code of `tempo ARGV`."""
    try:
        app(argv, prog_name="tempo")
    except SystemExit as done:  # usage errors end here too, already printed, with 2
        return done.code if isinstance(done.code, int) else 1
    except KeyboardInterrupt:
        _say("Interrupted.")
        return INTERRUPTED
    except TempoError as error:
        _say(f"Error: {error}")
        _trace_if_wanted()
        return error.exit_code
    except Exception as error:
        _say(f"Internal error: {type(error).__name__}: {error}")
        if not _trace_if_wanted():
            stderr().print(
                "This is a fault of Tempo. Run the command again with TEMPO_DEBUG=1 for the traceback and "
                "open an issue with it, the output of `tempo --version` and what you ran. If it looks like "
                "a weakness, follow SECURITY.md instead. The traceback may show data: read it first."
            )
        return FAULT
    return 0


def _say(text: str) -> None:
    one_line = " ".join(text.split())
    stderr().print(f"[red]{escape(one_line)}[/red]", soft_wrap=True)


def _trace_if_wanted() -> bool:
    wanted = os.environ.get("TEMPO_DEBUG", "") not in ("", "0")
    if wanted:
        traceback.print_exc(file=sys.stderr)
    return wanted
