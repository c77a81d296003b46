"""What the master believes that a worker has, while jobs are open: releases and distrust reach all of it."""

import threading
import time
from collections import deque

import pytest
from fleet_script import check, product

from tempo.fleet import Done, Fleet, FleetSettings, Task, Worker
from tempo.fleet.holdings import Holdings
from tempo.ops import Unverified, compute


class Gated(Worker):
    """Computes honestly with two jobs open; answers wait for the gate. log: what came, in its order."""

    depth = 2
    bytes_sent = bytes_received = 0

    def __init__(self):
        self.name = "gated"
        self.jobs = deque()
        self.kept = {}
        self.gate = threading.Event()
        self.log = []
        self.changed = threading.Condition()

    def note(self, *entry):
        with self.changed:
            self.log.append(entry)
            self.changed.notify_all()

    def saw(self, *entry):
        with self.changed:
            return self.changed.wait_for(lambda: entry in self.log, 10)

    def connect(self):
        pass

    def run(self, job, ship, deadline):
        raise NotImplementedError

    def begin(self, job, ship, deadline):
        tensors = {o.id: o.tensor if o.id in ship else self.kept[o.id] for o in job.operands}
        self.kept |= {o.id: tensors[o.id] for o in job.operands if o.keep}
        self.jobs.append((job, [tensors[o.id] for o in job.operands]))
        self.note("job", *sorted(ship))

    def ready(self, seconds):
        return self.gate.wait(seconds)

    def end(self, deadline):
        job, tensors = self.jobs.popleft()
        return Unverified(compute(job.op, *tensors, job.rows))

    def release(self, ids, deadline):
        for one in ids:
            self.kept.pop(one, None)
        self.note("release", *sorted(ids))

    def close(self):
        self.gate.set()


@pytest.fixture
def worker():
    return Gated()


@pytest.fixture
def fleet(worker):
    with Fleet([worker], FleetSettings(quarantine_s=0.01)) as fleet:
        yield fleet


def started(fleet, worker, job):
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.extend(fleet.run([Task(job, 0)], check)))
    thread.start()
    assert worker.saw("job", *sorted(o.id for o in job.operands))
    return thread, outcomes


def test_a_release_while_the_job_is_open_reaches_the_worker(fleet, worker):
    """The graph died first: by an interrupt, or because another worker was faster."""
    first, _ = started(fleet, worker, product(1, 2, keep=True))
    fleet.release((1, 2))
    second, _ = started(fleet, worker, product(3, 4))  # sends the releases before itself
    assert worker.log == [("job", 1, 2), ("release", 1, 2), ("job", 3, 4)]
    worker.gate.set()
    first.join(10)
    second.join(10)
    assert not fleet.holds(1), "the answer does not bring back what was released"
    (outcome,) = fleet.run([Task(product(1, 5, keep=True), 0)], check)
    assert isinstance(outcome, Done)
    assert ("job", 1, 5) in worker.log, "it is shipped anew"
    fleet.release((1, 5))
    assert worker.saw("release", 1, 5), "and released once more when the worker idles"
    assert worker.kept == {}


def test_a_job_behind_a_release_ships_what_it_needs(fleet, worker):
    first, _ = started(fleet, worker, product(1, 2, keep=True))
    fleet.release((1, 2))
    second, outcomes = started(fleet, worker, product(1, 3, keep=True))
    worker.gate.set()
    first.join(10)
    second.join(10)
    assert [type(one) for one in outcomes] == [Done]
    assert fleet.holds(1)


@pytest.mark.security
def test_what_was_under_way_when_a_worker_lied_does_not_count_as_held(fleet, worker):
    """Its answer comes after the distrust, and must not bring back what that took."""

    first, _ = started(fleet, worker, product(1, 2, keep=True))
    fleet._runners[0].quarantine()  # as for a false reply to another run
    worker.gate.set()
    first.join(10)
    assert not fleet.holds(1)
    assert not fleet.holds(2)
    assert worker.saw("release", 1, 2)
    time.sleep(0.02)
    (outcome,) = fleet.run([Task(product(1, 2, keep=True), 0)], check)
    assert isinstance(outcome, Done)
    assert worker.log.count(("job", 1, 2)) == 2


# ---- the bookkeeping itself ------------------------------------------------------------------------


def test_an_answer_holds_what_its_own_sending_shipped():
    holdings, first, second = Holdings(), object(), object()
    holdings.sending(first, [1, 2])
    assert holdings.expects(1)
    assert 1 not in holdings
    holdings.distrust()
    holdings.sending(second, [1])
    holdings.arrived(first)
    assert (1 in holdings, 2 in holdings) == (False, False)
    holdings.arrived(second)
    assert 1 in holdings
    assert sorted(holdings.take_released()) == [1, 2]
    assert 1 not in holdings


def test_what_a_failed_job_shipped_is_not_held_but_released():
    holdings, sending = Holdings(), object()
    holdings.sending(sending, [1])
    holdings.failed(sending)
    assert not holdings.expects(1)
    holdings.release((1,))
    assert holdings.take_released() == [1]


def test_nothing_is_left_of_a_lost_worker_or_of_what_it_evicted():
    holdings, sending = Holdings(), object()
    holdings.sending(sending, [1, 2])
    holdings.evicted([1])
    holdings.arrived(sending)
    assert (1 in holdings, 2 in holdings) == (False, True)
    holdings.sending(sending, [3])
    holdings.lose()
    holdings.arrived(sending)
    holdings.release((1, 2, 3))
    assert not any(holdings.expects(one) for one in (1, 2, 3))
    assert holdings.take_released() == []
