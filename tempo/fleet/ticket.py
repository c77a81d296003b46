"""One try of one job on one worker."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, final

from tempo.errors import WorkerError
from tempo.fleet.latch import Latch
from tempo.ops import AnyJob, Unverified

if TYPE_CHECKING:
    from tempo.fleet.runner import Runner


class NotTried(WorkerError):
    """The worker went out of use, or its run was given up, before it saw the job."""


@final
class Ticket:
    """One try of one job. The caller waits on `done`, then reads `outcome`."""

    __slots__ = ("abandoned", "alone", "done", "dropped", "job", "outcome", "runner", "ship")

    def __init__(self, job: AnyJob, runner: Runner, abandoned: threading.Event) -> None:
        self.job = job
        self.runner = runner
        self.abandoned = abandoned  # shared by the tickets of one run
        self.done = Latch()
        self.dropped = False  # another worker was faster
        self.alone = False  # it did not fit beside another job: send it when none is open
        self.ship: frozenset[int] = frozenset()  # operands that the worker said it had not
        self.outcome: Unverified | BaseException | None = None
