"""The master's end of a connection to a worker, whatever carries it. Knows jobs, neither keys nor checks.

The worker is taken for an enemy: each reply must answer the oldest request that is open, in a shape and a
length that follow from that request alone. What it says beyond that raises ProtocolError.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count
from typing import final

from tempo.errors import ProtocolError, WorkerLost
from tempo.fleet.worker import JobRefused, OperandsEvicted
from tempo.memory import Pool
from tempo.ops import AnyJob, Unverified
from tempo.wire import (
    DTYPES,
    Bye,
    Channel,
    Compute,
    Evicted,
    Hello,
    Refused,
    Release,
    Reply,
    Result,
    Ring,
    Welcome,
    decode_reply,
    limits,
    payload,
    request_message,
)

_BYE_SECONDS = 0.2


@final
class Client:
    """One connection. Not thread-safe, except `close`."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.name = name
        self._channel: Channel[Reply] = Channel(sock, decode_reply)
        self._numbers = count(1)
        self._in_step = True
        #: What the worker said it multiplies; all, before it said anything.
        self._dtypes = frozenset(DTYPES)
        self._open: deque[tuple[Compute | Ring, AnyJob]] = deque()  # sent and not answered
        self._pool = Pool()

    @property
    def bytes_sent(self) -> int:
        return self._channel.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._channel.bytes_received

    def handshake(self, deadline: float) -> Welcome:
        with self._stepping():
            self._channel.send(Hello(limits.VERSION), deadline=deadline)
            reply, _ = self._channel.receive(deadline)
            match reply:
                case Welcome(version=limits.VERSION):
                    self._dtypes = frozenset(reply.dtypes)
                    return reply
                case Welcome() | Refused(code="version"):
                    raise ProtocolError(
                        f"worker {self.name} speaks another version of the protocol than "
                        f"{limits.VERSION}: install the same Tempo on both sides"
                    )
                case Refused(code="busy"):
                    raise WorkerLost(f"worker {self.name} has no connection free")
                case Refused(code="role"):
                    raise ProtocolError(
                        f"worker {self.name} refused our certificate: it is not a master's "
                        "(tempo worker issue --role master)"
                    )
                case _:
                    raise ProtocolError(f"worker {self.name} answered Hello with something else than Welcome")

    def run(self, job: AnyJob, ship: frozenset[int], deadline: float) -> Unverified:
        self.begin(job, ship, deadline)
        return self.end(deadline)

    def begin(self, job: AnyJob, ship: frozenset[int], deadline: float) -> None:
        """Send a job. Raises UsageError or JobRefused where it cannot be; what was begun before is not
        touched then."""
        request = request_message(job, next(self._numbers), ship)
        if isinstance(request, Compute) and not {part.dtype for part in request.parts} <= self._dtypes:
            raise JobRefused(self.name, "unsupported")
        with self._stepping():
            self._channel.send(request, payload(job, ship), deadline=deadline)
            self._open.append((request, job))

    def ready(self, seconds: float) -> bool:
        """Whether a reply has begun to arrive, or the end. Waits that long at most."""
        return self._channel.ready(seconds)

    def end(self, deadline: float) -> Unverified:
        """The reply to the oldest job that was begun. Replies come in the order of the jobs: one to another
        request, though it be open, breaks the protocol."""
        request, job = self._open.popleft()
        number = request.job
        with self._stepping():
            reply, length = self._channel.receive(deadline)
            match reply:
                case Result(job=answered) if answered == number:
                    return self._result(job, length, deadline)
                case Evicted(job=answered) if answered == number:
                    raise self._evicted(request, reply.ids)
                case Refused(code="unsupported"):
                    raise ProtocolError(f"worker {self.name} cannot do what it said it could")
                case Refused(job=answered) if answered == number:
                    raise JobRefused(self.name, reply.code)
                case _:
                    raise ProtocolError(f"worker {self.name} answered with something else than was asked")

    def release(self, ids: Iterable[int], deadline: float) -> None:
        with self._stepping():
            every = tuple(ids)
            for first in range(0, len(every), limits.MAX_IDS):
                some = every[first : first + limits.MAX_IDS]
                self._channel.send(Release(some), deadline=deadline)

    def close(self) -> None:
        """From any thread. Says Bye where no frame is under way."""
        if self._in_step and not self._open:
            with contextlib.suppress(WorkerLost, ProtocolError):
                self._channel.send(Bye(), deadline=time.monotonic() + _BYE_SECONDS)
        self._in_step = False
        self._channel.close()

    def abandon(self) -> None:
        """For a forked child: drop the handle, leave the connection to the parent."""
        self._channel.abandon()

    def _result(self, job: AnyJob, length: int, deadline: float) -> Unverified:
        expected = job.result_nbytes
        if length != expected:
            raise ProtocolError(f"worker {self.name} announced {length} bytes of result, expected {expected}")
        result = self._pool.empty(job.result_shape, job.result_dtype)
        self._channel.fill(result, deadline=deadline)
        return Unverified(result)

    def _evicted(self, request: Compute | Ring, ids: tuple[int, ...]) -> OperandsEvicted | ProtocolError:
        # Only what was referred to can be missing. Without this rule a worker could make the master
        # ship the same operand for ever.
        sent = {part.id for part in request.sent}
        referred = {part.id for part in request.parts} - sent
        if set(ids) <= referred:
            return OperandsEvicted(self.name, ids)
        return ProtocolError(f"worker {self.name} claims to have dropped operands that it was just sent")

    @contextlib.contextmanager
    def _stepping(self) -> Iterator[None]:
        """Marks the stream out of step unless the exchange inside ended between two frames."""
        if not self._in_step:
            raise WorkerLost(f"the connection to worker {self.name} is closed")
        self._in_step = False
        try:
            yield
        except (OperandsEvicted, JobRefused):
            self._in_step = True
            raise
        self._in_step = True
