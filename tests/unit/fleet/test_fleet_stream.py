"""Outcomes as they come: order, the window, and a consumer that stops in the middle."""

import threading
import time
from contextlib import closing

import pytest
from fleet_script import Scripted, check, double, product

from tempo.errors import UsageError, WorkerLost
from tempo.fleet import Done, EventKind, Failed, Task


def tasks(number, pulled=None, lanes=2):
    for i in range(number):
        if pulled is not None:
            pulled.append(i)
        yield Task(product(x=100 + i), i % lanes)


def test_outcomes_come_in_order_and_before_the_last_task_is_made(watch):
    w = watch(Scripted("a"), Scripted("b"))
    pulled, at = [], []
    with closing(w.fleet.stream(tasks(10, pulled), check, window=3)) as stream:
        for done in stream:
            assert isinstance(done, Done)
            at.append((done.worker, len(pulled)))
    assert [worker for worker, _ in at] == ["a", "b"] * 5
    assert [count for _, count in at] == [3, 4, 5, 6, 7, 8, 9, 10, 10, 10]


def test_the_first_outcome_comes_while_a_later_job_is_under_way(watch):
    go = threading.Event()
    w = watch(Scripted("a"), Scripted("b", {0: lambda result: (go.wait(10), result)[1]}))
    with closing(w.fleet.stream(tasks(2), check)) as stream:
        assert next(stream).worker == "a"
        assert not go.is_set()
        go.set()
        assert next(stream).worker == "b"
        assert next(stream, None) is None


def test_a_consumer_that_leaves_gives_up_what_was_queued(watch):
    go = threading.Event()
    slow = Scripted("a", {1: lambda result: (go.wait(10), result)[1]})
    w = watch(slow)
    with closing(w.fleet.stream(tasks(6, lanes=1), check, window=4)) as stream:
        next(stream)
    go.set()
    assert isinstance(w.run(product())[0], Done)
    assert len(slow.asked) <= 3, "queued jobs were not sent"
    assert w.events == []


def test_what_the_consumer_raises_gives_up_too_and_leaves_the_fleet_usable(watch):
    w = watch(Scripted("a"), Scripted("b"))

    def consume():
        with closing(w.fleet.stream(tasks(6), check, window=2)) as stream:
            next(stream)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert isinstance(w.run(product())[0], Done)


@pytest.mark.security
def test_faults_in_the_middle_are_redone_in_their_place(watch):
    w = watch(Scripted("a", {1: double}), Scripted("b", {2: WorkerLost("x")}), Scripted("c"))
    with closing(w.fleet.stream(tasks(12, lanes=3), check, window=6)) as stream:
        outcomes = list(stream)
    assert len(outcomes) == 12
    assert all(isinstance(done, Done) for done in outcomes)
    assert {done.worker for done in outcomes[6:]} == {"c"} or w.fleet.width == 1
    assert {kind for kind, _ in w.kinds} >= {EventKind.CHECK_FAILED, EventKind.LOST, EventKind.RETRIED}


def test_with_nobody_left_each_outcome_says_so(watch):
    w = watch(Scripted("a", {0: WorkerLost("x")}))
    assert [type(one) for one in w.fleet.stream(tasks(3), check, window=1)] == [Failed] * 3


def test_operands_are_dropped_as_outcomes_come(watch):
    import weakref

    from fleet_script import W, X, operand

    from tempo.ops import Job, Op

    w = watch(Scripted("a"))
    alive = []

    def made():
        for i in range(8):
            x = X.clone()
            alive.append(weakref.ref(x))
            yield Task(Job(Op.PRODUCT, operand(200 + i, x), operand(2, W), (6,)), 0)
            del x

    most = 0
    with closing(w.fleet.stream(made(), check, window=2)) as stream:
        for _ in stream:
            time.sleep(0.02)  # its thread leaves the ticket
            most = max(most, sum(ref() is not None for ref in alive))
    assert most <= 3


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_holds_one_or_more(watch, window):
    with pytest.raises(UsageError, match="window"):
        watch(Scripted("a")).fleet.stream(tasks(1), check, window=window)
