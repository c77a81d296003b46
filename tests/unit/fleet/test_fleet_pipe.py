"""Two jobs under way on one connection, as the master sees it. The worker is a script on a raw socket."""

import socket
import threading
import time

import pytest
import torch
from fleet_script import check, product, without_tensors

from tempo.errors import ProtocolError, WorkerLost
from tempo.fleet import DeviceWorker, Done, EventKind, Failed, Fleet, FleetSettings, Task, Worker
from tempo.fleet.client import Client
from tempo.ops import compute
from tempo.wire import (
    DTYPES,
    Bye,
    Channel,
    Compute,
    Evicted,
    Hello,
    Refused,
    Result,
    Welcome,
    decode_request,
    limits,
)


class Far(Worker):
    """The production client; `answers` is a generator function of (channel, receive) in a thread."""

    depth = 2

    def __init__(self, name, answers):
        self.name = name
        ours, theirs = socket.socketpair()
        self.client = Client(ours, name)
        self.channel = Channel(theirs, decode_request)
        self.failure = None
        self.thread = threading.Thread(target=self._serve, args=(answers,))
        self.thread.start()

    def _serve(self, answers):
        try:
            assert isinstance(self.channel.receive(time.monotonic() + 5)[0], Hello)
            self.send(Welcome(limits.VERSION, tuple(DTYPES)))
            answers(self)
            self.channel.wait_until_closed()
        except WorkerLost:
            pass
        except BaseException as error:
            self.failure = error
        finally:
            self.channel.close()

    def send(self, message, *tensors):
        self.channel.send(message, tensors, deadline=time.monotonic() + 5)

    def request(self):
        message, _ = self.channel.receive(time.monotonic() + 5)
        if isinstance(message, Bye):
            raise WorkerLost("bye")
        assert isinstance(message, Compute), message
        tensors = {}
        for p in message.sent:
            tensors[p.id] = torch.empty(p.shape)
            self.channel.fill(tensors[p.id], deadline=time.monotonic() + 5)
        return message, tensors

    def answer(self, message, tensors):
        pair = (tensors[p.id] for p in message.parts)
        self.send(Result(message.job), compute(message.operation, *pair, message.rows))

    def connect(self):
        self.client.handshake(time.monotonic() + 5)

    def run(self, job, ship, deadline):
        return self.client.run(job, ship, deadline)

    def begin(self, job, ship, deadline):
        self.client.begin(job, ship, deadline)

    def ready(self, seconds):
        return self.client.ready(seconds)

    def end(self, deadline):
        return self.client.end(deadline)

    def release(self, ids, deadline):
        self.client.release(ids, deadline)

    def close(self):
        self.client.close()
        self.thread.join(10)
        assert not self.thread.is_alive()
        assert self.failure is None, self.failure

    bytes_sent = property(lambda self: self.client.bytes_sent)
    bytes_received = property(lambda self: self.client.bytes_received)


def run(answers, *jobs, accept=check, **settings):
    events = []
    with Fleet([Far("far", answers)], FleetSettings(**settings), events.append) as fleet:
        outcomes = fleet.run([Task(job, 0) for job in jobs], accept)
    return outcomes, [event.kind for event in events]


def test_the_second_request_arrives_before_the_first_is_answered():
    def answers(far):
        first, second = far.request(), far.request()
        far.answer(*first)
        third = far.request()
        far.answer(*second)
        far.answer(*third)

    outcomes, kinds = run(answers, product(1, 2), product(3, 4), product(5, 6))
    assert [type(one) for one in outcomes] == [Done] * 3
    assert kinds == []


def test_never_more_than_two_are_open():
    def answers(far):
        first, second = far.request(), far.request()
        assert not far.channel.ready(0.3)
        for one in (first, second):
            far.answer(*one)
        far.answer(*far.request())

    outcomes, _ = run(answers, product(1, 2), product(3, 4), product(5, 6))
    assert [type(one) for one in outcomes] == [Done] * 3


def test_what_the_first_ships_the_second_refers_to():
    def answers(far):
        (first, tensors), (second, more) = far.request(), far.request()
        assert ({p.id for p in first.sent}, second.sent) == ({1, 2}, [])
        far.answer(first, tensors)
        far.answer(second, tensors | more)

    outcomes, _ = run(answers, product(1, 2, keep=True), product(1, 2, keep=True))
    assert [type(one) for one in outcomes] == [Done] * 2


@pytest.mark.security
def test_answers_in_another_order_break_the_protocol():
    def answers(far):
        first, second = far.request(), far.request()
        far.answer(*second)
        far.answer(*first)

    outcomes, kinds = run(answers, product(1, 2), product(3, 4))
    assert [type(one) for one in outcomes] == [Failed] * 2
    assert kinds[:2] == [EventKind.PROTOCOL, EventKind.QUARANTINED]


@pytest.mark.security
def test_a_connection_that_breaks_takes_both_and_is_reported_once():
    def answers(far):
        far.request()
        far.request()
        far.channel.close()

    outcomes, kinds = run(answers, product(1, 2), product(3, 4))
    assert [type(one) for one in outcomes] == [Failed] * 2
    assert kinds.count(EventKind.LOST) == 1


