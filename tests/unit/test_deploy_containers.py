"""Container files: what can be said of them without an engine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import typer

import tempo.cli as cli

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "containers"
FILES = sorted(FOLDER.glob("*.Containerfile"))
DIGEST = "docker.io/library/python@sha256:" + "ab" * 32


def test_there_is_one_for_each_role() -> None:
    assert [path.name for path in FILES] == ["master.Containerfile", "worker.Containerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_taken_by_a_name_that_may_change(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert re.search(r"^ARG BASE=\S+@sha256:0{64}$", text, re.MULTILINE), "a placeholder that no engine finds"
    installs = re.findall(r"pip install .*", text)
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert {"--no-index", "--no-deps"} <= set(installs[1].split())
    assert all("--no-compile" in each for each in installs)
    assert not re.search(r"\b(apt-get|curl|wget|ADD)\b", text)
    assert re.search(r"^USER 65532:65532$", text, re.MULTILINE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_it_starts_exists(path: Path) -> None:
    text = path.read_text()
    words = [
        word
        for line in re.findall(r"^(?:ENTRYPOINT|CMD) \[(.*)\]$", text, re.MULTILINE)
        for word in re.findall(r'"([^"]*)"', line)
    ]
    assert words[0] == "tempo"
    command = typer.main.get_command(cli.app).commands[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words[2:] if word.startswith("--")} <= known


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cook", DIGEST], "ROLE is master or worker"),
        (["master", "python:3.12"], "named by digest"),
        (["master", "python@sha256:" + "0" * 64], "placeholder"),
        (["worker", DIGEST], "holds no hashes"),
    ],
)
def test_the_script_refuses_what_nobody_could_build_again(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("torch==2.13.0\n")
    done = subprocess.run([FOLDER / "build", *arguments, lock], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert says in done.stderr
