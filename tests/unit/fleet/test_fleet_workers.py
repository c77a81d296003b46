"""DeviceWorker, the socket client against forged replies, and what `workers=` may say."""

import os
import socket
import time
from dataclasses import replace

import pytest
import torch

from tempo.errors import ProtocolError, UsageError, WorkerLost
from tempo.fleet import (
    DeviceWorker,
    Done,
    EventKind,
    Fleet,
    JobRefused,
    OperandsEvicted,
    ProcessWorker,
    Task,
    workers_from,
)
from tempo.fleet.client import Client
from tempo.ops import Job, Op, Operand, compute
from tempo.wire import Evicted, Refused, Result, Welcome, encode, limits
from tempo.wire.frame import prefix

X, W = torch.randn(6, 3), torch.randn(1, 4, 3)
BOTH = frozenset({1, 2})


def soon():
    return time.monotonic() + 5


def job(keep=True, x=X, w=W):
    left = Operand(1, tuple(x.shape), x.dtype, x, keep)
    return Job(Op.PRODUCT, left, Operand(2, tuple(w.shape), w.dtype, w, keep), (x.shape[0],))


# ---- device ----------------------------------------------------------------------------------------


def test_device_worker_keeps_copies_and_computes():
    worker = DeviceWorker("cpu")
    x = X.clone()
    reply = worker.run(job(x=x), BOTH, soon())
    assert torch.equal(reply.open_for_check(), compute(Op.PRODUCT, X, W, (6,)))
    x.zero_()  # the master reuses its buffers
    reply = worker.run(job(x=x), frozenset(), soon())
    assert torch.equal(reply.open_for_check(), compute(Op.PRODUCT, X, W, (6,)))
    assert (worker.bytes_sent, worker.bytes_received) == (X.nbytes + W.nbytes, 2 * 4 * 24)
    worker.release([1], soon())
    with pytest.raises(OperandsEvicted) as caught:
        worker.run(job(), frozenset({2}), soon())
    assert caught.value.ids == (1,)
    worker.close()
    with pytest.raises(WorkerLost):
        worker.run(job(), BOTH, soon())


def test_device_worker_is_bounded():
    worker = DeviceWorker("cpu", memory=100)
    with pytest.raises(JobRefused) as caught:
        worker.run(job(), BOTH, soon())
    assert caught.value.code == "memory"


def test_device_worker_ignores_a_lowered_matmul_precision():
    worker = DeviceWorker("cpu")
    a, b = torch.randn(64, 256), torch.randn(1, 64, 256)
    exact = compute(Op.PRODUCT, a, b, (64,))
    torch.set_float32_matmul_precision("medium")
    try:
        reply = worker.run(job(x=a, w=b), BOTH, soon()).open_for_check()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(reply, exact)


def test_an_unknown_device_is_said():
    with pytest.raises(UsageError, match="cuda:99"):
        DeviceWorker("cuda:99")


# ---- client ----------------------------------------------------------------------------------------


@pytest.fixture
def enemy():
    """A client, and a raw socket that answers whatever the test says."""
    raw, ours = socket.socketpair()
    client = Client(ours, "w")
    yield raw, client
    client.close()
    raw.close()


def frame(message, payload=b"", claim=None):
    header = encode(message)
    return prefix(len(header), len(payload) if claim is None else claim) + header + payload


Y = compute(Op.PRODUCT, X, W, (6,))
GOOD = Y.numpy().tobytes()


def test_an_honest_reply_is_taken_into_the_shape_of_the_request(enemy):
    raw, client = enemy
    raw.sendall(frame(Result(1), GOOD))
    assert torch.equal(client.run(job(), BOTH, soon()).open_for_check(), Y)


@pytest.mark.security
@pytest.mark.parametrize(
    "answer",
    [
        frame(Result(2), GOOD),
        frame(Result(1), GOOD[:-4]),
        frame(Result(1), GOOD + GOOD),
        frame(Result(1), GOOD, claim=10 << 30),
        frame(Result(1)),
        frame(Evicted(1, (1,))),
        frame(Evicted(1, (77,))),
        frame(Evicted(2, (1,))),
        frame(Refused("memory", 9)),
        frame(Refused("malformed")),
        frame(Welcome(limits.VERSION, ("f32",))),
        b"\xff" * 64,
        bytes(64),
    ],
)
def test_a_reply_to_something_else_breaks_the_protocol(enemy, answer):
    raw, client = enemy
    raw.sendall(answer)
    with pytest.raises(ProtocolError):
        client.run(job(), BOTH, soon())
    with pytest.raises(WorkerLost):  # out of step: nothing is read from it again
        client.run(job(), BOTH, soon())


@pytest.mark.security
def test_half_a_result_and_then_nothing(enemy):
    raw, client = enemy
    raw.sendall(frame(Result(1), GOOD[:20], claim=len(GOOD)))
    raw.shutdown(socket.SHUT_WR)
    with pytest.raises(WorkerLost):
        client.run(job(), BOTH, soon())


