"""Every command of docs/operations is run as it stands, in order, and held to what the page shows of it.

Commands marked as needing hardware are not run: those of Tempo are parsed by the command line, scripts of
this project say what they would do, of others the shell's syntax is checked. A VM that a page starts changes
what the stand-in machine runs.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from operations_match import difference
from operations_page import BadPage, Command, File, read_page
from operations_sandbox import PROJECT, Failed, Sandbox, Server
from operations_scenes import SCENES, boot, set_up

import tempo.cli as cli

PAGES = sorted((PROJECT / "docs" / "operations").glob("*.md"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("dcap_qvl")
    pytest.importorskip("sevsnpmeasure")
    made = Server(tmp_path_factory.mktemp("s"))
    yield made
    made.close()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page(path: Path, tmp_path: Path, server: Server) -> None:
    page = read_page(path)
    assert "## What was run" in path.read_text()
    with Sandbox(tmp_path, server) as box:
        set_up(box, page.starts)
        for step in page.steps:
            where = f"{path.name}:{step.line}"
            if isinstance(step, File):
                box.write(step.name, step.text)
            elif step.hardware:
                check_hardware(box, step, where)
            else:
                check(box, step, where)


def check(box: Sandbox, step: Command, where: str) -> None:
    code, printed = box.run(step.text)
    assert code == step.exit, f"{where}: {step.text}: exit code {code}, expected {step.exit}\n{printed}"
    if step.shown:
        found = difference(step.shown, printed)
        assert found is None, f"{where}: {step.text}: {found}"


def check_hardware(box: Sandbox, step: Command, where: str) -> None:
    syntax = subprocess.run(["bash", "-n"], input=step.text, capture_output=True, text=True)
    assert syntax.returncode == 0, f"{where}: {syntax.stderr}"
    words = shlex.split(step.text.replace("\\\n", " "), comments=True)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]) or words[0] == "sudo":
        words.pop(0)
    if words[0] == "tempo":
        parse(words[1:], where)
    elif words[0].startswith("deploy/"):
        box.must(shlex.join([words[0], "--dry-run", *words[1:]]))
        if "launch-snp" in words[0]:
            boot(box, step.text)


def parse(words: list[str], where: str) -> None:
    """As the command line would, without running the verb. Raises AssertionError."""
    command = typer.main.get_command(cli.app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    try:
        command.make_context(command.name, list(words))
    except Exception as error:  # typer has a click of its own, hence no name for its errors
        raise AssertionError(f"{where}: {' '.join(words)}: {error}") from error


@pytest.mark.parametrize("words", [["vault", "list"], ["doctor", "--frob"], ["worker", "revoke", "--days"]])
def test_what_the_command_line_does_not_take_is_found(words):
    with pytest.raises(AssertionError, match="here"):
        parse(words, "here")
    parse(["doctor", "--json"], "here")
    parse(["vault", "list", "keys"], "here")


@pytest.mark.parametrize(
    ("shown", "printed", "agree"),
    [
        (("a",), "a\n", True),
        (("a",), "b\n", False),
        (("a",), "a\nb\n", False),
        (("a ... c",), "a bb c\n", True),
        (("a ... c",), "a\nc\n", False),
        (("a", "...", "d"), "a\nb\nc\nd\n", True),
        (("a", "...", "d"), "a\nd\n", True),
        (("a", "...", "d"), "a\nb\n", False),
        (("a.c",), "abc\n", False),
        (("a", "b"), "a  \n\nb\n", True),
    ],
)
def test_what_is_shown_is_compared(shown, printed, agree):
    assert (difference(shown, printed) is None) == agree


def page_of(tmp_path: Path, text: str):
    path = tmp_path / "page.md"
    path.write_text(text)
    return read_page(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("```console hardware\n$ x\n```\n", "go together"),
        ("```console\n# hardware: a TPM\n$ x\n```\n", "go together"),
        ("```console later\n$ x\n```\n", "means nothing"),
        ("```console\nx\n```\n", "expected a command"),
        ("```sh\ntempo doctor\n```\n", "where they are run"),
        ("<!-- starts from: a -->\n<!-- starts from: b -->\n", "2 set-ups"),
    ],
)
def test_pages_that_would_hide_a_command_are_refused(tmp_path, text, says):
    with pytest.raises(BadPage, match=says):
        page_of(tmp_path, text)


def test_a_page_is_read_in_order(tmp_path):
    text = "<!-- starts from: vault run -->\n```toml file=p.toml\na = 1\n```\n"
    text += "```console\n$ one \\\n  more  # exit 3\nprinted\n$ two\n```\n"
    text += "```console hardware\n# hardware: a host\n$ three\n```\n"
    page = page_of(tmp_path, text)
    assert page.starts == ("vault", "run")
    assert page.steps == (
        File(3, "p.toml", "a = 1\n"),
        Command(6, "one \\\n  more", 3, ("printed",), False),
        Command(9, "two", 0, (), False),
        Command(13, "three", 0, (), True),
    )


def test_a_wrong_page_fails(tmp_path, server):
    with Sandbox(tmp_path, server) as box:
        for command in (
            Command(1, "tempo worker ca pki", 1, (), False),
            Command(1, "tempo worker ca other", 0, ("Something else",), False),
        ):
            with pytest.raises(AssertionError, match="here"):
                check(box, command, "here")
        with pytest.raises(Failed, match="does not listen"):
            box.run("tempo worker --listen nowhere &")
        with pytest.raises(Failed, match="ended the shell"):
            box.run("exit 0")


def test_all_set_ups_are_used_and_told():
    used = {name for path in PAGES for name in read_page(path).starts}
    assert used == set(SCENES)
    readme = (PROJECT / "docs" / "operations" / "README.md").read_text()
    assert [name for name in SCENES if f"`{name}`" not in readme] == []
