"""README and docs: links resolve, and the commands they show exist. `make docs` runs this."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest
import typer

import tempo.cli as cli

PROJECT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), *PROJECT.glob("examples/**/*.md")])

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^```(?:sh|bash|console|shell)[^\n`]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Of the headings, as code hosts make them."""
    titles = re.findall(r"^#+\s+(.*?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def problems(text: str, folder: Path) -> list[str]:
    return [*broken_links(text, folder), *unknown_commands(text)]


def broken_links(text: str, folder: Path) -> list[str]:
    found = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = folder / path if path else None
        if goal is not None and not goal.exists():
            found.append(f"link to {target}: there is no {path}")
        elif anchor and (goal is None or goal.suffix == ".md"):
            there = text if goal is None else goal.read_text()
            if anchor not in anchors(there):
                found.append(f"link to {target}: no such heading")
    return found


def first_command(line: str) -> list[str]:
    """Its words, up to a pipe, a redirection or the next command."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    return list(itertools.takewhile(lambda word: not re.fullmatch(r"[();<>|&]+", word), words))


def unknown_commands(text: str) -> list[str]:
    group = typer.main.get_command(cli.app)
    targets = set(re.findall(r"^([a-z][\w-]*):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    found = []
    for block in FENCE.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in lines):
            lines = [line for line in lines if line.startswith("$ ")]  # the rest is what is printed
        for line in lines:
            words = first_command(line.removeprefix("$ "))
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words[:1] == ["make"]:
                wanted = [w for w in words[1:] if "=" not in w and not w.startswith("-")]
                found += [f"make {each}: no such target" for each in wanted if each not in targets]
            elif words[:1] == ["tempo"] and words[1:2] and not words[1].startswith("-"):
                command, verb = group.commands.get(words[1]), words.pop(1)
                if command is None:
                    found.append(f"tempo {verb}: no such verb")
                    continue
                if words[1:2] and words[1] in getattr(command, "commands", {}):
                    command, verb = command.commands[words[1]], f"{verb} {words.pop(1)}"
                known = {"--help"} | {
                    option for p in command.params for option in [*p.opts, *p.secondary_opts]
                }
                own = words[1:]
                if verb == "run":  # behind the script stand the script's own
                    own = list(itertools.takewhile(lambda word: not word.endswith(".py"), own))
                given = [w.partition("=")[0] for w in own if w.startswith("-")]
                found += [f"tempo {verb} {each}: no such option" for each in given if each not in known]
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_document(path: Path) -> None:
    assert problems(path.read_text(), path.parent) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a](nowhere.md)", "there is no nowhere.md"),
        ("[a](#gone)\n# Here", "no such heading"),
        ("```sh\ntempo fly\n```", "tempo fly: no such verb"),
        ("```sh\ntempo worker issue pki --nam x\n```", "tempo worker issue --nam: no such option"),
        ("```bash\n$ tempo demo --slow  # slowly\n```", "--slow: no such option"),
        (
            "```sh\ntempo vault list keys --frob >x; y -z | z -a\n```",
            "tempo vault list --frob: no such option",
        ),
        ("```sh\nmake coffee\n```", "make coffee: no such target"),
        ("```console hardware\n# hardware: x\n$ tempo fly\nit's gone\n```", "tempo fly: no such verb"),
    ],
)
def test_problems_are_found(text: str, says: str, tmp_path: Path) -> None:
    (found,) = problems(text, tmp_path)
    assert says in found


def test_no_problem_where_there_is_none(tmp_path: Path) -> None:
    text = (
        '# A heading, here\n[a](#a-heading-here) [b](https://example.org/x)\n```sh\nmake demo ARGS="--fast"\n'
    )
    text += "TEMPO_DEBUG=1 tempo demo --fast --out=x\ntempo --version\ncd x\n```\n"
    assert problems(text, tmp_path) == []
