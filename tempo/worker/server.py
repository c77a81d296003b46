"""One connection, from Hello to the end. Requests are hostile until checked: a bad one is refused or
ends this connection, and never the process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from tempo.errors import ProtocolError, UsageError, WorkerLost
from tempo.wire import (
    DTYPES,
    Bye,
    Channel,
    Compute,
    Evicted,
    Hello,
    Message,
    Refused,
    Release,
    Request,
    Result,
    Welcome,
    limits,
)
from tempo.worker.executor import Executor, TooLarge, Unsupported

Connection = Channel[Request]
#: Sends a computed result. The one thing that a lying worker does differently.
Answer = Callable[[Connection, Compute, Tensor], None]


def send_result(channel: Connection, request: Compute, result: Tensor) -> None:
    """The honest answer."""
    channel.send(Result(request.job), (result,), deadline=_deadline(result.nbytes))


def serve(
    channel: Connection,
    executor: Executor,
    answer: Answer = send_result,
    *,
    hello_s: float | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> str:
    """Serve one master until it says Bye, breaks the protocol or is gone. Returns which, for a log.

    hello_s: how long Hello may take; None: for ever. stopping: asked between two frames.
    """
    try:
        if _greet(channel, hello_s, executor):
            while not stopping() and _one(channel, executor, answer):
                pass
        return "closed"
    except ProtocolError as error:
        _refuse_and_leave(channel)
        return f"closed: it broke the protocol: {error}"
    except WorkerLost as error:  # the master closed, stalled or died: nobody is left to tell
        return f"closed: {error}"
    finally:
        channel.close()


def turn_away(channel: Connection, code: Literal["busy", "role"], hello_s: float) -> None:
    """Hear one Hello and say why it gets no further."""
    try:
        _greet(channel, hello_s, Refused(code))
    except (ProtocolError, WorkerLost):
        pass
    finally:
        channel.close()


def _greet(channel: Connection, seconds: float | None, answer: Executor | Refused) -> bool:
    """Hear Hello and say what this worker can do, or why it will not."""
    message, _ = channel.receive(None if seconds is None else time.monotonic() + seconds)
    if not isinstance(message, Hello):
        raise ProtocolError("the first message is Hello")
    if message.version != limits.VERSION:
        answer = Refused("version")
    if isinstance(answer, Refused):
        _reply(channel, answer)
        return False
    _reply(channel, Welcome(limits.VERSION, answer.dtypes))
    return True


def _one(channel: Connection, executor: Executor, answer: Answer) -> bool:
    """Handle one message; False after Bye."""
    message, _ = channel.receive(None)
    match message:
        case Compute():
            _compute(channel, executor, message, answer)
        case Release():
            executor.release(message.ids)
        case Bye():
            return False
        case Hello():
            raise ProtocolError("Hello comes once")
    return True


def _compute(channel: Connection, executor: Executor, request: Compute, answer: Answer) -> None:
    deadline = _deadline(channel.pending)
    if channel.pending != request.payload:
        raise ProtocolError(f"a payload of {channel.pending} bytes, its header says {request.payload}")
    refusal = _admit(executor, request)
    if refusal is not None:
        channel.drain(deadline=deadline)
        return _reply(channel, refusal)
    try:
        shipped = {part.id: torch.empty(part.shape, dtype=DTYPES[part.dtype]) for part in request.sent}
    except (RuntimeError, MemoryError):
        channel.drain(deadline=deadline)
        return _reply(channel, Refused("memory", request.job))
    for tensor in shipped.values():
        channel.fill(tensor, deadline=deadline)
    try:
        result = executor.run(request, shipped)
    except Exception as error:  # whatever torch raises: a job never ends the process
        executor.release(shipped)  # a refusal promises that nothing of the job was stored
        full = isinstance(error, torch.OutOfMemoryError | MemoryError)
        return _reply(channel, Refused("memory" if full else "failed", request.job))
    answer(channel, request, result)


def _admit(executor: Executor, request: Compute) -> Evicted | Refused | None:
    try:
        missing = executor.admit(request)
    except UsageError:
        return Refused("malformed", request.job)
    except TooLarge:
        return Refused("memory", request.job)
    except Unsupported:
        return Refused("unsupported", request.job)
    return Evicted(request.job, missing) if missing else None


def _reply(channel: Connection, message: Message) -> None:
    channel.send(message, deadline=_deadline(0))


def _refuse_and_leave(channel: Connection) -> None:
    with contextlib.suppress(WorkerLost):  # it may not wait to be told
        _reply(channel, Refused("malformed"))
        channel.leave()


def _deadline(payload: int) -> float:
    return time.monotonic() + limits.frame_seconds(payload)
