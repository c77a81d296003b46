"""One connection, from Hello to the end. Requests are hostile until checked: a bad one is refused or
ends this connection, and never the process. While one is computed the next arrives (`ahead.py`); answers
leave in the order of the requests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from tempo.errors import ProtocolError, WorkerLost
from tempo.wire import Compute, Evicted, Hello, Message, Refused, Reply, Result, Ring, Welcome, limits
from tempo.worker.ahead import Ahead, Connection, Work, reply_deadline
from tempo.worker.executor import Executor, Gone

#: Sends a computed result. The one thing that a lying worker does differently.
Answer = Callable[[Connection, Compute | Ring, Tensor], None]


def send_result(channel: Connection, request: Compute | Ring, result: Tensor) -> None:
    """The honest answer."""
    channel.send(Result(request.job), (result,), deadline=reply_deadline(result.nbytes))


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
    ahead = Ahead(channel, executor)
    try:
        if _greet(channel, hello_s, executor):
            ahead.start()
            while not stopping() and (item := ahead.next()) is not None:
                _answer(channel, executor, item, answer)
                del item  # its operands
                ahead.answered()
        return "closed"
    except ProtocolError as error:
        _refuse_and_leave(channel)
        return f"closed: it broke the protocol: {error}"
    except WorkerLost as error:  # the master closed, stalled or died: nobody is left to tell
        return f"closed: {error}"
    finally:
        ahead.stop()


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


def _answer(channel: Connection, executor: Executor, item: Work | Reply, answer: Answer) -> None:
    if not isinstance(item, Work):
        return _reply(channel, item)
    request = item.request
    try:
        result = executor.run(request, item.shipped, item.empty)
    except Gone as gone:
        return _reply(channel, Evicted(request.job, gone.ids))
    except Exception as error:  # whatever torch raises: a job never ends the process
        executor.discard(request)  # a refusal promises that nothing of the job was stored
        full = isinstance(error, torch.OutOfMemoryError | MemoryError)
        return _reply(channel, Refused("memory" if full else "failed", request.job))
    finally:
        item.shipped.clear()
    answer(channel, request, result)


def _reply(channel: Connection, message: Message) -> None:
    channel.send(message, deadline=reply_deadline(0))


def _refuse_and_leave(channel: Connection) -> None:
    with contextlib.suppress(WorkerLost):  # it may not wait to be told
        _reply(channel, Refused("malformed"))
        channel.leave()
