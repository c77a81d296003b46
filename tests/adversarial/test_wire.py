"""Every lie that a worker can tell over the production protocol: the master ends with a right result or
says that it has none, names the liar, and never waits past the deadline."""

import contextlib
import os
import socket
import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tempo.errors import IntegrityError, NoWorkersLeft
from tempo.fleet import (
    DeviceWorker,
    Done,
    EventKind,
    Failed,
    Fleet,
    FleetSettings,
    ProcessWorker,
    Task,
    Worker,
)
from tempo.fleet.client import Client
from tempo.ops import Job, Op, Operand, compute
from tempo.wire import DTYPES, Channel, Result, Welcome, decode_request, encode, limits
from tempo.wire.frame import prefix
from tempo.worker import Executor, Lie, LieKind, MaliciousWorker, send_result, serve

pytestmark = pytest.mark.security

DEADLINE_S = 1.0
SETTINGS = FleetSettings(deadline_base_s=DEADLINE_S, hedge_least_s=60.0)
#: What a check finds, in replies whose form is right.
FORGED = ["flip_entry", "scale", "swap", "stale", "nan", "inf", "zeros"]
#: What ends in which event before any check.
FORM = {
    "wrong_shape": EventKind.PROTOCOL,
    "wrong_dtype": EventKind.PROTOCOL,
    "wrong_id": EventKind.PROTOCOL,
    "false_evicted": EventKind.PROTOCOL,
    "huge_claim": EventKind.PROTOCOL,
    "garbage": EventKind.PROTOCOL,
    "duplicate": EventKind.PROTOCOL,  # found with the next job
    "half_frame": EventKind.LOST,
    "trickle": EventKind.DEADLINE,
    "silence": EventKind.DEADLINE,
    "refuse": EventKind.REFUSED,
}
#: Only a process can die.
DEADLY = {"exit": EventKind.LOST}


def test_every_kind_of_lie_is_tested():
    assert {*FORGED, *FORM, *DEADLY} == {kind.value for kind in LieKind}


class Socketed(Worker):
    """The production protocol over a socket pair, with the worker in a thread of this process."""

    depth = 2

    def __init__(self, name, lie=None, serve=None):
        self.name = name
        ours, theirs = socket.socketpair()
        self.client = Client(ours, name)
        if serve is None:
            liar = MaliciousWorker(Channel(theirs, decode_request), Executor("cpu", 1 << 28), lie)
            self.thread = threading.Thread(target=liar.serve)
        else:
            self.thread = threading.Thread(target=serve, args=(theirs,))
        self.thread.start()

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

    bytes_sent = property(lambda self: self.client.bytes_sent)
    bytes_received = property(lambda self: self.client.bytes_received)


NUMBERS = iter(range(1 << 30))


def jobs():
    """A training step: product, dX and dW. Different sizes, so that no reply fits another's request."""
    x, w, dy = torch.randn(8, 5), torch.randn(1, 7, 5), torch.randn(8, 7)
    x, w, dy = (Operand(next(NUMBERS), tuple(t.shape), t.dtype, t, keep=True) for t in (x, w, dy))
    return [Job(Op.PRODUCT, x, w, (8,)), Job(Op.GRAD_X, dy, w, (8,)), Job(Op.GRAD_W, dy, x, (8,))]


def truth(job):
    return compute(job.op, job.left.tensor, job.right.tensor, job.rows)


def check(job, reply):
    result = reply.open_for_check()
    if not torch.allclose(result, truth(job), rtol=1e-5, atol=1e-5):
        raise IntegrityError("the reply is not the result of the job")
    return result


class Run:
    """A liar first in line, and an honest worker beside it or not."""

    def __init__(self, *workers):
        self.events = []
        self.fleet = Fleet(workers, SETTINGS, self.events.append)

    def step(self, jobs):
        """One lane, so that each job is offered to the first worker while it is in use."""
        started = time.monotonic()
        results = self.fleet.run([Task(job, 0) for job in jobs], check)
        assert time.monotonic() - started < 3 * DEADLINE_S + 5
        return results

    def kinds(self, worker):
        return [event.kind for event in self.events if event.worker == worker]


@pytest.fixture
def against():
    made = []

    def make(*workers):
        made.append(Run(*workers))
        return made[-1]

    yield make
    for run in made:
        run.fleet.close()


