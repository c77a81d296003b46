"""Requests that wait at the same time run as one batch.

Products with few rows stay in the TEE (setting `min_size`), and each product that is sent costs an encoding
of its weight, however many rows it has: a protected model serves one large batch for little more than a small
one. While a batch runs, the next one gathers; what waits is bounded.

Rows of a batch share a precision: what is below some 16 eps of the largest row of its product counts as
zero, and mixing rounds every row by about as much. Bound what clients send, each value to the range of the
data, before it comes here: one who posts rows of 1e9 would spoil the answers of the others. And a client
chooses rows of a batch: to a worker it colludes with they are known plaintext. Where clients do not trust
each other, let a batch hold those of one of them, or use scheme "shares".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar, final

from tempo.errors import ServiceBusy, UsageError

Q = TypeVar("Q")
R = TypeVar("R")


@final
class Batcher(Generic[Q, R]):
    """For one event loop. The model runs in a thread of its own, so the loop goes on answering.

        async with Batcher(classify, most=128, wait_s=0.01) as batcher:
            reply = await batcher.submit(request)

    run: from the requests of a batch to their replies, in order. Gradients are off by thread: it says so
    itself. most: requests in a batch. wait_s: how long the first of a batch waits for more, in seconds.
    waiting: requests that may wait; the next one is refused.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Q]], Sequence[R]],
        *,
        most: int = 64,
        wait_s: float = 0.005,
        waiting: int = 1024,
    ) -> None:
        if most < 1 or waiting < 1 or not 0 <= wait_s <= 60:
            raise UsageError(
                f"a batcher with most = {most}, waiting = {waiting}, wait_s = {wait_s:g}: expected 1 or more "
                f"requests, and 0 to 60 seconds"
            )
        self._run = run
        self._most = most
        self._wait_s = wait_s
        self._waiting = waiting
        self._queue: asyncio.Queue[tuple[Q, asyncio.Future[R]] | None] = asyncio.Queue()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tempo-serving")
        self._task: asyncio.Task[None] | None = None
        self._open = False
        #: Batches that ran, and requests in them.
        self.batches = self.requests = 0

    async def __aenter__(self) -> Self:
        self._open = True
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def submit(self, request: Q) -> R:
        """The reply. Raises ServiceBusy where too many wait, or where the batcher was closed, and whatever
        `run` raised for the batch."""
        if not self._open:
            raise ServiceBusy("the service is closing: ask another one")
        if self._queue.qsize() >= self._waiting:
            raise ServiceBusy(f"{self._waiting} requests wait already: try again later")
        reply: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((request, reply))
        return await reply

    async def close(self) -> None:
        """Take no more, answer what waits, and end."""
        if self._open:
            self._open = False
            self._queue.put_nowait(None)
        if self._task is not None:
            await self._task
        self._pool.shutdown()

    async def _serve(self) -> None:
        more = True
        while more:
            batch, more = await self._gather()
            # Whoever has gone away meanwhile is not computed for.
            batch = [(request, reply) for request, reply in batch if not reply.done()]
            if batch:
                await self._answer(batch)

    async def _gather(self) -> tuple[list[tuple[Q, asyncio.Future[R]]], bool]:
        """The next batch, and whether others may follow."""
        clock = asyncio.get_running_loop().time
        entry = await self._queue.get()
        end = clock() + self._wait_s
        batch: list[tuple[Q, asyncio.Future[R]]] = []
        while entry is not None:
            batch.append(entry)
            if len(batch) == self._most:
                return batch, True
            try:
                entry = self._queue.get_nowait()
            except asyncio.QueueEmpty:
                left = end - clock()
                if left <= 0:
                    return batch, True
                try:
                    entry = await asyncio.wait_for(self._queue.get(), left)
                except TimeoutError:
                    return batch, True
        return batch, False

    async def _answer(self, batch: list[tuple[Q, asyncio.Future[R]]]) -> None:
        requests = [request for request, _ in batch]
        try:
            replies = await asyncio.get_running_loop().run_in_executor(self._pool, self._run, requests)
            if len(replies) != len(batch):
                raise UsageError(f"a batch of {len(batch)} requests got {len(replies)} replies")
        except Exception as error:
            for _, reply in batch:
                if not reply.done():
                    reply.set_exception(error)
            return
        self.batches += 1
        self.requests += len(batch)
        for (_, reply), value in zip(batch, replies, strict=True):
            if not reply.done():
                reply.set_result(value)
