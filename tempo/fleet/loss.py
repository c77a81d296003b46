"""What the end of a connection says about its worker."""

from __future__ import annotations

from collections.abc import Iterator

from tempo.errors import ProtocolError, WorkerError, WorkerLost
from tempo.fleet.settings import EventKind
from tempo.wire import DeadlinePassed, TlsRefused, Why


def comes_back(error: BaseException, *, met: bool) -> bool:
    """Whether to try again. met: the worker was connected once, so it is the one that the owner named.

    What breaks TLS may be anybody on the way: one changed bit is enough. So a worker is lost by it, and not
    closed for good. A verdict on certificates, or no TLS at all, is a fault of the settings at the first
    connection, which no waiting mends. What breaks the protocol within TLS is the worker's own doing.
    """
    if isinstance(error, TlsRefused):
        return met or error.why is Why.OTHER
    return isinstance(error, WorkerLost)


def told(error: BaseException, *, met: bool) -> Iterator[tuple[EventKind, str]]:
    """Kind and detail of the events that follow from it."""
    match error:
        case DeadlinePassed():
            yield EventKind.DEADLINE, "it missed its deadline and is dropped"
        case ProtocolError() if not comes_back(error, met=met):
            yield EventKind.PROTOCOL, str(error)
            yield EventKind.QUARANTINED, "closed for good"
        case WorkerError():
            yield EventKind.LOST, str(error)
        case _:
            yield EventKind.LOST, f"it could not be reached ({type(error).__name__})"