def assert_right(results, step):
    for done, job in zip(results, step, strict=True):
        assert isinstance(done, Done)
        assert torch.allclose(done.value, truth(job), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first", [0, 1, 2], ids=["product", "grad_x", "grad_w"])
@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_result_is_found_redone_and_its_worker_quarantined(against, kind, first):
    # The lie is about the second step: stale and swap need a past to draw from.
    run = against(Socketed("liar", Lie(LieKind(kind), 3 + first)), DeviceWorker("cpu", name="honest"))
    for step in (jobs(), jobs()):
        assert_right(run.step(step), step)
    assert run.kinds("liar") == [EventKind.CHECK_FAILED, EventKind.QUARANTINED]
    assert run.fleet.width == 1
    assert run.fleet.stats.retries >= 1


@pytest.mark.parametrize("first", [0, 1])  # a job that ships both operands, and one that ships one
@pytest.mark.parametrize(("kind", "event"), FORM.items())
def test_a_reply_in_bad_form_ends_the_worker_and_not_the_run(against, kind, event, first):
    run = against(Socketed("liar", Lie(LieKind(kind), first)), DeviceWorker("cpu", name="honest"))
    for step in (jobs(), jobs()):
        assert_right(run.step(step), step)
    assert run.kinds("liar")[0] is event
    assert run.fleet.width == 1
    assert all(done.worker == "honest" for done in run.step(jobs()))


@pytest.mark.parametrize("kind", ["scale", "wrong_shape", "half_frame", "silence", "refuse"])
def test_without_another_worker_there_is_no_result_and_no_hang(against, kind):
    run = against(Socketed("liar", Lie(LieKind(kind), 0, 100)))
    results = run.step(jobs()[:1])
    assert isinstance(results[0], Failed)
    assert isinstance(results[0].error, NoWorkersLeft)


def test_a_worker_that_lies_again_after_quarantine_is_left_alone_for_longer():
    events = []
    liar, honest = Socketed("liar", Lie(LieKind.SCALE, 0, 2)), DeviceWorker("cpu", name="honest")
    with Fleet([liar, honest], FleetSettings(quarantine_s=0.2), events.append) as fleet:
        (job, *_) = jobs()
        used = []
        for pause in (0, 0.3, 0.3, 0.3):
            time.sleep(pause)
            used.append(fleet.run([Task(job, 0)], check)[0].worker)
    assert used == ["honest", "honest", "honest", "liar"]
    assert [event.kind for event in events if event.worker == "liar"] == [
        EventKind.CHECK_FAILED,
        EventKind.QUARANTINED,
        EventKind.PROBATION,
        EventKind.CHECK_FAILED,
        EventKind.QUARANTINED,
        EventKind.PROBATION,
    ]


def test_a_worker_that_always_says_evicted_gets_a_bounded_number_of_tries(against):
    """Of operands that it kept it may say so; each time more is shipped, and nothing shipped is gone."""

    class Forgetful:
        def __call__(self, sock):
            channel = Channel(sock, decode_request)
            executor = Executor("cpu", 1 << 28)

            def forget(channel, request, result):
                executor.release([part.id for part in request.parts])
                send_result(channel, request, result)

            serve(channel, executor, forget)

    forgetful = Socketed("forgetful", serve=Forgetful())
    run = against(forgetful)
    for _ in range(3):
        (job, *_) = step = jobs()
        assert_right(run.step(step), step)
        assert_right(run.step([job]), [job])
    assert set(run.kinds("forgetful")) == {EventKind.EVICTED}


@pytest.fixture(scope="module")
def processes():
    """Liars as processes, spawned side by side."""
    kinds = ["flip_entry", "half_frame", "exit"]
    workers = {kind: ProcessWorker(kind, unsafe_lie=Lie(LieKind(kind), 1, 100)) for kind in kinds}
    for worker in workers.values():
        worker.connect()
    yield workers
    for worker in workers.values():
        worker.close()


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("flip_entry", EventKind.CHECK_FAILED),
        ("half_frame", FORM["half_frame"]),
        ("exit", DEADLY["exit"]),
    ],
)
def test_lying_processes(against, processes, kind, event):
    run = against(processes[kind], DeviceWorker("cpu", name="honest"))
    step = jobs()
    assert_right(run.step(step), step)
    assert run.kinds(kind)[0] is event
    assert run.fleet.width == 1


WELCOME = encode(Welcome(limits.VERSION, tuple(DTYPES)))


@settings(max_examples=40, deadline=None)
@given(
    noise=st.binary(min_size=1, max_size=300),
    form=st.sampled_from(["raw", "header", "payload", "mutated"]),
    place=st.integers(0, 10_000),
)
def test_whatever_a_worker_answers_the_master_has_a_right_result(noise, form, place):
    """Fuzz of the master's side, through the whole fleet."""
    (job, *_) = jobs()
    honest = encode(Result(1))
    good = prefix(len(honest), 8 * 7 * 4) + honest + truth(job).numpy().tobytes()
    at = place % len(good)
    answer = {
        "raw": noise,
        "header": prefix(len(noise), 0) + noise,
        "payload": prefix(len(honest), len(noise)) + honest + noise,
        "mutated": good[:at] + noise + good[at + len(noise) :],
    }[form]

    def serve(sock):
        with sock:
            sock.recv(4096)
            sock.sendall(prefix(len(WELCOME), 0) + WELCOME)
            sock.recv(1 << 20)
            with contextlib.suppress(OSError):  # it may hang up on the first half
                sock.sendall(answer)
                sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while sock.recv(1 << 20):
                    pass

    with Fleet([Socketed("noise", serve=serve), DeviceWorker("cpu", name="honest")], SETTINGS) as fleet:
        (done,) = fleet.run([Task(job, 0)], check)
        assert isinstance(done, Done)
        assert torch.allclose(done.value, truth(job), rtol=1e-5, atol=1e-5)


def test_no_secret_of_the_master_reaches_a_workers_environment(monkeypatch):
    monkeypatch.setenv("TEMPO_VAULT_TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    worker = ProcessWorker("w")
    try:
        worker.connect()
        with open(f"/proc/{worker.pid}/environ", "rb") as file:
            assert b"secret" not in file.read()
        # Nothing is inherited but the standard streams and the socket.
        inherited = [
            os.readlink(f"/proc/{worker.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{worker.pid}/fd")
        ]
        assert sum(name.startswith("socket:") for name in inherited) == 1
    finally:
        worker.close()
