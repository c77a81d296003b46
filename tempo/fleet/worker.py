"""The seam between the fleet and whatever computes: spawned process, in-process device, remote host."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from tempo.errors import OperandMissing, WorkerError
from tempo.ops import AnyJob, Unverified


class OperandsEvicted(OperandMissing):
    """The worker dropped operands that the job refers to. Its connection is sound; ship them again."""

    def __init__(self, worker: str, ids: tuple[int, ...]) -> None:
        super().__init__(f"worker {worker} no longer holds operands {ids}: ship them again")
        self.ids = ids


class JobRefused(WorkerError):
    """The worker does not do this job. Its connection is sound.

    code: "memory" (too large for it), "failed" (its device), "malformed" (it found a fault in it),
    "unsupported" (it said from the start that it does not multiply such operands).
    """

    def __init__(self, worker: str, code: str) -> None:
        super().__init__(f"worker {worker} refused a job ({code})")
        self.code = code


class Worker(ABC):
    """Abstract. One thread at a time calls `connect`, `run` and `release`; `close` may come from any
    thread, at any moment and more than once."""

    #: Unique in a fleet; for logs and events.
    name: str
    #: Jobs that may be under way at once. With more than one, `begin` and `end` take the place of `run`.
    depth: int = 1

    @abstractmethod
    def connect(self) -> None:
        """Make ready for jobs; does nothing if it is. Raises WorkerLost or ProtocolError."""

    @abstractmethod
    def run(self, job: AnyJob, ship: frozenset[int], deadline: float) -> Unverified:
        """The worker's reply. Operands whose ids are in `ship` are sent, the others referred to.

        deadline: a time.monotonic(). Raises UsageError for a job that cannot be sent (nothing was),
        OperandsEvicted, JobRefused; WorkerLost and ProtocolError, after which it can only be closed.
        """

    def begin(self, job: AnyJob, ship: frozenset[int], deadline: float) -> None:
        """Send a job and do not wait for its reply. Raises as `run` does."""
        raise NotImplementedError

    def ready(self, seconds: float) -> bool:
        """Whether `end` need not wait. Takes that long at most. Raises WorkerLost."""
        raise NotImplementedError

    def end(self, deadline: float) -> Unverified:
        """The reply to the oldest job that was begun. Raises as `run` does."""
        raise NotImplementedError

    @abstractmethod
    def release(self, ids: Iterable[int], deadline: float) -> None:
        """No later job refers to these operands. Raises as `run` does."""

    @abstractmethod
    def close(self) -> None:
        """Free all it holds; a call in progress ends with WorkerLost."""

    def drop(self) -> None:
        """Give up a connection that broke. Where `retry_s` says so, `connect` may be called again."""
        self.close()

    def retry_s(self, attempt: int) -> float | None:
        """Seconds before try number `attempt` (from 0) to connect after a loss; None: it is gone for good."""
        return None

    @property
    @abstractmethod
    def bytes_sent(self) -> int: ...

    @property
    @abstractmethod
    def bytes_received(self) -> int: ...
