"""A session whose workers write down what they see, and whose master writes the truth beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tempo.attacks.transcript import Transcript
from tempo.attacks.truth import Truth
from tempo.fleet import ProcessWorker
from tempo.session import Session


@contextmanager
def recorded(folder: Path, *, workers: int = 1, **options: Any) -> Iterator[Session]:
    """folder: gets worker-0, worker-1, ... and truth. options: settings of the session, such as scheme."""
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    crew = [
        ProcessWorker(f"worker-{i}", threads=threads, record=folder / f"worker-{i}") for i in range(workers)
    ]
    with Session(crew, unsafe_truth=folder / "truth", **options) as session:
        yield session


def transcript_of(folder: Path) -> Transcript:
    """What all workers of a recorded session saw together."""
    return Transcript.read(*sorted(folder.glob("worker-*")))


def truth_of(folder: Path) -> Truth:
    return Truth(folder / "truth")
