"""Every verb and sub-verb of the command line, for tests that ask something of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer

import tempo.cli as cli


@dataclass(frozen=True)
class Verb:
    """words: such as ("log", "verify"); none for `tempo` itself."""

    words: tuple[str, ...]
    command: Any
    context: Any

    def __str__(self) -> str:
        return " ".join(self.words)

    @property
    def options(self) -> list[str]:
        return [option for parameter in self.command.params for option in parameter.opts]

    @property
    def runs(self) -> bool:
        """Whether it does something without a sub-verb."""
        return not hasattr(self.command, "commands") or self.command.invoke_without_command


def verbs() -> Iterator[Verb]:
    root = typer.main.get_command(cli.app)
    yield from _walk(root, (), None)


def _walk(command: Any, words: tuple[str, ...], parent: Any) -> Iterator[Verb]:
    context = command.context_class(command, info_name=words[-1] if words else "tempo", parent=parent)
    yield Verb(words, command, context)
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        yield from _walk(inner, (*words, name), context)
