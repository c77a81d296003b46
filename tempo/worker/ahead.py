"""Receives the next request while one is computed: at most one ahead, in a thread of its own.

- A slot is taken before a frame is read and given back when its request was answered: two requests are
  in memory at most, and a master that sends more waits in its own socket.
- A request is admitted before a byte of its payload is stored. One that does not fit beside the one
  under way is drained and refused, never waited for: the master may be waiting for us meanwhile.
- Release is obeyed at once, but spares what open requests name (see Executor).
- What ends the connection is told in its turn, after the requests before it were answered.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import final

from torch import Tensor

from tempo.errors import ProtocolError, UsageError
from tempo.memory import Pool
from tempo.ops import Allocate
from tempo.wire import (
    Bye,
    Channel,
    Compute,
    Evicted,
    Hello,
    Refused,
    Release,
    Reply,
    Request,
    Ring,
    limits,
)
from tempo.worker.executor import Executor, TooLarge, Unsupported

Connection = Channel[Request]

#: Requests in memory: one under way and one ahead.
_SLOTS = 2
#: The part of the worker's memory that may lie idle, so that requests find memory that was used before.
_IDLE = 1 / 8


@final
@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """An admitted request, what was shipped with it, by id, and where memory for its result comes from."""

    request: Compute | Ring
    shipped: dict[int, Tensor]
    empty: Allocate


@final
class Ahead:
    """`next`, `answered` and `stop` are for one thread, which sends the answers."""

    def __init__(self, channel: Connection, executor: Executor) -> None:
        self._channel = channel
        self._executor = executor
        self._pool = Pool(executor.set_aside(_IDLE))
        self._slots = threading.Semaphore(_SLOTS)
        self._items: queue.SimpleQueue[Work | Reply | BaseException | None] = queue.SimpleQueue()
        self._current: Work | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._loop, name="tempo-ahead", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def next(self) -> Work | Reply | None:
        """The next request to run, or the answer to one that is not run; None after Bye. Raises what ended
        the connection."""
        item = self._items.get()
        if isinstance(item, BaseException):
            raise item
        self._current = item if isinstance(item, Work) else None
        return item

    def answered(self) -> None:
        """The latest item is dealt with, and nothing of it is in memory any more."""
        if self._current is not None:
            self._executor.done(self._current.request)
            self._current = None
        self._channel.answers += 1
        self._slots.release()

    def stop(self) -> None:
        """Close the connection and end the thread."""
        self._stopped = True
        self._channel.close()
        self._slots.release()
        if self._thread.ident is not None:
            self._thread.join()

    def _loop(self) -> None:
        try:
            while self._slots.acquire() and not self._stopped:
                item = self._receive()
                if item is None:
                    return self._items.put(None)
                self._channel.requests += 1
                self._items.put(item)
                del item
        except BaseException as error:  # raised in the thread that serves
            self._items.put(error)

    def _receive(self) -> Work | Reply | None:
        while True:
            message, _ = self._channel.receive(None)
            match message:
                case Compute() | Ring():
                    return self._compute(message)
                case Release():
                    self._executor.release(message.ids)
                case Bye():
                    return None
                case Hello():
                    raise ProtocolError("Hello comes once")

    def _compute(self, request: Compute | Ring) -> Work | Reply:
        channel = self._channel
        deadline = reply_deadline(channel.pending)
        if channel.pending != request.payload:
            raise ProtocolError(f"a payload of {channel.pending} bytes, its header says {request.payload}")
        refusal = self._admit(request)
        if refusal is not None:
            channel.drain(deadline=deadline)
            return refusal
        try:
            shipped = {part.id: self._pool.empty(*part.memory) for part in request.sent}
        except (RuntimeError, MemoryError):
            self._executor.done(request)
            channel.drain(deadline=deadline)
            return Refused("memory", request.job)
        for part in request.sent:
            for tensor in part.places(shipped[part.id]):
                channel.fill(tensor, deadline=deadline)
        for part in request.sent:
            part.complete(shipped[part.id])
        return Work(request, shipped, self._pool.empty)

    def _admit(self, request: Compute | Ring) -> Evicted | Refused | None:
        try:
            missing = self._executor.admit(request)
        except UsageError:
            return Refused("malformed", request.job)
        except TooLarge:
            return Refused("memory", request.job)
        except Unsupported:
            return Refused("unsupported", request.job)
        return Evicted(request.job, missing) if missing else None


def reply_deadline(payload: int) -> float:
    """By when a frame of ours or of the master's that begins now must have ended."""
    return time.monotonic() + limits.frame_seconds(payload)
