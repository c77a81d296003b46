"""`tempo completion SHELL`: the script by which a shell completes verbs, options and their values."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated, Final

import typer

from tempo.cli.options import Json
from tempo.cli.output import document, print_json

#: What the scripts set when they ask; the rest of the environment is the library's affair.
_ASKED: Final = "_TEMPO_COMPLETE"


class ShellName(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(
    shell: Annotated[ShellName, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
    as_json: Json = False,
) -> None:
    """Print the script by which a shell completes verbs, options and their values.

    It is printed, and no file of yours is changed: say yourself where it goes. It does not grow old: the
    shell asks this very program.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name="tempo", complete_var=_ASKED, shell=shell.value)
    if as_json:
        print_json(document("completion", [{"shell": shell.value, "script": script}]))
    else:
        sys.stdout.write(script + "\n")


def answer_shells() -> None:
    """Makes the library answer, where a shell asks; it does by itself only with options of its own."""
    if _ASKED in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
