"""What the site needs: links that leave docs/ become plain names, and help texts of all verbs are put in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import click
import typer

import tempo.cli as cli

_OUT = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)\s]*)\)")
_HELP = "<!-- help of every verb -->"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    depth = page.file.src_uri.count("/")

    def plain(match: re.Match[str]) -> str:
        """A link to a file of the project that the site does not hold: its name instead."""
        words, target = match.groups()
        if target.count("../") <= depth:
            return match.group(0)
        name = target.replace("../", "").partition("#")[0]
        return words if words.strip("`") == name else f"{words} (`{name}`)"

    return _OUT.sub(plain, markdown).replace(_HELP, "\n".join(_verbs()))


def _verbs() -> Iterator[str]:
    # rich would draw boxes as wide as the terminal that happens to build.
    os.environ["TERMINAL_WIDTH"] = "100"
    root = typer.main.get_command(cli.app)
    yield from _help(root, click.Context(root, info_name="tempo"), 2)


def _help(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    yield f"\n{'#' * level} {context.command_path}\n\n```text\n{command.get_help(context).strip()}\n```\n"
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        yield from _help(inner, click.Context(inner, info_name=name, parent=context), min(level + 1, 4))
