"""Ctrl-C at the worst moment of waiting for a job: the worker's thread goes on, and the fleet closes."""

import contextlib
import sys
import threading
import time

import torch

from tempo.fleet import Fleet, Task, Worker
from tempo.fleet.latch import Latch
from tempo.ops import Job, Op, Operand, Unverified, compute


class Slow(Worker):
    name = "slow"
    bytes_sent = bytes_received = 0

    def connect(self):
        pass

    def run(self, job, ship, deadline):
        time.sleep(0.3)
        return Unverified(compute(job.op, job.left.tensor, job.right.tensor, job.rows))

    def release(self, ids, deadline):
        pass

    def close(self):
        pass


def test_set_before_and_after():
    latch = Latch()
    assert not latch.wait(0.01)
    threading.Timer(0.05, latch.set).start()
    assert latch.wait(5)
    latch.set()
    assert latch.wait()
    assert latch.wait(0)


def test_an_interrupt_while_a_lock_is_being_taken():
    """Attack of bad luck: the interrupt falls between taking a lock in Python code and the block under it."""

    def interrupt(frame, event, argument):
        inside = frame.f_code.co_filename == threading.__file__ and frame.f_code.co_name == "__enter__"
        waiting = frame.f_back is not None and frame.f_back.f_code.co_name == "wait"
        if event == "return" and inside and waiting:
            sys.setprofile(None)
            raise KeyboardInterrupt

    x, w = torch.randn(4, 3), torch.randn(1, 2, 3)
    operands = [Operand(i, tuple(t.shape), t.dtype, t, False) for i, t in enumerate((x, w), 1)]
    task = Task(Job(Op.PRODUCT, *operands, (4,)), 0)
    fleet = Fleet([Slow()])
    sys.setprofile(interrupt)
    try:
        with contextlib.suppress(KeyboardInterrupt):  # there is no such moment any more
            fleet.run([task], lambda job, reply: None)
    finally:
        sys.setprofile(None)
    closing = threading.Thread(target=fleet.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive(), "a lock that nobody gives back"
