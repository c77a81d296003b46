"""A script as `python SCRIPT args...` runs it, in this process; and how it ended."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import tempo
from tempo.errors import TempoError, UsageError

#: Exit codes of Python's own, and of a shell's for Ctrl-C.
FAILED: Final = 1
INTERRUPTED: Final = 130

_OURS: Final = str(Path(tempo.__file__).parent) + "/"
_RUNPY: Final = "<frozen runpy>"


@final
@dataclass(frozen=True, slots=True)
class Ended:
    """code: to exit with. error: what the script raised and did not catch; None after `sys.exit`. said: what
    `sys.exit` was given in place of a number."""

    code: int
    error: BaseException | None = None
    said: str = ""


def run_script(script: Path, arguments: Sequence[str]) -> Ended:
    """Raises UsageError where there is no such file."""
    if not script.is_file():
        raise UsageError(f"there is no script {script}")
    try:
        with _as_main(script, arguments):
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as done:
        if done.code is None or isinstance(done.code, int):
            return Ended(done.code or 0)
        return Ended(FAILED, said=str(done.code))
    except KeyboardInterrupt as error:
        return Ended(INTERRUPTED, error)
    except TempoError as error:
        return Ended(error.exit_code, error)
    except Exception as error:
        return Ended(FAILED, error)
    return Ended(0)


@contextmanager
def _as_main(script: Path, arguments: Sequence[str]) -> Iterator[None]:
    """sys.argv and the first folder of sys.path are the script's inside."""
    argv, path = sys.argv[:], sys.path[:]
    sys.argv[:] = [str(script), *arguments]
    sys.path[:1] = [str(script.resolve().parent)]
    try:
        yield
    finally:
        sys.argv[:], sys.path[:] = argv, path


def traceback_of(error: BaseException) -> str:
    """As Python prints it, without frames of Tempo and of what runs the script. What led to an error of
    Tempo's own is left out too: its message says what to do."""
    shown = traceback.TracebackException.from_exception(error)
    _trim(error, shown)
    return "".join(shown.format())


def _trim(error: BaseException, shown: traceback.TracebackException) -> None:
    frames = [f for f in shown.stack if not f.filename.startswith(_OURS) and f.filename != _RUNPY]
    shown.stack = traceback.StackSummary.from_list(frames)
    if isinstance(error, TempoError):
        shown.__cause__ = shown.__context__ = None
    for inner, its in ((error.__cause__, shown.__cause__), (error.__context__, shown.__context__)):
        if inner is not None and its is not None:
            _trim(inner, its)
    if isinstance(error, BaseExceptionGroup) and shown.exceptions:
        for inner, its in zip(error.exceptions, shown.exceptions, strict=True):
            _trim(inner, its)
