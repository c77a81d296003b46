"""Ctrl-C and out of memory: the master ends with an error, in time; no worker process outlives it; the
checkpoint is a whole one, and no half-written file lies beside it."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Final, final

import torch

from tempo.chaos.crew import environment, line_of
from tempo.chaos.judge import Finding
from tempo.chaos.training import Training
from tempo.checkpoint import checkpoint
from tempo.errors import OutsideError, TempoError
from tempo.trust.sealed import DataKey

#: From SIGINT, or from the last step that memory sufficed for, to the end. On an idle machine it takes one
#: second; where others take the cores it takes many, and a hang lasts for ever.
END_S: Final = 60.0
_STEP_S: Final = 90.0
_STEPS: Final = 3


class How(StrEnum):
    INTERRUPT = "interrupt"
    MEMORY = "memory"


@final
@dataclass(frozen=True, slots=True)
class Ended:
    """seconds: until it had ended. code: negative for a signal. left: worker processes that live.
    files: in its folder. step: of the checkpoint, 0 for none that could be read. error: last line it said."""

    seconds: float
    code: int | None
    left: int
    files: list[str]
    step: int
    error: str


def end(how: How, folder: Path, seed: int) -> Ended:
    """Run a victim in `folder`, which is empty, and see what it leaves. seed: when it is interrupted.
    Raises OutsideError where it never came as far."""
    key = DataKey.generate()
    key.save(folder / "key")
    rng = random.Random(seed)  # noqa: S311 (no secret: the seed is printed)
    process = subprocess.Popen(
        [sys.executable, "-m", "tempo.chaos.victim", how.value, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        process_group=0,
        bufsize=0,
    )
    assert process.stdout is not None and process.stderr is not None, "both are pipes"  # noqa: PT018
    pids: list[int] = []
    code: int | None = None
    try:
        pids = [int(word) for word in _next(process.stdout, "pids")]
        for _ in range(_STEPS if how is How.INTERRUPT else 2):
            _next(process.stdout, "step")
        if how is How.INTERRUPT:
            time.sleep(rng.random() * 0.15)  # somewhere in an operation or in writing the checkpoint
            process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            _, errors = process.communicate(timeout=END_S)
            code = process.returncode
        seconds = time.monotonic() - begin
    finally:
        if code is None:
            process.send_signal(signal.SIGUSR1)  # where its threads stand, as its last words
            time.sleep(0.5)
        process.kill()
        if code is None:
            _, errors = process.communicate()
    left = [pid for pid in pids if _lives(pid)]
    lines = errors.decode(errors="replace").strip().splitlines() or [""]
    files = sorted(path.name for path in folder.iterdir())
    return Ended(seconds, code, len(left), files, _step(folder / "run", key), lines[-1][:200])


def judge(how: How, ended: Ended) -> Iterator[Finding]:
    name = {How.INTERRUPT: "Ctrl-C in an operation", How.MEMORY: "out of memory"}[how]
    by = {How.INTERRUPT: "KeyboardInterrupt", How.MEMORY: "emory"}[how]
    told = ended.code not in (0, None) and by in ended.error
    yield Finding(f"{name}: ends with that error", float(not told), 0.0, "failures", ended.error)
    yield Finding(f"{name}: ends in time", ended.seconds, END_S, "seconds", f"exit code {ended.code}")
    yield Finding(f"{name}: no worker process is left", ended.left, 0.0, "processes", "")
    stray = [file for file in ended.files if file not in ("key", "run")]
    yield Finding(f"{name}: no half-written file", len(stray), 0.0, "files", ", ".join(stray))
    yield Finding(f"{name}: the checkpoint is whole", ended.step, 2.0, "step", "", least=True)


def _step(path: Path, key: DataKey) -> int:
    try:
        return checkpoint.read(path, key, parts={"model": Training(1, torch.float64).model}).step
    except TempoError:
        return 0


def _next(pipe: IO[bytes], word: str) -> list[str]:
    first, *rest = line_of(pipe, _STEP_S, "the victim").split()
    if first != word:
        raise OutsideError(f"the victim said {first!r} where {word!r} was due")
    return rest


def _lives(pid: int) -> bool:
    """And is no zombie. Workers are children of the victim, so a pid is not reused within a moment."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
