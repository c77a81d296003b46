"""Workers that follow a script in memory, for the tests of the fleet: no process, no clock."""

import threading
import time
from dataclasses import replace

import torch

from tempo.errors import IntegrityError
from tempo.fleet import (
    Fleet,
    FleetSettings,
    Task,
    Worker,
)
from tempo.ops import Job, Op, Operand, Unverified, compute


class Scripted(Worker):
    """Computes honestly, but for the jobs in `script`: number -> what to raise, or to make of the result."""

    def __init__(self, name, script=None, connect=None):
        self.name = name
        self.script = script or {}
        self.failure = connect
        self.kept = {}
        self.asked = []  # (op, ids shipped) per job
        self.released = []
        self.closed = 0
        self.busy = threading.Event()
        self.bytes = 0

    def connect(self):
        if self.failure:
            raise self.failure

    def run(self, job, ship, deadline):
        assert deadline > time.monotonic()
        number = len(self.asked)
        self.asked.append((job.op, ship))
        self.busy.set()
        step = self.script.get(number)
        if isinstance(step, BaseException):
            raise step
        tensors = [o.tensor if o.id in ship else self.kept[o.id] for o in job.operands]
        for operand in job.operands:
            if operand.id in ship and operand.keep:
                self.kept[operand.id] = operand.tensor
        result = compute(job.op, *tensors, job.rows)
        return Unverified(step(result) if step else result)

    def release(self, ids, deadline):
        self.released.append(sorted(ids))
        for one in ids:
            self.kept.pop(one, None)

    def close(self):
        self.closed += 1

    bytes_sent = property(lambda self: self.bytes)
    bytes_received = property(lambda self: self.bytes)


X, W = torch.randn(6, 3), torch.randn(1, 4, 3)


def operand(number, tensor, keep=False):
    return Operand(number, tuple(tensor.shape), tensor.dtype, tensor, keep)


def product(x=1, w=2, keep=False):
    return Job(Op.PRODUCT, operand(x, X, keep), operand(w, W, keep), (6,))


def without_tensors(job):
    return replace(job, left=replace(job.left, tensor=None), right=replace(job.right, tensor=None))


def check(job, reply):
    """What the verifier does, with the whole product instead of a probe."""
    result = reply.open_for_check()
    if not torch.allclose(result, compute(Op.PRODUCT, X, W, (6,))):
        raise IntegrityError("the reply is not the product")
    return result


def double(result):
    return result * 2


class Watch:
    """A fleet, its workers and its events."""

    def __init__(self, *workers, **settings):
        self.events = []
        self.workers = workers
        self.fleet = Fleet(workers, FleetSettings(**settings), self.events.append)

    def run(self, *jobs, accept=check):
        return self.fleet.run([Task(job, lane) for lane, job in enumerate(jobs)], accept)

    @property
    def kinds(self):
        return [(event.kind, event.worker) for event in self.events]
