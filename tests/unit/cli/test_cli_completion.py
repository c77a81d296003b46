"""Completion in real shells, typed on a terminal; and it loads nothing heavy."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tempo
import tempo.cli as cli

PROJECT = Path(tempo.__file__).parents[1]
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source {}"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D; source {}"),
}
READY = b"ready_now"
SECONDS = 60.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the program `tempo` first on the path."""
    program = tmp_path / "bin" / "tempo"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tempo "$@"\n')
    program.chmod(0o755)
    for name, value in {
        "HOME": str(tmp_path),
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "TERM": "xterm",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def script(shell: str, home: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert cli.run(["completion", shell]) == 0
    path = home / f"tempo.{shell}"
    path.write_text(capsys.readouterr().out)
    return path


def typed(command: list[str], setup: str, keys: str, wanted: str) -> str:
    """What a shell shows on its terminal after `keys`, until `wanted` is there or the time is up."""
    with Terminal(command) as (write, read):
        write(f"{setup}\necho ready''_now\n")
        assert READY.decode() in read(READY.decode())
        write(keys)
        return read(wanted)


class Terminal:
    def __init__(self, command: list[str]) -> None:
        self.command = command

    def __enter__(self) -> tuple[Callable[[str], None], Callable[[str], str]]:
        master, slave = pty.openpty()
        self.master = master
        self.process = subprocess.Popen(
            self.command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, close_fds=True
        )
        os.close(slave)
        return self.write, self.read

    def write(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read(self, wanted: str) -> str:
        got, end = b"", time.monotonic() + SECONDS
        while wanted.encode() not in got and time.monotonic() < end:
            if select.select([self.master], [], [], 0.2)[0]:
                got += os.read(self.master, 4096)
        return got.decode(errors="replace")

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ("tempo dem\t", "demo"),
        ("tempo vault rot\t", "rotate"),
        ("tempo plan --calib\t", "--calibration"),
        ("tempo worker issue pki --role pe\t", "peer"),
    ],
    ids=["verb", "sub-verb", "option", "value"],
)
def test_typed(shell: str, keys: str, wanted: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    command, setup = SHELLS[shell]
    assert wanted in typed(command, setup.format(script(shell, home, capsys)), keys, wanted)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("dem", {"demo"}),
        ("vault ro", {"rotate"}),
        ("plan --calib", {"--calibration"}),
        ("report --lang ", {"en", "ja"}),
    ],
)
def test_fish(line: str, wanted: set[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """fish answers what it would show."""
    if shutil.which("fish") is None:
        pytest.skip("no fish here")
    asked = f"source {script('fish', home, capsys)}; complete -C 'tempo {line}'"
    done = subprocess.run(["fish", "-c", asked], capture_output=True, text=True, check=True, timeout=120)
    assert {each.partition("\t")[0] for each in done.stdout.splitlines() if each} == wanted


def test_no_files_of_the_user_are_changed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(home.rglob("*"))
    for shell in ("bash", "zsh", "fish"):
        assert cli.run(["completion", shell]) == 0
    assert sorted(home.rglob("*")) == before


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["completion", "fish", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["shell"] == "fish"
    assert "complete --command tempo" in row["script"]
    assert cli.run(["completion", "tcsh"]) == 2


@pytest.mark.parametrize(
    ("argv", "environment"),
    [
        ([], {"_TEMPO_COMPLETE": "complete_bash", "COMP_WORDS": "tempo vault ", "COMP_CWORD": "2"}),
        (["--help"], {}),
        (["plan", "--help"], {}),
        (["completion", "bash"], {}),
    ],
    ids=["completion", "help", "help of a verb", "script"],
)
def test_nothing_heavy_is_loaded(argv: list[str], environment: dict[str, str]) -> None:
    """torch alone takes a second or more: nobody waits so long for a tab."""
    code = (
        "import sys, tempo.cli as cli; code = cli.run(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'matplotlib', 'cryptography', 'scipy'} & set(sys.modules);"
        "print(f'heavy: {sorted(heavy)} {code}', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "heavy: [] 0" in done.stderr
    assert done.stdout.strip()
