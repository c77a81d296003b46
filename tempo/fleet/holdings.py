"""What the master believes that one worker has in memory. Thread-safe."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import final


@final
class Holdings:
    """held: later jobs may refer to it. stored: the worker may have it in memory, referred to or not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two below
        self._held: set[int] = set()
        self._stored: set[int] = set()
        # Filled by finalizers, which may run while any lock is held: appending takes none.
        self._released: deque[tuple[int, ...]] = deque()

    def __contains__(self, operand: int) -> bool:
        with self._lock:
            return operand in self._held

    def add(self, operands: Iterable[int]) -> None:
        kept = set(operands)
        with self._lock:
            self._held |= kept
            self._stored |= kept

    def evicted(self, operands: Iterable[int]) -> None:
        gone = set(operands)
        with self._lock:
            self._held -= gone
            self._stored -= gone

    def release(self, operands: tuple[int, ...]) -> None:
        """No later job refers to these. Takes no lock: finalizers call this."""
        self._released.append(operands)

    def distrust(self) -> None:
        """Count on nothing that the worker holds, and have it drop that."""
        with self._lock:
            self._held.clear()
            self._released.append(tuple(self._stored))

    def lose(self) -> None:
        """The worker is gone, with all it had."""
        with self._lock:
            self._held.clear()
            self._stored.clear()

    def forget_released(self) -> None:
        self._released.clear()

    @property
    def pending(self) -> int:
        """Releases that the worker was not told yet."""
        return len(self._released)

    def take_released(self) -> list[int]:
        """What the worker is to be told to drop."""
        ids: list[int] = []
        with self._lock:
            while self._released:
                ids += (one for one in self._released.popleft() if one in self._stored)
            self._held.difference_update(ids)
            self._stored.difference_update(ids)
        return ids
