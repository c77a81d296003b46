"""A round over one fleet, fed by hand: for a caller who keeps several fleets busy at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar, final

from tempo.fleet.dispatch import Dispatch
from tempo.fleet.task import Done, Failed, Task
from tempo.fleet.ticket import Ticket
from tempo.ops import AnyJob

T = TypeVar("T")
J = TypeVar("J", bound=AnyJob)


@final
class Round(Generic[J, T]):
    """`place` hands a task to a worker and does not wait, `collect` waits for the oldest one. For the thread
    of its caller alone. To be ended by `abandon` where not all was collected."""

    def __init__(self, dispatch: Dispatch[J, T], flush: Callable[[], None]) -> None:
        self._dispatch = dispatch
        self._flush = flush
        self._waiting: deque[tuple[Task[J], Ticket | Failed]] = deque()

    def __len__(self) -> int:
        """Tasks that were placed and not collected."""
        return len(self._waiting)

    def place(self, task: Task[J]) -> None:
        self._waiting.append((task, self._dispatch.place(task)))

    def collect(self) -> Done[T] | Failed:
        """The outcome of the oldest task: redone elsewhere until one reply is accepted."""
        outcome = self._dispatch.collect(*self._waiting[0])
        self._waiting.popleft()  # not before: an interrupt leaves it to `abandon`
        return outcome

    def abandon(self) -> None:
        """Give up what is under way; nothing if all was collected."""
        if self._waiting:
            self._dispatch.abandon()
            self._waiting.clear()
        self._flush()
