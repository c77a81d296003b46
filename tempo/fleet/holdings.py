"""What the master believes that one worker has in memory. Thread-safe."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import final


@final
class Holdings:
    """held: later jobs may refer to it. stored: the worker may have it in memory, referred to or not.
    coming: an open job ships it, and jobs behind that one may refer to it.

    What a job ships is stored from the moment it is sent: a release while the job is open reaches the
    worker behind it. It becomes held once the job is answered, unless it was released or distrusted
    meanwhile.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the three below
        self._held: set[int] = set()
        self._stored: set[int] = set()
        self._coming: dict[int, object] = {}  # by id: the sending that ships it
        # Filled by finalizers, which may run while any lock is held: appending takes none.
        self._released: deque[tuple[int, ...]] = deque()

    def __contains__(self, operand: int) -> bool:
        with self._lock:
            return operand in self._held

    def expects(self, operand: int) -> bool:
        """A job that is sent now may refer to it."""
        with self._lock:
            return operand in self._held or operand in self._coming

    def sending(self, sending: object, operands: Iterable[int]) -> None:
        """A job that ships these, to be kept, is about to be sent. `sending` stands for this try of it."""
        coming = dict.fromkeys(operands, sending)
        with self._lock:
            self._stored |= coming.keys()
            self._coming |= coming

    def arrived(self, sending: object) -> None:
        """The job was answered."""
        with self._lock:
            self._held |= self._end(sending)

    def failed(self, sending: object) -> None:
        """The job was not done, or it is not known whether: its operands stay stored."""
        with self._lock:
            self._end(sending)

    def _end(self, sending: object) -> set[int]:
        """What that job shipped and nobody released or distrusted since."""
        ended = {operand for operand, by in self._coming.items() if by is sending}
        for operand in ended:
            del self._coming[operand]
        return ended

    def evicted(self, operands: Iterable[int]) -> None:
        gone = set(operands)
        with self._lock:
            self._held -= gone
            self._stored -= gone
            self._drop_coming(gone)

    def _drop_coming(self, operands: Iterable[int]) -> None:
        for operand in operands:
            self._coming.pop(operand, None)

    def release(self, operands: tuple[int, ...]) -> None:
        """No later job refers to these. Takes no lock: finalizers call this."""
        self._released.append(operands)

    def distrust(self) -> None:
        """Count on nothing that the worker holds, and have it drop that."""
        with self._lock:
            self._held.clear()
            self._coming.clear()
            self._released.append(tuple(self._stored))

    def lose(self) -> None:
        """The worker is gone, with all it had."""
        with self._lock:
            self._held.clear()
            self._coming.clear()
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
            self._drop_coming(ids)
        return ids
