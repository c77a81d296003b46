"""How a command ends that did not go well: a red line on standard error, under `--json` an object as well.

A file that cannot be read, a full disk or a pipe that nobody reads any more are the outside world's doing:
none of them is a fault of Tempo, and none of them ends in a traceback.
"""

from __future__ import annotations

import errno
import json
import os
import select
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TextIO, TypeGuard, final

import typer
from rich.markup import escape

from tempo.cli.output import stderr, tempo_version
from tempo.errors import OutsideError, TempoError

#: As a shell has it: 128 and the number of SIGINT, or of SIGPIPE.
INTERRUPTED: Final = 130
CLOSED: Final = 141
FAULT: Final = 70

_ADVICE: Final = {
    errno.ENOSPC: "Make room, or write elsewhere",
    errno.EDQUOT: "Make room, or write elsewhere",
    errno.EACCES: "Change its permissions, or name another",
    errno.EPERM: "Change its permissions, or name another",
    errno.EROFS: "Write elsewhere",
    errno.EMFILE: "Raise the limit of open files: ulimit -n 4096",
    errno.ENOMEM: "Free memory, or take a smaller batch",
}


@final
@dataclass(frozen=True, slots=True)
class Failure:
    """kind: name of the error in tempo/errors.py, or what ended the command. message: for people."""

    kind: str
    message: str
    exit_code: int

    @staticmethod
    def of(error: TempoError) -> Failure:
        return Failure(type(error).__name__, str(error), error.exit_code)

    @staticmethod
    def of_system(error: OSError) -> Failure:
        """Of a call of the operating system that nobody expected to fail."""
        said = error.strerror or str(error) or type(error).__name__
        where = f": {error.filename}" if error.filename is not None else ""
        advice = _ADVICE.get(error.errno or 0, "Mend that and run the command again")
        return Failure(OutsideError.__name__, f"{said}{where}. {advice}", OutsideError.exit_code)

    def fields(self, verb: str) -> dict[str, object]:
        """What `--json` prints; no `rows`, so that nobody takes it for a result."""
        error = {"kind": self.kind, "message": self.message, "exit_code": self.exit_code}
        return {"tempo": tempo_version(), "verb": verb, "error": error}


def interrupted() -> Failure:
    return Failure("Interrupted", "interrupted", INTERRUPTED)


def complain(text: str) -> None:
    """One red line on standard error."""
    one_line = " ".join(text.split())
    stderr().print(f"[red]{escape(one_line)}[/red]", soft_wrap=True)


def trace_if_wanted() -> bool:
    """Whether TEMPO_DEBUG asked for the traceback of the error that is being handled; it is printed then."""
    wanted = os.environ.get("TEMPO_DEBUG", "") not in ("", "0")
    if wanted:
        traceback.print_exc(file=sys.stderr)
    return wanted


def is_closed_pipe(error: BaseException | None) -> bool:
    """Whether nobody reads what is written any more, which is no failure: `tempo ... | head -1`. The pipe
    to a process that died, or a socket, is something else."""
    return _is_broken_pipe(error) and any(map(_nobody_reads, (sys.stdout, sys.stderr)))


def is_other_pipe(error: BaseException | None) -> TypeGuard[OSError]:
    """Broken, and none of ours."""
    return _is_broken_pipe(error) and not is_closed_pipe(error)


def _is_broken_pipe(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def _nobody_reads(stream: TextIO) -> bool:
    """Also where rich has found that out already and put the null device in its place."""
    try:
        if os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull)):
            return True
        asked = select.poll()
        asked.register(stream.fileno(), 0)  # errors and hang-ups are told in any case
        return bool(asked.poll(0))
    except (OSError, ValueError):  # closed, or none of the system's
        return False


def wants_json(argv: Sequence[str]) -> bool:
    """Whether `--json` was asked for. What follows the script of `tempo run` is the script's."""
    given = list(argv[: argv.index("--")] if "--" in argv else argv)
    if given[:1] == ["run"]:
        own, rest = [], given[1:]
        while rest and rest[0].startswith("-"):
            own.append(rest[0])
            rest = rest[2 if rest[0] == "--config" else 1 :]
        given = own
    return "--json" in given


def print_failure(failure: Failure, verb: str) -> None:
    """Not through `print_json`'s document: a command that failed must not load torch to say so."""
    sys.stdout.write(json.dumps(failure.fields(verb), indent=2) + "\n")
    sys.stdout.flush()


def ended_in_json(error: TempoError) -> NoReturn:
    """Ends a verb whose own object has said already what failed. Raises typer.Exit."""
    complain(f"Error: {error}")
    trace_if_wanted()
    raise typer.Exit(error.exit_code) from error


def leave_streams() -> None:
    """Points streams that cannot be written at nothing: Python would try again when it ends, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
