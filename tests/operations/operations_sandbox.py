"""A folder and a shell in it: commands run one after the other in the same bash, as a person types them.

`tempo` and `python` are those of this project (operations_server.py). A command that ends with "&" is a
service: the next command comes when it has said where it listens.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
PATHS = (PROJECT, HERE, PROJECT / "tests" / "unit" / "trust")
LIMIT_S = 120.0
_LOOP = r"""
set -m
while IFS= read -r number; do
  tempo_file=$TEMPO_SANDBOX/$number
  eval "$(cat "$tempo_file.sh")" >"$tempo_file.out" 2>&1 </dev/null
  echo "$?" >"$tempo_file.new" && mv "$tempo_file.new" "$tempo_file.code"
done
"""


class Failed(Exception):
    """A command did not do what it should; the text says which and how."""


class Server:
    """Of commands (operations_server.py), for a whole run of tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "s"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS)), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, HERE / "operations_server.py", self.socket, "--serve", folder]
        self._process = subprocess.Popen([*map(str, words)], env=environment, start_new_session=True)
        until = time.monotonic() + LIMIT_S
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > until:
                raise Failed("the server of commands does not start")
            time.sleep(0.05)

    def close(self) -> None:
        """And every command that it still runs."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                break
            time.sleep(0.2)
        self._process.wait(10)


class Sandbox:
    """home: the folder in which commands run."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.home = folder / "home"
        self.server = server
        self._files = folder / "commands"
        tools = folder / "bin"
        for each in (self.home, self._files, tools):
            each.mkdir(parents=True)
        for name in ("tempo", "python"):
            asks = f"{sys.executable} -S -E {HERE}/operations_server.py {server.socket} {name}"
            (tools / name).write_text(f'#!/bin/sh\nexec {asks} "$@"\n')
            (tools / name).chmod(0o755)
        measure = Path(sys.executable).parent / "sev-snp-measure"
        if measure.exists():
            (tools / measure.name).symlink_to(measure)
        environment = {
            "PATH": f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "COLUMNS": "110",
            "TEMPO_SANDBOX": str(self._files),
        }
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-c", _LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.home,
            env=environment,
            text=True,
            start_new_session=True,
        )
        self._count = 0

    def write(self, name: str, text: str) -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, text: str, limit_s: float = LIMIT_S) -> tuple[int, str]:
        """Exit code and what was printed, both streams. Raises Failed where it does not end in time."""
        self._count += 1
        file = self._files / str(self._count)
        file.with_suffix(".sh").write_text(text + "\n")
        try:
            self._shell.stdin.write(f"{self._count}\n")
            self._shell.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"{text}: the shell has ended before") from None
        code, out = file.with_suffix(".code"), file.with_suffix(".out")
        until = time.monotonic() + limit_s
        while not code.exists():
            if self._shell.poll() is not None:
                raise Failed(f"{text}: it ended the shell")
            if time.monotonic() > until:
                raise Failed(f"{text}: not done after {limit_s:.0f} s; printed\n{_read(out)}")
            time.sleep(0.01)
        if text.rstrip().endswith("&"):
            while "isten" not in _read(out):
                if time.monotonic() > until or "Error" in _read(out):
                    raise Failed(f"{text}: it does not listen; printed\n{_read(out)}")
                time.sleep(0.02)
        return int(code.read_text()), _read(out)

    def must(self, text: str) -> str:
        """What was printed. Raises Failed unless it ended with 0."""
        code, printed = self.run(text)
        if code:
            raise Failed(f"{text}: exit code {code}\n{printed}")
        return printed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """End what still runs. Job control gives each service a group of its own, hence `jobs`."""
        try:
            self.run("for job in $(jobs -p); do kill $job; done; wait", 20)
        except (Failed, OSError):
            pass
        finally:
            with contextlib.suppress(BrokenPipeError):
                self._shell.stdin.close()
            try:
                self._shell.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self._shell.pid, signal.SIGKILL)
                self._shell.wait()
            shutil.rmtree(self._files, ignore_errors=True)


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
