"""What the fleet does about each thing that a worker does."""

import time
from dataclasses import replace

import pytest
import torch
from fleet_script import Scripted, W, X, check, double, operand, product, without_tensors

from tempo.errors import NoWorkersLeft, OperandMissing, ProtocolError, WorkerLost
from tempo.fleet import (
    Done,
    EventKind,
    Failed,
    JobRefused,
    OperandsEvicted,
    Task,
)
from tempo.ops import Op, compute
from tempo.wire import DeadlinePassed


def test_tasks_are_spread_by_lane_and_collected_in_order(watch):
    w = watch(Scripted("a"), Scripted("b"))
    tasks = [Task(product(x=10 + i), i % 3) for i in range(6)]
    results = w.fleet.run(tasks, check)
    assert [done.worker for done in results] == ["a", "b", "a", "a", "b", "a"]
    assert all(torch.equal(done.value, results[0].value) for done in results)
    assert w.fleet.stats.jobs == {"a": 4, "b": 2}
    assert w.events == []


def test_tasks_leave_before_the_next_one_is_made(watch):
    w = watch(Scripted("a"))

    def tasks():
        yield Task(product(), 0)
        assert w.workers[0].busy.wait(5)
        yield Task(product(), 0)

    assert len(w.fleet.run(tasks(), check)) == 2


def test_only_what_is_missing_is_shipped(watch):
    w = watch(Scripted("a"))
    job = product(keep=True)
    w.run(job)
    w.run(without_tensors(job))
    w.run(replace(job, left=operand(3, X)))
    assert [ship for _, ship in w.workers[0].asked] == [{1, 2}, set(), {3}]
    assert w.fleet.holds(1)
    assert not w.fleet.holds(3)


def test_a_job_without_tensors_goes_where_its_operands_are(watch):
    w = watch(Scripted("a"), Scripted("b"))
    first, second = product(1, 2, keep=True), product(3, 4, keep=True)
    w.run(first, second)
    again = w.run(without_tensors(second), without_tensors(first))
    assert [done.worker for done in again] == ["b", "a"]


def test_nobody_holds_the_operand(watch):
    w = watch(Scripted("a"), Scripted("b"))
    (failed,) = w.run(without_tensors(product()))
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, OperandMissing)


@pytest.mark.security
def test_a_false_reply_is_discarded_redone_and_its_worker_quarantined(watch):
    w = watch(Scripted("a", {0: double}), Scripted("b"))
    (done,) = w.run(product())
    assert (done.worker, w.fleet.width, w.fleet.stats.retries) == ("b", 1, 1)
    assert torch.equal(done.value, compute(Op.PRODUCT, X, W, (6,)))
    assert w.kinds == [
        (EventKind.CHECK_FAILED, "a"),
        (EventKind.QUARANTINED, "a"),
        (EventKind.RETRIED, "b"),
    ]
    assert w.workers[0].closed == 0


@pytest.mark.security
def test_what_a_quarantined_worker_held_is_lost_and_freed_when_it_returns(watch):
    w = watch(Scripted("a", {1: double, 3: double}), Scripted("b"), quarantine_s=0.2)
    job = product(keep=True)
    w.run(job)
    (failed,) = w.run(without_tensors(job))
    assert isinstance(failed.error, OperandMissing)
    assert not w.fleet.holds(1)
    assert w.run(product())[0].worker == "b"
    time.sleep(0.25)
    assert w.fleet.width == 2
    assert w.run(product())[0].worker == "a"
    assert (EventKind.PROBATION, "a") in w.kinds
    assert w.workers[0].released == [[1, 2]]
    # Its second lie costs it twice the time.
    assert w.run(product())[0].worker == "b"
    time.sleep(0.25)
    assert w.fleet.width == 1
    time.sleep(0.2)
    assert w.fleet.width == 2
    assert [e.detail[:14] for e in w.events if e.kind is EventKind.QUARANTINED] == [
        "not used for 0",
        "not used for 0",
    ]


@pytest.mark.security
def test_every_worker_lies(watch):
    w = watch(Scripted("a", {0: double}), Scripted("b", {0: double}))
    (failed,) = w.run(product())
    assert isinstance(failed.error, NoWorkersLeft)
    assert isinstance(w.run(product())[0].error, NoWorkersLeft)


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (WorkerLost("gone"), [EventKind.LOST]),
        (DeadlinePassed("late"), [EventKind.DEADLINE]),
        (ProtocolError("odd"), [EventKind.PROTOCOL, EventKind.QUARANTINED]),
    ],
)
def test_a_worker_that_breaks_is_dropped_for_good(watch, error, kinds):
    w = watch(Scripted("a", {0: error}), Scripted("b"), quarantine_s=0.01)
    done = w.run(product(1), product(2), product(3))
    assert [d.worker for d in done] == ["b", "b", "b"]
    assert [kind for kind, name in w.kinds if name == "a"] == kinds
    time.sleep(0.05)
    assert w.fleet.width == 1
    assert w.workers[0].closed == 1


def test_a_worker_that_does_not_start_is_one_less(watch):
    w = watch(Scripted("a", connect=WorkerLost("no hello")), Scripted("b"))
    assert w.run(product())[0].worker == "b"
    assert (EventKind.LOST, "a") in w.kinds


def test_nobody_starts(watch):
    w = watch(Scripted("a", connect=ProtocolError("version")))
    assert isinstance(w.run(product())[0].error, NoWorkersLeft)


def test_an_evicted_operand_is_shipped_again_to_the_same_worker(watch):
    w = watch(Scripted("a", {1: OperandsEvicted("a", (1,)), 2: OperandsEvicted("a", (2,))}))
    w.run(product(keep=True))
    assert isinstance(w.run(product(keep=True))[0], Done)
    assert [ship for _, ship in w.workers[0].asked] == [{1, 2}, set(), {1}, {1, 2}]
    assert w.kinds == [(EventKind.EVICTED, "a")] * 2
    assert w.fleet.stats.retries == 0


def test_an_evicted_operand_that_only_the_worker_had_is_missing(watch):
    w = watch(Scripted("a", {1: OperandsEvicted("a", (1,))}), Scripted("b"))
    job = product(keep=True)
    w.run(job)
    (failed,) = w.run(without_tensors(job))
    assert isinstance(failed.error, OperandMissing)
    assert not w.fleet.holds(1)
    assert w.fleet.holds(2)


@pytest.mark.parametrize(("code", "width"), [("memory", 2), ("failed", 1), ("malformed", 1)])
def test_a_refused_job_is_redone_elsewhere(watch, code, width):
    w = watch(Scripted("a", {0: JobRefused("a", code)}), Scripted("b"))
    assert w.run(product())[0].worker == "b"
    assert w.kinds[0] == (EventKind.REFUSED, "a")
    assert w.fleet.width == width


def test_a_job_that_everybody_refuses(watch):
    w = watch(*(Scripted(name, {0: JobRefused(name, "memory")}) for name in "ab"))
    assert isinstance(w.run(product())[0].error, NoWorkersLeft)
    assert isinstance(w.run(product())[0], Done)
