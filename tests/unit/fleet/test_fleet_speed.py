"""Rows by speed, hedging of stragglers, joining and leaving."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from tempo.errors import IntegrityError, UsageError
from tempo.fleet import DeviceWorker, Done, EventKind, Failed, Fleet, FleetSettings, Task, Worker
from tempo.ops import Job, Op, Operand, product

SETTINGS = FleetSettings(hedge_least_s=0.1, hedge_factor=3.0)


class Slow(Worker):
    """An honest worker that takes its time: `pause` seconds a job, or until it is let go."""

    def __init__(self, name, pause=0.0):
        self.name = name
        self.pause = pause
        self.go = threading.Event()
        self._inner = DeviceWorker("cpu", name=name)

    def connect(self):
        self._inner.connect()

    def run(self, job, ship, deadline):
        self.go.wait(self.pause)
        return self._inner.run(job, ship, deadline)

    def release(self, ids, deadline):
        self._inner.release(ids, deadline)

    def close(self):
        self.go.set()
        self._inner.close()

    bytes_sent = property(lambda self: self._inner.bytes_sent)
    bytes_received = property(lambda self: self._inner.bytes_received)


def job(number, rows=64):
    x, w = torch.randn(rows, 8), torch.randn(1, 8, 8)
    return Job(
        Op.PRODUCT,
        Operand(2 * number, (rows, 8), torch.float32, x),
        Operand(2 * number + 1, (1, 8, 8), torch.float32, w),
        (rows,),
    )


def accept(job, reply):
    result = reply.open_for_check()
    if not torch.allclose(result, product(job.left.tensor, job.right.tensor, job.rows)):
        raise IntegrityError("wrong product")
    return result


def test_a_straggler_is_hedged_by_an_idle_worker():
    events = []
    slow, quick = Slow("slow"), Slow("quick")
    with Fleet([slow, quick], SETTINGS, events.append) as fleet:
        fleet.run([Task(job(i), i) for i in range(4)], accept)
        slow.pause = 30.0
        start = time.monotonic()
        results = fleet.run([Task(job(10), 0), Task(job(11), 1)], accept)
        assert time.monotonic() - start < 10
        assert [r.worker for r in results] == ["quick", "quick"]
        assert [e.worker for e in events if e.kind is EventKind.HEDGED] == ["quick"]
        # While it lags it gets nothing more.
        results = fleet.run([Task(job(20 + i), i) for i in range(4)], accept)
        assert {r.worker for r in results} == {"quick"}
        slow.go.set()
        slow.pause = 0.0


@pytest.mark.security
def test_a_hedge_that_lies_does_not_win():
    class Liar(Slow):
        def run(self, job, ship, deadline):
            reply = super().run(job, ship, deadline)
            reply.open_for_check().add_(1)
            return reply

    events = []
    slow, liar = Slow("slow", pause=0.6), Liar("liar")
    with Fleet([slow, liar], SETTINGS, events.append) as fleet:
        (result,) = fleet.run([Task(job(1), 0)], accept)
        assert isinstance(result, Done)
        assert result.worker == "slow"
        kinds = [e.kind for e in events if e.worker == "liar"]
        assert EventKind.CHECK_FAILED in kinds
        assert EventKind.QUARANTINED in kinds


def test_a_late_worker_alone_is_waited_for():
    with Fleet([Slow("only", pause=0.4)], SETTINGS) as fleet:
        (result,) = fleet.run([Task(job(1), 0)], accept)
        assert result.worker == "only"


def test_speeds_follow_what_workers_do():
    with Fleet([Slow("slow", pause=0.02), Slow("quick")], FleetSettings()) as fleet:
        assert fleet.speeds == [1.0, 1.0]
        fleet.run([Task(job(i, rows=512), i) for i in range(20)], accept)
        slow, quick = fleet.speeds
        assert quick > 2 * slow


def test_workers_join_and_leave():
    with Fleet([Slow("a")], SETTINGS) as fleet:
        fleet.add(Slow("b"))
        results = fleet.run([Task(job(i), i) for i in range(4)], accept)
        assert {r.worker for r in results} == {"a", "b"}
        with pytest.raises(UsageError, match="named b already"):
            fleet.add(Slow("b"))
        fleet.remove("a")
        assert fleet.width == 1
        results = fleet.run([Task(job(10 + i), i) for i in range(4)], accept)
        assert {r.worker for r in results} == {"b"}
        assert fleet.stats.jobs == {"a": 2, "b": 6}
        with pytest.raises(UsageError, match="no worker is named 'a'"):
            fleet.remove("a")
        fleet.remove("b")
        (result,) = fleet.run([Task(job(20), 0)], accept)
        assert isinstance(result, Failed)


def test_a_worker_may_leave_with_a_job_under_way():
    slow = Slow("slow", pause=0.3)
    with Fleet([slow, Slow("other")], FleetSettings()) as fleet:
        out = []
        thread = threading.Thread(target=lambda: out.extend(fleet.run([Task(job(1), 0)], accept)))
        thread.start()
        time.sleep(0.1)
        fleet.remove("slow")
        thread.join(10)
        assert isinstance(out[0], Done)
