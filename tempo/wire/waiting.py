"""Waiting for a socket, in poll."""

from __future__ import annotations

import select
import socket
from math import ceil

#: What poll takes is an int of milliseconds: a longer wait is cut into such.
LONGEST_S = 3600.0


def poll_for(sock: socket.socket, event: int) -> select.poll:
    poll = select.poll()
    poll.register(sock, event)
    return poll


def wait(poll: select.poll, seconds: float) -> bool:
    """Whether it happened within that time."""
    return bool(poll.poll(ceil(1000 * min(seconds, LONGEST_S))))
