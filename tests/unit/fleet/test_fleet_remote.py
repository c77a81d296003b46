"""Workers that come back: the runner's back-off, and RemoteWorker against a real listener."""

import contextlib
import threading
import time

import pytest
from fleet_script import Scripted, product, without_tensors

from tempo.errors import NoWorkersLeft, OperandMissing, ProtocolError, UsageError, WorkerLost
from tempo.fleet import Done, EventKind, Failed, Fleet, RemoteWorker, workers_from
from tempo.fleet.runner import Ticket
from tempo.wire import DeadlinePassed, Endpoint
from tempo.worker.listener import Listener, ListenSettings


class Returning(Scripted):
    """Can be connected to again, unless `away` says how it fails."""

    def __init__(self, name, script=None, pause=0.01):
        super().__init__(name, script)
        self.pause = pause
        self.away = None
        self.attempts = []
        self.connects = 0
        self.dropped = 0

    def connect(self):
        self.connects += 1
        if self.away:
            raise self.away

    def drop(self):
        self.dropped += 1
        self.kept.clear()

    def retry_s(self, attempt):
        self.attempts.append(attempt)
        return self.pause


def until(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("failure", [WorkerLost("cut"), DeadlinePassed("late")])
def test_a_lost_worker_returns_without_what_it_held(watch, failure):
    w = watch(Returning("far", {1: failure}), Scripted("near"))
    kept = product(keep=True)
    w.run(kept)
    (done,) = w.run(product(5, 6))
    assert done.worker == "near"
    until(lambda: w.fleet.width == 2)
    w.fleet.run([], None)  # hands events on
    lost = EventKind.DEADLINE if isinstance(failure, DeadlinePassed) else EventKind.LOST
    assert [kind for kind, name in w.kinds if name == "far"] == [lost, EventKind.REJOINED]
    assert not w.fleet.holds(1)
    (failed,) = w.run(without_tensors(kept))
    assert isinstance(failed.error, OperandMissing)
    assert w.run(product(7, 8))[0].worker == "far"
    assert (w.workers[0].closed, w.workers[0].dropped) == (0, 1)


def test_a_worker_that_stays_away_is_tried_with_growing_numbers_and_told_once(watch):
    far = Returning("far", {0: WorkerLost("cut")})
    w = watch(far)
    far.away = WorkerLost("nobody")
    far.connects = 0
    until(lambda: w.fleet.width == 1)
    (failed,) = w.run(product())
    assert isinstance(failed.error, NoWorkersLeft)
    until(lambda: far.connects > 3)
    assert far.attempts[:4] == [0, 1, 2, 3]
    w.fleet.run([], None)
    assert w.kinds == [(EventKind.LOST, "far")]
    far.away = None
    until(lambda: w.fleet.width == 1)
    assert isinstance(w.run(product())[0], Done)
    assert w.kinds[-1] == (EventKind.REJOINED, "far")


def test_one_that_was_not_there_at_the_start_may_come(watch):
    far = Returning("far")
    far.away = WorkerLost("not yet")
    w = watch(far, Scripted("near"))
    until(lambda: far.connects > 2)
    assert w.run(product())[0].worker == "near"
    far.away = None
    until(lambda: w.fleet.width == 2)


@pytest.mark.security
def test_one_that_breaks_the_protocol_does_not_return(watch):
    far = Returning("far", {0: ProtocolError("garbage")})
    w = watch(far, Scripted("near"))
    w.run(product())
    time.sleep(0.1)
    assert (far.connects, far.closed, w.fleet.width) == (1, 1, 1)


@pytest.mark.security
def test_nor_one_that_returns_as_another(watch):
    far = Returning("far", {0: WorkerLost("cut")})
    w = watch(far, Scripted("near"))
    until(lambda: far.connects == 1)
    far.away = ProtocolError("has a certificate of another authority")
    w.run(product())
    until(lambda: far.closed)
    w.fleet.run([], None)
    assert [k for k, name in w.kinds if name == "far"] == [
        EventKind.LOST,
        EventKind.PROTOCOL,
        EventKind.QUARANTINED,
    ]
    time.sleep(0.05)
    assert far.connects == 2


@pytest.mark.security
def test_a_quarantine_outlasts_a_reconnect(watch):
    far = Returning("far", {1: WorkerLost("cut")})
    w = watch(far, Scripted("near"), quarantine_s=0.4)
    w.run(product())
    runner = w.fleet._runners[0]
    runner.quarantine()
    runner._mark_gone(WorkerLost("cut"))
    runner._tickets.put(Ticket(product(), runner, threading.Event()))  # wakes the thread
    until(lambda: far.connects == 2 and not runner.gone)
    assert w.fleet.width == 1
    until(lambda: w.fleet.width == 2)


def test_no_run_waits_for_a_connection(watch):
    """Nor does a ticket that was on its way when the worker was lost."""
    stuck = threading.Event()
    far = Returning("far", {0: WorkerLost("cut")})
    w = watch(far, Scripted("near"))
    until(lambda: far.connects == 1)
    far.connect = lambda: stuck.wait(60)
    w.run(product())
    time.sleep(0.05)  # the thread of `far` hangs in connect
    started = time.monotonic()
    late = Ticket(product(), w.fleet._runners[0], threading.Event())
    w.fleet._runners[0].submit(late)
    assert late.done.wait(10)
    for _ in range(5):
        assert w.run(product(8, 9))[0].worker == "near"
    assert time.monotonic() - started < 20
    stuck.set()


def test_closing_does_not_wait_for_the_back_off():
    far = Returning("far", {0: WorkerLost("cut")}, pause=60)
    fleet = Fleet([far])
    watcher = threading.Thread(target=fleet.run, args=([], None))
    watcher.start()
    watcher.join()
    from tempo.fleet import Task

    fleet.run([Task(product(), 0)], None)
    started = time.monotonic()
    fleet.close()
    assert time.monotonic() - started < 10
    assert far.closed


# ---- RemoteWorker --------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(endpoint, **settings):
    listener = Listener(ListenSettings(endpoint=endpoint, **settings))
    thread = threading.Thread(target=listener.serve)
    thread.start()
    try:
        yield listener
    finally:
        listener.stop()
        thread.join(10)


def test_a_worker_that_is_restarted_rejoins_and_the_bytes_add_up(tmp_path, watch):
    endpoint = Endpoint.parse(f"unix:{tmp_path}/s")
    worker = RemoteWorker(endpoint, name="far", reconnect_s=0.02, reconnect_most_s=0.05)
    with listening(endpoint):
        w = watch(worker)
        assert isinstance(w.run(product(keep=True))[0], Done)
    sent = worker.bytes_sent
    assert isinstance(w.run(product())[0], Failed)
    with listening(endpoint):
        until(lambda: w.fleet.width == 1)
        assert isinstance(w.run(product())[0], Done)
        assert worker.bytes_sent > sent > 0
        assert [kind for kind, _ in w.kinds] == [EventKind.LOST, EventKind.REJOINED]


def test_back_off_doubles_with_jitter_up_to_its_limit():
    worker = RemoteWorker("unix:/x", reconnect_s=1, reconnect_most_s=8)
    for attempt, longest in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 8), (5000, 8)]:
        pauses = {worker.retry_s(attempt) for _ in range(50)}
        assert len(pauses) > 40
        assert all(longest / 2 <= pause <= longest for pause in pauses)