def test_sound_refusals_leave_the_connection_in_step(enemy):
    raw, client = enemy
    raw.sendall(frame(Evicted(1, (2,))))
    with pytest.raises(OperandsEvicted) as evicted:
        client.run(job(), frozenset({1}), soon())
    assert evicted.value.ids == (2,)
    raw.sendall(frame(Refused("memory", 2)))
    with pytest.raises(JobRefused):
        client.run(job(), BOTH, soon())
    with pytest.raises(UsageError):
        client.run(replace(job(), rows=(5,)), BOTH, soon())
    raw.sendall(frame(Result(4), GOOD))
    client.run(job(), BOTH, soon())


@pytest.mark.security
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (frame(Welcome(limits.VERSION + 1, ("f32",))), "another version"),
        (frame(Refused("version")), "another version"),
        (frame(Result(0)), "something else than Welcome"),
    ],
)
def test_a_handshake_that_fails_says_why(enemy, answer, why):
    raw, client = enemy
    raw.sendall(answer)
    with pytest.raises(ProtocolError, match=why):
        client.handshake(soon())


def test_many_releases_are_split(enemy):
    raw, client = enemy
    client.release(range(10_000), soon())
    sent = client.bytes_sent
    got = 0
    while got < sent:
        got += len(raw.recv(1 << 20))
    assert sent > 10_000


# ---- spec ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["", "local", "local:0", "local:-1", "local:x", "mps", "cuda:x", [], [3], 3.5, None, [["cpu"]]]
)
def test_a_bad_spec_says_what_is_allowed(spec):
    with pytest.raises(UsageError, match="local:N"):
        workers_from(spec)


def test_a_remote_worker_needs_certificates():
    with pytest.raises(UsageError, match="needs certificates"):
        workers_from("gpu-a:7443")


def test_a_list_of_specs():
    mine = DeviceWorker("cpu", name="mine")
    workers = workers_from(["cpu", mine, "cpu"])
    assert [worker.name for worker in workers] == ["cpu-0", "mine", "cpu-2"]


def test_local_workers_are_spawned_and_a_bad_neighbour_leaves_none_behind(monkeypatch):
    made = []
    original = ProcessWorker.__init__

    def spy(self, *args, **kwargs):
        original(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(ProcessWorker, "__init__", spy)
    with pytest.raises(UsageError):
        workers_from(["local:2", "nonsense"])
    assert [worker.name for worker in made] == ["local-0", "local-1"]
    for worker in made:
        with pytest.raises(ProcessLookupError):
            os.kill(worker.pid, 0)


# ---- dtypes ----------------------------------------------------------------------------------------


def half():
    return job(x=X.bfloat16(), w=W.bfloat16())


def test_a_job_that_a_worker_does_not_multiply_is_not_sent(enemy):
    raw, client = enemy
    raw.sendall(frame(Welcome(limits.VERSION, ("f32",))))
    client.handshake(soon())
    before = client.bytes_sent
    for _ in range(2):
        with pytest.raises(JobRefused) as caught:
            client.run(half(), BOTH, soon())
        assert caught.value.code == "unsupported"
    assert client.bytes_sent == before


@pytest.mark.security
def test_a_worker_that_takes_back_what_it_said_breaks_the_protocol(enemy):
    raw, client = enemy
    raw.sendall(frame(Welcome(limits.VERSION, ("f32", "bf16"))) + frame(Refused("unsupported", 1)))
    client.handshake(soon())
    with pytest.raises(ProtocolError, match="said it could"):
        client.run(half(), BOTH, soon())


@pytest.mark.security
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_result_in_another_dtype_does_not_fit(enemy, dtype):
    """The master expects bfloat16 of a product, float32 of dW, whatever the worker likes."""
    raw, client = enemy
    dw = dtype == torch.bfloat16
    left, right = (torch.zeros(6, 4), X) if dw else (X, W)
    pair = [Operand(i, tuple(t.shape), torch.bfloat16, t.bfloat16()) for i, t in ((1, left), (2, right))]
    asked = Job(Op.GRAD_W if dw else Op.PRODUCT, *pair, (6,))
    assert asked.result_dtype == (torch.float32 if dw else torch.bfloat16)
    raw.sendall(frame(Result(1), bytes(dtype.itemsize * asked.result_nbytes // asked.result_dtype.itemsize)))
    with pytest.raises(ProtocolError, match="expected"):
        client.run(asked, BOTH, soon())


def test_the_fleet_goes_elsewhere_and_blames_nobody(monkeypatch):
    """A device without bfloat16 is no liar: its other jobs still go to it."""
    old, new = DeviceWorker("cpu", name="old"), DeviceWorker("cpu", name="new")
    old._executor.dtypes = ("f32", "f64")
    events = []
    with Fleet([old, new], on_event=events.append) as fleet:
        for _ in range(2):
            done, other = fleet.run(
                [Task(half(), 0), Task(job(), 0)], lambda j, reply: reply.open_for_check()
            )
            assert torch.equal(done.value, compute(Op.PRODUCT, X.bfloat16(), W.bfloat16(), (6,)))
            assert done.worker == "new"
            assert isinstance(other, Done)
        assert fleet.width == 2
    kinds = {event.kind for event in events}
    assert EventKind.REFUSED in kinds
    assert EventKind.QUARANTINED not in kinds
