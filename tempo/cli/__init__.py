"""The command line: `tempo VERB`, one verb per file.

Exit codes: 0 done; 1 a promise was not kept; 2 bad usage or settings; 3 the outside world (worker, file,
network); 130 interrupted; 141 whoever read the output went away. A fault of Tempo itself is 70.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from tempo.cli import (
    attack,
    attest,
    bench,
    completion,
    demo,
    doctor,
    log,
    plan,
    report,
    run_script,
    seal,
    vault,
    worker,
)
from tempo.cli.failures import (
    CLOSED,
    FAULT,
    INTERRUPTED,
    Failure,
    complain,
    interrupted,
    is_closed_pipe,
    is_other_pipe,
    leave_streams,
    print_failure,
    trace_if_wanted,
    wants_json,
)
from tempo.cli.guides import epilog
from tempo.cli.output import stderr, tempo_version
from tempo.errors import TempoError

app = typer.Typer(
    name="tempo",
    help="Confidential deep learning on GPUs nobody has to trust.",
    epilog=epilog(""),
    no_args_is_help=True,
    add_completion=False,  # `tempo completion` prints the scripts; no guessing which shell this is
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


app.command("attack", short_help="What the cloud could learn, measured.", epilog=epilog("attack"))(
    attack.attack
)
app.command("bench", short_help="Speed and promises, measured.", epilog=epilog("bench"))(bench.bench)
app.command("completion", short_help="Completion for bash, zsh, fish.", epilog=epilog("completion"))(
    completion.completion
)
app.command("demo", short_help="Training side by side, with a liar.", epilog=epilog("demo"))(demo.demo)
app.command("doctor", short_help="What this machine is fit for.", epilog=epilog("doctor"))(doctor.doctor)
app.command("plan", short_help="What pays, layer by layer; what it costs.", epilog=epilog("plan"))(plan.plan)
app.command("report", short_help="A run or a plan as one HTML page.", epilog=epilog("report"))(report.report)
_script = app.command(
    "run",
    short_help="Run a script with tempo.toml.",
    epilog=epilog("run"),
    context_settings={"allow_interspersed_args": False},
)
_script(run_script.run)
app.command("seal", short_help="Seal data or a model.", epilog=epilog("seal"))(seal.seal)
app.command("unseal", short_help="Write what was sealed.", epilog=epilog("unseal"))(seal.unseal)
app.add_typer(
    attest.app, name="attest", short_help="Evidence of machines, and policies.", epilog=epilog("attest")
)
app.add_typer(log.app, name="log", short_help="Read and check an audit log.", epilog=epilog("log"))
app.add_typer(vault.app, name="vault", short_help="Data keys, kept in-house.", epilog=epilog("vault"))
app.add_typer(worker.app, name="worker", short_help="Lend a device to masters.", epilog=epilog("worker"))


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit. Errors are one red line on standard error, without a traceback."""
    # Read when torch loads: threads that spin between products would take the cores of local workers.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.stderr is None:  # closed: what is opened next must not get its number
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (stays until the end)
    if sys.stdout is None:
        complain("Error: standard output is closed. Send it somewhere, to /dev/null if nobody wants it")
        sys.exit(3)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale without these characters is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """The exit code of `tempo ARGV`."""
    completion.answer_shells()
    failure: Failure | None = None
    try:
        code, failure = _run(argv)
        if failure is not None and wants_json(argv):
            print_failure(failure, verb_of(argv))
        sys.stdout.flush()
    except SystemExit:  # of rich, where what is to be said cannot be
        code = CLOSED
    except OSError as error:
        code = CLOSED if is_closed_pipe(error) else Failure.of_system(error).exit_code
        if code != CLOSED and failure is None:  # else it has been said, and the object cannot be printed
            complain(f"Error: {Failure.of_system(error).message}")
    if code:
        leave_streams()
    return code


def verb_of(argv: Sequence[str]) -> str:
    """The words of a command line that name its verb, such as "log verify"; empty where they name none."""
    here, words = typer.main.get_command(app), []
    for word in argv:
        if (inner := getattr(here, "commands", {}).get(word)) is None:
            break
        here = inner
        words.append(word)
    return " ".join(words)


def _run(argv: list[str]) -> tuple[int, Failure | None]:
    """The exit code, and what failed where no verb has said it in its own object."""
    try:
        app(argv, prog_name="tempo")
    except SystemExit as done:  # verbs and usage errors end here too, already printed
        return _ended(done)
    except KeyboardInterrupt:
        complain("Interrupted.")
        return INTERRUPTED, interrupted()
    except TempoError as error:
        return _told(Failure.of(error))
    except OSError as error:
        return _told(Failure.of_system(error))
    except Exception as error:
        complain(f"Internal error: {type(error).__name__}: {error}")
        if not trace_if_wanted():
            stderr().print(
                "This is a fault of Tempo. Run the command again with TEMPO_DEBUG=1 for the traceback and "
                "open an issue with it, the output of `tempo --version` and what you ran. If it looks like "
                "a weakness, follow SECURITY.md instead. The traceback may show data: read it first."
            )
        return FAULT, Failure(type(error).__name__, str(error), FAULT)
    return 0, None


def _ended(done: SystemExit) -> tuple[int, Failure | None]:
    """The library ends the process itself, with codes of its own: what it was about is the context."""
    code, cause = done.code if isinstance(done.code, int) else 1, done.__context__
    if is_closed_pipe(cause):
        return CLOSED, None
    if is_other_pipe(cause):
        return _told(Failure.of_system(cause))
    if isinstance(cause, typer.Abort) or (code == INTERRUPTED and _from_keyboard(cause)):
        complain("Interrupted.")
        return INTERRUPTED, interrupted()
    if (words := getattr(cause, "format_message", None)) is not None:
        return code, Failure("UsageError", words(), code)
    return code, None


def _told(failure: Failure) -> tuple[int, Failure]:
    complain(f"Error: {failure.message}")
    trace_if_wanted()
    return failure.exit_code, failure


def _from_keyboard(error: BaseException | None) -> bool:
    return error is not None and isinstance(error.__cause__, KeyboardInterrupt)