@pytest.mark.security
def test_a_silent_worker_costs_the_deadline_of_one_job():
    def answers(far):
        far.request()
        far.request()

    started = time.monotonic()
    outcomes, kinds = run(answers, product(1, 2), product(3, 4), deadline_base_s=0.5)
    assert time.monotonic() - started < 3
    assert [type(one) for one in outcomes] == [Failed] * 2
    assert kinds[0] is EventKind.DEADLINE


def test_the_second_job_has_its_whole_time_once_the_first_is_answered():
    def answers(far):
        first, second = far.request(), far.request()
        time.sleep(0.7)
        far.answer(*first)
        time.sleep(0.7)
        far.answer(*second)

    outcomes, kinds = run(answers, product(1, 2), product(3, 4), deadline_base_s=1.1)
    assert [type(one) for one in outcomes] == [Done] * 2
    assert kinds == []


def test_a_job_refused_beside_another_is_sent_again_alone():
    def answers(far):
        first, second = far.request(), far.request()
        far.answer(*first)
        third = far.request()
        far.send(Refused("memory", second[0].job))
        assert not far.channel.ready(0.2), "nothing joins the third"
        far.answer(*third)
        again = far.request()
        assert [p.id for p in again[0].parts] == [p.id for p in second[0].parts]
        assert not far.channel.ready(0.2), "it is sent alone"
        far.answer(*again)
        fourth = far.request()
        assert not far.channel.ready(0.2), "and so are those after it"
        far.answer(*fourth)
        far.answer(*far.request())

    outcomes, kinds = run(answers, product(1, 2), product(3, 4), product(5, 6), product(7, 8), product(9, 8))
    assert [type(one) for one in outcomes] == [Done] * 5
    assert kinds == []


@pytest.mark.security
def test_a_worker_that_refuses_for_memory_alone_and_in_company_is_not_asked_for_ever():
    def answers(far):
        while True:
            far.send(Refused("memory", far.request()[0].job))

    outcomes, kinds = run(answers, product(1, 2), product(3, 4), product(5, 6))
    assert [type(one) for one in outcomes] == [Failed] * 3
    assert kinds.count(EventKind.REFUSED) == 3


@pytest.mark.security
def test_a_worker_that_says_evicted_of_what_the_job_before_shipped_gets_it_shipped_once_more_and_no_more():
    asked = []

    def answers(far):
        first, second = far.request(), far.request()
        far.answer(*first)
        far.send(Evicted(second[0].job, (1,)))
        while True:
            message, tensors = far.request()
            asked.append({p.id for p in message.sent})
            left = [p.id for p in message.parts if not p.sent]
            if not left:
                return far.answer(message, tensors)
            far.send(Evicted(message.job, tuple(left)))

    outcomes, kinds = run(answers, product(1, 2, keep=True), product(1, 2, keep=True))
    assert [type(one) for one in outcomes] == [Done] * 2
    assert asked == [{1}, {1, 2}]
    assert kinds == [EventKind.EVICTED] * 2


def test_an_operand_that_only_the_worker_has_is_missing_when_it_says_so():
    def answers(far):
        far.answer(*far.request())
        message, _ = far.request()
        far.send(Evicted(message.job, (1,)))

    events = []
    with Fleet([Far("far", answers)], FleetSettings(), events.append) as fleet:
        job = product(1, 2, keep=True)
        fleet.run([Task(job, 0)], check)
        (failed,) = fleet.run([Task(without_tensors(job), 0)], check)
    assert "hold" in str(failed.error)


@pytest.mark.security
def test_the_client_takes_no_reply_to_the_second_for_the_first():
    ours, theirs = socket.socketpair()
    client = Client(ours, "w")
    far = Channel(theirs, decode_request)
    for job in (product(1, 2), product(3, 4)):
        client.begin(job, frozenset({o.id for o in job.operands}), time.monotonic() + 5)
    far.send(Refused("memory", 2), deadline=time.monotonic() + 5)
    with pytest.raises(ProtocolError):
        client.end(time.monotonic() + 5)
    with pytest.raises(WorkerLost):
        client.end(time.monotonic() + 5)
    client.close()
    far.close()


def test_a_device_that_queues_jobs_answers_in_order_and_asks_for_what_it_lost():
    """As on a GPU, with the CPU's executor: two jobs open, an eviction and a refusal between them."""
    device = DeviceWorker("cpu", name="d", memory=1 << 12)
    device.depth = 2
    events = []
    with Fleet([device], FleetSettings(), events.append) as fleet:
        jobs = [product(i, 1000, keep=True) for i in range(8)]
        outcomes = fleet.run([Task(job, 0) for job in jobs], check)
        assert [type(one) for one in outcomes] == [Done] * 8
        device._opened().release([1000])
        outcomes = fleet.run([Task(job, 0) for job in jobs[:4]], check)
        assert [type(one) for one in outcomes] == [Done] * 4
        device._opened().store.max_bytes = 10
        outcomes = fleet.run([Task(product(50 + i, 60 + i), 0) for i in range(2)], check)
        assert [type(one) for one in outcomes] == [Failed] * 2
    assert {event.kind for event in events} == {EventKind.EVICTED, EventKind.REFUSED}
