"""Every verb's help: examples that the command line takes, what comes next, and a page that exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from cli_walk import Verb, verbs
from test_cli_documents import first_command, unknown_commands

import tempo
import tempo.cli as cli

PROJECT = Path(tempo.__file__).parents[1]
VERBS = list(verbs())
#: Of a shell: what stands there is a word like any other once the shell has run.
_FILLED_IN = re.compile(r"\$\([^)]*\)|\$[A-Z]+")
#: After which nothing needs to come.
LAST = {"completion", "unseal", "vault passphrase", "worker revoke"}


def help_of(verb: Verb) -> str:
    return verb.command.get_help(verb.context)


def commands(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if re.match(r"\s+tempo [a-zA-Z]", line)]


def everywhere() -> Iterator[str]:
    for verb in VERBS:
        yield from commands(help_of(verb))


@pytest.mark.parametrize("verb", VERBS, ids=str)
def test_help_has_examples_and_goes_on(verb: Verb) -> None:
    text = help_of(verb)
    examples, _, after = text.partition("Examples:\n")[2].partition("Next:\n")
    own = f"tempo {verb}".strip()
    if not hasattr(verb.command, "commands"):
        assert any(line == own or line.startswith(f"{own} ") for line in commands(examples))
    else:
        assert commands(examples)
    assert bool(after) == (str(verb) not in LAST)
    page = re.search(r"Read on: docs/(\S+)\s*\Z", text)
    assert page is not None
    assert (PROJECT / "docs" / page[1]).is_file()
    assert page[1] in (PROJECT / "mkdocs.yml").read_text()


@pytest.mark.parametrize("command", sorted(set(everywhere())))
def test_examples_are_taken_by_the_command_line(command: str) -> None:
    if "VERB" in command:
        return
    line = _FILLED_IN.sub("00", command)
    assert unknown_commands(f"```sh\n{line}\n```") == []
    parsed(first_command(line)[1:])


def parsed(words: list[str]) -> None:
    """Arguments, options and their types, as far as a command line is read before anything runs."""
    here, context = typer.main.get_command(cli.app), None
    name = "tempo"
    while True:
        if "--help" in words:
            return
        group = getattr(here, "commands", {})
        with here.make_context(name, list(words), parent=context) as context:
            rest = [*context._protected_args, *context.args] if group else []
        if not rest:
            return
        name, *words = rest
        here = group[name]


@pytest.mark.parametrize(
    "words",
    [["fly"], ["plan"], ["plan", "mlp:4096x4", "--batch", "many"], ["vault", "grant", "vault", "photos"]],
)
def test_wrong_examples_are_found(words: list[str]) -> None:
    with pytest.raises((KeyError, typer.BadParameter, Exception)) as found:
        parsed(words)
    assert not isinstance(found.value, AssertionError)


def test_lines_are_not_joined_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERMINAL_WIDTH", "40")
    assert cli.run(["plan", "--help"]) == 0
    text = capsys.readouterr().out
    assert "\n    tempo plan mlp:4096x4\n" in text


def test_shell_words_are_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    from tempo.cli.guide import say_next

    say_next("tempo", "report", Path("my runs/a"))
    line = capsys.readouterr().out.strip()
    assert line == "Next: tempo report 'my runs/a'"
    assert shlex.split(line)[1:] == ["tempo", "report", "my runs/a"]
