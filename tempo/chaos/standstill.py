"""Nothing advances on a reply that failed. Seen from both sides:

    the models   at the moment of a failure, parameters and optimizer are what they were when the step began
    the log      says of no failure that a checkpoint of its step, or of a later one, came before it

The second is read from the log's files with its public key alone, after the run.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, final

from tempo.chaos.training import Training
from tempo.fleet import EventKind
from tempo.trust.ledger import Entry, Kind, VerifierKey, read_verified

_FAILURES: Final = frozenset({EventKind.CHECK_FAILED.value, EventKind.PROTOCOL.value})


@final
class Standstill(logging.Handler):
    """Listens to the logger `tempo` while steps are taken. failed: the step of each failure, in order.
    advanced: failures at which a model was not what it had been when the step began."""

    def __init__(self, trainings: Iterable[Training]) -> None:
        super().__init__(logging.DEBUG)
        self._trainings = list(trainings)
        self._step = 0
        self._before = b""
        self.failed: list[int] = []
        self.advanced = 0

    def begin(self, step: int) -> None:
        self._step, self._before = step, self._digest()

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", "") in _FAILURES:
            self.failed.append(self._step)
            self.advanced += self._digest() != self._before

    def _digest(self) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        for training in self._trainings:
            for tensor in training.state():
                digest.update(tensor.numpy().tobytes())
        return digest.digest()


def log_ahead(folder: Path, key: VerifierKey, failed: Sequence[int]) -> tuple[int, int]:
    """(failures that the log holds, those of them behind a checkpoint of their step or of a later one).

    failed: the step of each failure, in order. Raises TamperedError where the log does not verify."""
    return _ahead(read_verified(folder, key).entries, failed)


def _ahead(entries: Iterable[Entry], failed: Sequence[int]) -> tuple[int, int]:
    done, entered, ahead = 0, 0, 0
    for entry in entries:
        if entry.kind is Kind.CHECKPOINT_WRITTEN:
            step = entry.fields["step"]
            assert isinstance(step, int), "a session enters steps as integers"
            done = step
        elif entry.kind is Kind.INTEGRITY_FAILURE:
            ahead += entered >= len(failed) or failed[entered] <= done
            entered += 1
    return entered, ahead
