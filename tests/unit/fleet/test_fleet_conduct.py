"""How the fleet treats its caller: releases, interrupts, threads, closing, settings."""

import gc
import threading
import time
import weakref

import pytest
from fleet_script import Scripted, W, X, check, double, operand, product, without_tensors

from tempo.errors import UsageError, WorkerLost
from tempo.fleet import (
    Done,
    Event,
    EventKind,
    Fleet,
    FleetSettings,
    Task,
)
from tempo.ops import Job, Op


def test_release_is_sent_before_the_next_job(watch):
    w = watch(Scripted("a"), Scripted("b"))
    w.fleet.run([Task(product(keep=True), 0)], check)
    w.fleet.release(iter([1, 99]))
    assert w.workers[0].released == []
    w.run(product(3), product(3))
    assert (w.workers[0].released, w.workers[1].released) == ([[1]], [])
    assert not w.fleet.holds(1)
    assert w.fleet.holds(2)


def test_release_takes_no_lock(watch):
    """A finalizer may run while this very thread holds any lock of the fleet."""
    w = watch(Scripted("a"))
    runner = w.fleet._runners[0]
    with runner._lock, w.fleet._lock:
        w.fleet.release([1])


def test_an_interrupt_leaves_the_fleet_usable(watch):
    go = threading.Event()
    slow = Scripted("a", {1: lambda result: (go.wait(5), result)[1]})
    w = watch(slow)
    w.run(product(keep=True))

    def tasks():
        yield Task(product(5, 2), 0)
        yield Task(product(6, 2), 0)
        while len(slow.asked) < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        w.fleet.run(tasks(), check)
    go.set()
    assert isinstance(w.run(without_tensors(product()))[0], Done)
    assert len(slow.asked) == 3  # the job that was only queued was not sent
    assert w.events == []


def test_what_accept_raises_reaches_the_caller(watch):
    w = watch(Scripted("a"))

    def faulty(job, reply):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        w.run(product(), product(), accept=faulty)
    assert isinstance(w.run(product())[0], Done)


def test_a_callers_fault_reaches_the_caller_and_costs_no_worker(watch):
    w = watch(Scripted("a", {0: UsageError("float16")}))
    with pytest.raises(UsageError):
        w.run(product())
    assert w.fleet.width == 1


def test_runs_from_several_threads(watch):
    w = watch(Scripted("a", {7: double}), Scripted("b", {9: WorkerLost("x")}), Scripted("c"))
    results = []

    def work(first):
        for i in range(10):
            results.extend(w.run(product(first + i), product(first + i)))

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == 80
    assert all(isinstance(done, Done) for done in results)


def test_no_operand_or_reply_outlives_its_run(watch):
    w = watch(Scripted("a"))
    x = X.clone()
    gone = weakref.ref(x)
    w.fleet.run([Task(Job(Op.PRODUCT, operand(1, x), operand(2, W), (6,)), 0)], check)
    w.run(product(7))  # the thread has long left the first ticket
    del x
    gc.collect()
    assert gone() is None


def test_a_closed_fleet(watch):
    w = watch(Scripted("a"))
    w.fleet.close()
    w.fleet.close()
    assert w.workers[0].closed
    with pytest.raises(UsageError, match="closed"):
        w.run(product())
    assert not [t for t in threading.enumerate() if t.name.startswith("tempo-")]


def test_a_fleet_has_workers_with_names_of_their_own():
    with pytest.raises(UsageError, match="different names"):
        Fleet([Scripted("a"), Scripted("a")])
    with pytest.raises(UsageError, match="one worker or more"):
        Fleet([])


@pytest.mark.parametrize("field", ["deadline_base_s", "min_rate", "min_flops", "quarantine_s"])
def test_settings_are_positive(field):
    for value in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=field):
            FleetSettings(**{field: value})


def test_events_are_plain():
    assert repr(Event(EventKind.LOST, "a", "gone")).startswith("Event(kind=<EventKind.LOST")