@pytest.mark.security
def test_close_ends_a_connection_that_is_being_made(tmp_path):
    """A peer that accepts and says nothing."""
    endpoint = Endpoint.parse(f"unix:{tmp_path}/s")
    listening = endpoint.listen()
    worker = RemoteWorker(endpoint, connect_s=30)
    caught = []

    def connect():
        with pytest.raises(WorkerLost) as error:
            worker.connect()
        caught.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    time.sleep(0.1)
    started = time.monotonic()
    worker.close()
    thread.join(10)
    assert caught
    assert time.monotonic() - started < 10
    with pytest.raises(WorkerLost, match="closed"):
        worker.connect()
    listening.close()


def test_a_worker_before_it_is_connected():
    worker = RemoteWorker("unix:/nowhere", name="far")
    assert (worker.bytes_sent, worker.bytes_received) == (0, 0)
    for call in (lambda: worker.run(product(), frozenset(), 0), lambda: worker.release([1], 0)):
        with pytest.raises(WorkerLost, match="not connected"):
            call()
    worker.close()
    worker.close()


@pytest.mark.parametrize(
    "settings", [{"connect_s": 0}, {"reconnect_s": 0}, {"reconnect_s": 2, "reconnect_most_s": 1}]
)
def test_settings_are_positive(settings):
    with pytest.raises(UsageError, match="positive"):
        RemoteWorker("unix:/x", **settings)


def test_specs_of_remote_workers(tmp_path):
    from tempo.wire.authority import issue, make_authority

    make_authority(tmp_path)
    tls = issue(tmp_path, "m", "master")
    specs = ["gpu-a:7443", "gpu-a:7443", "[::1]:7443", "unix:/run/s", "vsock:3:7443"]
    workers = workers_from(specs, tls=tls)
    assert [str(worker.endpoint) for worker in workers] == specs
    assert len({worker.name for worker in workers}) == 5
    assert [worker._context is not None for worker in workers] == [True] * 5
    assert workers_from("unix:/run/s")[0]._context is None
