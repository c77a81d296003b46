"""A session whose workers write down what they see, and whose master writes the truth beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tempo.attacks.transcript import Transcript
from tempo.attacks.truth import Truth
from tempo.facade import Session
from tempo.fleet import ProcessWorker
from tempo.secrecy.scheme import SHARES
from tempo.secrecy.shares import REPLICATED


@contextmanager
def recorded(folder: Path, *, workers: int = 1, **options: Any) -> Iterator[Session]:
    """folder: gets worker-0, worker-1, ... and truth. options: settings of the session, such as scheme.

    Under `shares` owners do not collude: worker-0 is the first owner's, and each of the other two owners has
    one worker too, whose recordings are kept in folders of another name, owner-1 and owner-2.
    """
    names = [f"worker-{i}" for i in range(workers)]
    if options.get("scheme") == SHARES:
        names = ["worker-0", *(f"owner-{i}" for i in range(1, REPLICATED))]
        options = {"unsafe_one_owner": True, **options}
    threads = max(1, len(os.sched_getaffinity(0)) // len(names))
    crew = [ProcessWorker(name, threads=threads, record=folder / name) for name in names]
    with Session(crew, unsafe_truth=folder / "truth", **options) as session:
        yield session


def transcript_of(folder: Path) -> Transcript:
    """What all workers of a recorded session saw together: those of one owner under `shares`."""
    return Transcript.read(*sorted(folder.glob("worker-*")))


def truth_of(folder: Path) -> Truth:
    return Truth(folder / "truth")
