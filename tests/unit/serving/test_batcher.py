"""Batches: what runs together, what is refused, and what becomes of requests when something goes wrong."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tempo.errors import ServiceBusy, UsageError
from tempo.serving import Batcher


class Model:
    """Doubles numbers, remembers batches, and holds still while `gate` is closed."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.threads = set()

    def __call__(self, requests):
        self.threads.add(threading.current_thread())
        self.batches.append(list(requests))
        assert self.gate.wait(20)
        if "bad" in requests:
            raise ZeroDivisionError("a bad request")
        return [2 * request for request in requests]


async def started(model, count):
    while len(model.batches) < count:
        await asyncio.sleep(0.001)


def test_what_waits_together_runs_together_in_order():
    async def main():
        model = Model()
        async with Batcher(model, most=4, wait_s=1.0) as batcher:
            replies = await asyncio.gather(*(batcher.submit(i) for i in range(8)))
        assert replies == [2 * i for i in range(8)]
        assert model.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert (batcher.batches, batcher.requests) == (2, 8)
        assert len(model.threads) == 1
        assert threading.current_thread() not in model.threads

    asyncio.run(main())


def test_a_lone_request_waits_no_longer_than_said():
    async def main():
        model = Model()
        async with Batcher(model, most=64, wait_s=0.0) as batcher:
            assert await asyncio.wait_for(batcher.submit(3), 20) == 6

    asyncio.run(main())


def test_the_next_batch_gathers_while_one_runs():
    async def main():
        model = Model()
        model.gate.clear()
        async with Batcher(model, most=8, wait_s=0.0) as batcher:
            first = asyncio.create_task(batcher.submit(0))
            await started(model, 1)
            others = [asyncio.create_task(batcher.submit(i)) for i in range(1, 6)]
            await asyncio.sleep(0)
            model.gate.set()
            assert await asyncio.gather(first, *others) == [0, 2, 4, 6, 8, 10]
        assert model.batches == [[0], [1, 2, 3, 4, 5]]

    asyncio.run(main())


def test_too_many_are_refused_and_those_that_wait_are_answered():
    async def main():
        model = Model()
        model.gate.clear()
        async with Batcher(model, most=1, wait_s=0.0, waiting=2) as batcher:
            tasks = [asyncio.create_task(batcher.submit(0))]
            await started(model, 1)
            tasks += [asyncio.create_task(batcher.submit(i)) for i in (1, 2)]
            await asyncio.sleep(0)
            with pytest.raises(ServiceBusy, match="2 requests wait already"):
                await batcher.submit(3)
            model.gate.set()
            assert await asyncio.gather(*tasks) == [0, 2, 4]

    asyncio.run(main())


def test_closing_answers_what_waits_and_takes_no_more():
    async def main():
        model = Model()
        model.gate.clear()
        batcher = Batcher(model, most=1, wait_s=0.0)
        with pytest.raises(ServiceBusy):
            await batcher.submit(0)
        async with batcher:
            tasks = [asyncio.create_task(batcher.submit(i)) for i in range(3)]
            await started(model, 1)
            closing = asyncio.create_task(batcher.close())
            await asyncio.sleep(0)
            with pytest.raises(ServiceBusy, match="closing"):
                await batcher.submit(9)
            model.gate.set()
            await closing
            assert await asyncio.gather(*tasks) == [0, 2, 4]
        assert not any(thread.is_alive() for thread in model.threads)

    asyncio.run(main())


def test_an_error_goes_to_its_batch_and_to_no_other():
    async def main():
        model = Model()
        async with Batcher(model, most=2, wait_s=1.0) as batcher:
            first = await asyncio.gather(batcher.submit(1), batcher.submit("bad"), return_exceptions=True)
            assert [type(each) for each in first] == [ZeroDivisionError] * 2
            assert await asyncio.gather(batcher.submit(1), batcher.submit(2)) == [2, 4]
        assert batcher.batches == 1

    asyncio.run(main())


def test_who_went_away_is_not_computed_for():
    async def main():
        model = Model()
        model.gate.clear()
        async with Batcher(model, most=8, wait_s=0.0) as batcher:
            first = asyncio.create_task(batcher.submit(0))
            await started(model, 1)
            gone, stays = (asyncio.create_task(batcher.submit(i)) for i in (1, 2))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.sleep(0)
            model.gate.set()
            assert await asyncio.gather(first, stays) == [0, 4]
        assert model.batches == [[0], [2]]

    asyncio.run(main())


def test_replies_that_do_not_match_are_an_error():
    async def main():
        async with Batcher(lambda requests: [1], most=2, wait_s=1.0) as batcher:
            with pytest.raises(UsageError, match="2 requests got 1 replies"):
                await asyncio.gather(batcher.submit(1), batcher.submit(2))

    asyncio.run(main())


@pytest.mark.parametrize("options", [{"most": 0}, {"waiting": 0}, {"wait_s": -1}, {"wait_s": 61}])
def test_settings_that_cannot_be(options):
    with pytest.raises(UsageError, match="expected 1 or more"):
        Batcher(list, **options)
