"""A listener in this process and masters for it, for the tests of hostile masters."""

import threading
import time

import torch

from tempo.ops import Job, Op, Operand, compute
from tempo.wire import (
    DTYPES,
    Channel,
    Endpoint,
    Hello,
    Welcome,
    decode_reply,
    limits,
)
from tempo.worker.listener import Listener, ListenSettings

MB = 1 << 20
X, W = torch.randn(6, 3), torch.randn(1, 4, 3)


class Running:
    """A listener in a thread of this process."""

    def __init__(self, endpoint, **settings):
        self.log = []
        self.listener = Listener(
            ListenSettings(endpoint=Endpoint.parse(endpoint), **settings), self.log.append
        )
        self.endpoint = self.listener.endpoint
        self.thread = threading.Thread(target=self.listener.serve)
        self.thread.start()

    def stop(self, seconds=10.0):
        self.listener.stop()
        self.thread.join(seconds)
        assert not self.thread.is_alive()

    def connect(self):
        return self.endpoint.connect(time.monotonic() + 5)

    def until(self, words):
        end = time.monotonic() + 5
        while not any(words in line for line in self.log):
            assert time.monotonic() < end, (words, self.log)
            time.sleep(0.01)


def soon(seconds=5.0):
    return time.monotonic() + seconds


def job(x=X, w=W, ids=(1, 2), keep=True):
    left = Operand(ids[0], tuple(x.shape), x.dtype, x, keep)
    return Job(Op.PRODUCT, left, Operand(ids[1], tuple(w.shape), w.dtype, w, keep), (x.shape[0],))


def assert_served(worker, x=X, w=W):
    reply = worker.run(job(x, w), frozenset({1, 2}), soon())
    assert torch.equal(reply.open_for_check(), compute(Op.PRODUCT, x, w, (x.shape[0],)))


def greeted(running):
    """A hostile master that got as far as Welcome: its raw socket and a channel on it."""
    raw = running.connect()
    channel = Channel(raw, decode_reply)
    channel.send(Hello(limits.VERSION), deadline=soon())
    assert channel.receive(soon())[0] == Welcome(limits.VERSION, tuple(DTYPES))
    return raw, channel
