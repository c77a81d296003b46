"""Where the demo happens: one private folder and the processes in it. Leaving it leaves neither."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self, final

from tempo.chaos.crew import environment
from tempo.demo.owner.interrupts import Interrupts
from tempo.errors import OutsideError

_END_S: Final = 15.0
_PIECE: Final = 65_536


@final
class Child:
    """A process. What it prints is kept (`said`); its standard error goes into a file of the stage.

    It has a process group of its own, so Ctrl-C reaches the demo alone, which then ends all of them.
    """

    def __init__(self, name: str, command: Sequence[str], errors: Path, given: bytes) -> None:
        self.name = name
        self.said = b""
        self._errors = errors
        self._read = 0  # of what it said
        with errors.open("ab") as target:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=target,
                env=environment(),
                cwd=errors.parent,
                process_group=0,
                bufsize=0,
            )
        self.pid = self._process.pid
        assert self._process.stdin is not None, "a pipe was asked for"
        try:
            # Secrets come this way: not as an argument, which all users see, and not in a file.
            self._process.stdin.write(given)
            self._process.stdin.close()
        except OSError:
            pass  # it ended: whoever waits for its words is told why

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def line(self, seconds: float) -> bytes:
        """The next line, with its end. Raises OutsideError where none comes in time, or it ended."""
        return self._until(b"\n", seconds)

    def document(self, seconds: float) -> dict[str, Any]:
        """The next JSON object as `--json` prints it. Raises as `line`."""
        found: dict[str, Any] = json.loads(self._until(b"\n}\n", seconds))
        return found

    def end(self) -> int:
        """SIGTERM, then SIGKILL: its exit code. May be called again."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._close()
        return self._process.returncode

    def wait(self, seconds: float) -> int:
        """Its exit code, once it has ended by itself. Raises OutsideError where it does not."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise OutsideError(f"{self.name} did not end within {seconds:g} s") from None
        self._close()
        return self._process.returncode

    def kill(self) -> None:
        """At once, and waits until it is gone. May be called again."""
        if self.alive:
            self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        assert self._process.stdout is not None, "a pipe was asked for"
        self._process.stdout.close()

    def _until(self, end: bytes, seconds: float) -> bytes:
        assert self._process.stdout is not None, "a pipe was asked for"
        deadline = time.monotonic() + seconds
        while (at := self.said.find(end, self._read)) < 0:
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._process.stdout], [], [], left)
            if not ready:
                raise OutsideError(f"{self.name} said nothing for {seconds:g} s{self._last_words()}")
            piece = os.read(self._process.stdout.fileno(), _PIECE)
            if not piece:
                raise OutsideError(f"{self.name} ended before it was done{self._last_words()}")
            self.said += piece
        found = self.said[self._read : at + len(end)]
        self._read = at + len(end)
        return found

    def _last_words(self) -> str:
        lines = self._errors.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f". Its last words: {last[:300]}" if last else ""


@final
class Stage:
    """A context, to be entered while interrupts are held. folder: readable by this user alone, gone when the
    stage is left or closed."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self.children: list[Child] = []
        self.folder = Path(tempfile.mkdtemp(prefix="tempo-owner-"))

    def start(self, name: str, command: Sequence[str], given: bytes = b"") -> Child:
        """given: its standard input. Its standard error is NAME.err in the folder."""
        with self._interrupts.held():
            try:
                child = Child(name, command, self.folder / f"{name}.err", given)
            except OSError as error:
                raise OutsideError(f"{name} cannot be started ({error.strerror})") from error
            self.children.append(child)
        return child

    def close(self) -> None:
        """Ends all processes and removes the folder. May be called again."""
        with self._interrupts.held():
            for child in self.children:
                child.kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
