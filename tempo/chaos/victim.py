"""`python -m tempo.chaos.victim HOW FOLDER`: a master that trains on two worker processes and writes a
checkpoint each step, until it is interrupted (HOW = interrupt) or has no memory left (HOW = memory).

It says its workers' process ids, then the number of each step. FOLDER: holds the key.
"""

from __future__ import annotations

import contextlib
import faulthandler
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch

import tempo
from tempo.chaos.training import ROWS, WIDTH, Training
from tempo.fleet import ProcessWorker
from tempo.trust.sealed import DataKey

#: Address space that is left to the master when HOW is memory.
_LEFT: Final = 48 << 20
#: Steps before that.
_FREE: Final = 2


def train(folder: Path, *, starve: bool) -> None:
    """Returns never: it ends by what is done to it."""
    key = DataKey.load(folder / "key")
    training = Training(1, torch.float64)
    workers = [ProcessWorker(f"w{i}") for i in range(2)]
    with tempo.Session(workers) as session:
        session.protect(training.model)
        _say("pids", *(worker.pid for worker in workers))
        rows, step = ROWS, 0
        while True:
            training.step()
            step += 1
            session.checkpoint(folder / "run", key, step=step, model=training.model)
            _say("step", step)
            if starve and step >= _FREE:
                rows *= 4
                with _starving() if step == _FREE else contextlib.nullcontext():
                    training.model(torch.randn(rows, WIDTH, dtype=torch.float64)).sum().backward()


@contextlib.contextmanager
def _starving() -> Iterator[None]:
    """From now on this process may map little more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _LEFT
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    yield


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # A shell's background job hands on that interrupts are ignored: this one is here to be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    train(Path(sys.argv[2]), starve=sys.argv[1] == "memory")
