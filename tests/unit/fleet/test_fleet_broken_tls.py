"""One bit changed on the way breaks TLS. Attack: were the worker closed for good by it, anybody on the way
could take all workers from a master, one bit each."""

import contextlib
import socket
import threading
import time

import pytest
import torch

from tempo.fleet import EventKind, Fleet, FleetSettings, RemoteWorker, Task
from tempo.ops import Job, Op, Operand
from tempo.wire import Endpoint
from tempo.wire.authority import issue, make_authority
from tempo.worker.listener import Listener, ListenSettings

pytestmark = pytest.mark.security


class Bad:
    """A proxy that flips a bit in piece number `at` from the worker, once."""

    def __init__(self, to, at):
        self._to, self._at = to, at
        self._server = socket.create_server(("127.0.0.1", 0))
        self._socks = []
        self.endpoint = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection((self._to.host, self._to.port))
                self._socks += [near, far]
                for pair in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, here, there, from_worker):
        with contextlib.suppress(OSError):
            while piece := bytearray(here.recv(1 << 16)):
                if from_worker:
                    if self._at == 0:
                        piece[len(piece) // 2] ^= 1
                    self._at -= 1
                there.sendall(piece)
        for sock in (here, there):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        for sock in (self._server, *self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@pytest.fixture
def listening(tmp_path):
    make_authority(tmp_path)
    tls = issue(tmp_path, "gpu", "worker", ["127.0.0.1"])
    listener = Listener(ListenSettings(endpoint=Endpoint.parse("127.0.0.1:0"), tls=tls))
    thread = threading.Thread(target=listener.serve)
    thread.start()
    yield listener.endpoint, issue(tmp_path, "m", "master")
    listener.stop()
    thread.join(20)


@pytest.mark.parametrize("at", [0, 2, 3])  # in the handshake; in what follows it
def test_a_changed_bit_loses_a_worker_and_not_for_good(listening, at):
    endpoint, master = listening
    bad = Bad(endpoint, at)
    events = []
    worker = RemoteWorker(bad.endpoint, name="w", tls=master, reconnect_s=0.02, reconnect_most_s=0.05)
    x, w = torch.randn(64, 64), torch.randn(1, 64, 64)
    with Fleet([worker], FleetSettings(deadline_base_s=5.0), events.append) as fleet:
        end = time.monotonic() + 15
        done = 0
        while done < 4:  # one of them is lost
            assert time.monotonic() < end, events
            ids = iter(range(10 * done + 1, 10 * done + 3))
            operands = [Operand(next(ids), tuple(t.shape), t.dtype, t, False) for t in (x, w)]
            task = Task(Job(Op.PRODUCT, *operands, (64,)), 0)
            (outcome,) = fleet.run([task], lambda job, reply: reply.open_for_check().clone())
            if hasattr(outcome, "value"):
                torch.testing.assert_close(outcome.value, x @ w[0].T)
                done += 1
            else:
                time.sleep(0.02)
        fleet.close()
    bad.close()
    kinds = [event.kind for event in events]
    assert EventKind.LOST in kinds
    assert EventKind.REJOINED in kinds
    assert EventKind.PROTOCOL not in kinds
