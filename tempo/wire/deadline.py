"""Deadlines: points of time.monotonic() that hold over a whole exchange, not over each call in it."""

from __future__ import annotations

import time

from tempo.errors import WorkerLost


class DeadlinePassed(WorkerLost):
    """The peer is there, but a frame took longer than it may. The connection is out of step."""


def remaining(deadline: float) -> float:
    """Seconds left, as a socket's time-out. Raises TimeoutError where there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
