"""The fleet with real processes: killed, stopped, full, interrupted, closed."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tempo.errors import IntegrityError, NoWorkersLeft, OperandMissing
from tempo.fleet import Done, EventKind, Fleet, FleetSettings, ProcessWorker, Task, workers_from
from tempo.ops import Job, Op, Operand, compute

NUMBERS = iter(range(1 << 30))


def operand(tensor, keep=True):
    return Operand(next(NUMBERS), tuple(tensor.shape), tensor.dtype, tensor, keep)


def product(rows=64, k=32, n=48, keep=True):
    x, w = torch.randn(rows, k), torch.randn(1, n, k)
    return Job(Op.PRODUCT, operand(x, keep), operand(w, keep), (rows,))


def long_product():
    """Some seconds on one core, in a few MB."""
    return product(rows=4096, k=4096, n=4096)


def referring(job):
    return replace(job, left=replace(job.left, tensor=None), right=replace(job.right, tensor=None))


def check(job, reply):
    result = reply.open_for_check()
    probe = torch.randn(result.shape[-1])
    right = job.left.tensor @ (job.right.tensor[0].T @ probe)
    if not torch.allclose(result @ probe, right, rtol=1e-3, atol=1e-1):
        raise IntegrityError("the reply is not the product")
    return result


def plain(job, reply):
    return reply.open_for_check()


class Spawned:
    def __init__(self, *workers, **settings):
        self.events = []
        self.workers = workers
        self.fleet = Fleet(workers, FleetSettings(**{"hedge_least_s": 60, **settings}), self.events.append)
        self.fleet.run([Task(product(), lane) for lane in range(len(workers))], check)  # all said hello

    @property
    def kinds(self):
        return [(event.kind, event.worker) for event in self.events]


@pytest.fixture
def spawn():
    made = []

    def make(*workers, **settings):
        made.append(Spawned(*workers, **settings))
        return made[-1]

    yield make
    for one in made:
        one.fleet.close()


def during_a_job(fleet, act):
    """Run a long job on lane 0 and `act` on its worker in the middle of it."""
    timer = threading.Timer(0.3, act)
    timer.start()
    try:
        return fleet.run([Task(long_product(), 0), Task(product(), 1)], check)
    finally:
        timer.join()


@pytest.mark.security
def test_a_worker_killed_in_the_middle_of_a_job_costs_a_retry(spawn):
    s = spawn(*workers_from("local:2", threads=1))
    kept = product()
    s.fleet.run([Task(kept, 0)], check)
    done = during_a_job(s.fleet, lambda: os.kill(s.workers[0].pid, signal.SIGKILL))
    assert [d.worker for d in done] == ["local-1", "local-1"]
    assert s.kinds == [(EventKind.LOST, "local-0"), (EventKind.RETRIED, "local-1")]
    # Between forward and backward: what only the dead worker had must be sealed anew.
    (failed,) = s.fleet.run([Task(referring(kept), 0)], plain)
    assert isinstance(failed.error, OperandMissing)
    os.kill(s.workers[1].pid, signal.SIGKILL)
    (failed,) = s.fleet.run([Task(product(), 0)], check)
    assert isinstance(failed.error, NoWorkersLeft)


@pytest.mark.security
def test_a_stopped_worker_is_dropped_at_its_deadline(spawn):
    s = spawn(*workers_from("local:2", threads=1), deadline_base_s=1.5, min_flops=1e11)
    os.kill(s.workers[0].pid, signal.SIGSTOP)
    started = time.monotonic()
    done = s.fleet.run([Task(product(), 0), Task(product(), 1)], check)
    assert time.monotonic() - started < 20
    assert [d.worker for d in done] == ["local-1", "local-1"]
    assert s.kinds == [(EventKind.DEADLINE, "local-0"), (EventKind.RETRIED, "local-1")]
    s.fleet.close()  # a stopped process hears no SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(s.workers[0].pid, 0)


def test_an_evicted_operand_is_shipped_again_or_missing(spawn):
    s = spawn(ProcessWorker("small", memory=1 << 20))
    first = product(rows=1024, k=64, n=16)  # a quarter of its memory
    s.fleet.run([Task(first, 0)], check)
    s.fleet.run([Task(product(rows=1024, k=64, n=16), 0) for _ in range(6)], check)
    assert s.fleet.holds(first.left.id)
    (failed,) = s.fleet.run([Task(referring(first), 0)], plain)
    assert isinstance(failed.error, OperandMissing)
    assert s.kinds[0] == (EventKind.EVICTED, "small")
    (done,) = s.fleet.run([Task(first, 0)], check)
    assert isinstance(done, Done)
    (done,) = s.fleet.run([Task(referring(first), 0)], plain)
    assert torch.allclose(done.value, compute(Op.PRODUCT, first.left.tensor, first.right.tensor, (1024,)))
    (failed,) = s.fleet.run([Task(product(rows=8192, k=64), 0)], check)
    assert isinstance(failed.error, NoWorkersLeft)  # refused: too large for it
    assert s.fleet.width == 1


def test_ctrl_c_leaves_connections_in_step_and_workers_alive(spawn):
    s = spawn(*workers_from("local:2", threads=1))
    main = threading.main_thread().ident
    with pytest.raises(KeyboardInterrupt):
        during_a_job(s.fleet, lambda: signal.pthread_kill(main, signal.SIGINT))
    jobs = [product() for _ in range(6)]
    done = s.fleet.run([Task(job, lane) for lane, job in enumerate(jobs)], check)
    assert {d.worker for d in done} == {"local-0", "local-1"}
    assert (s.events, s.fleet.width) == ([], 2)


def _open_fds():
    return len(os.listdir("/proc/self/fd"))


def test_close_leaves_no_thread_descriptor_or_process_behind():
    fds, threads = _open_fds(), threading.active_count()
    workers = workers_from("local:2", threads=1)
    fleet = Fleet(workers)
    fleet.run([Task(product(), lane) for lane in range(2)], check)
    busy = threading.Thread(target=fleet.run, args=([Task(long_product(), 0)], check))
    busy.start()
    time.sleep(0.3)
    started = time.monotonic()
    fleet.close()  # in the middle of a job
    assert time.monotonic() - started < 20
    busy.join(20)
    assert (_open_fds(), threading.active_count()) == (fds, threads)
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker.pid, 0)


def test_close_before_the_workers_said_hello():
    fds, threads = _open_fds(), threading.active_count()
    started = time.monotonic()
    Fleet(workers_from("local:2", threads=1)).close()
    assert time.monotonic() - started < 20
    assert (_open_fds(), threading.active_count()) == (fds, threads)


def test_a_dead_master_leaves_no_worker():
    code = (
        "import os, signal\n"
        "from tempo.fleet import ProcessWorker\n"
        "workers = [ProcessWorker(str(i)) for i in range(1)]\n"
        "for worker in workers: worker.connect()\n"
        "print(*(worker.pid for worker in workers), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 1
    until = time.monotonic() + 10
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)


def _alive(pid):
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_forked_child_leaves_its_parents_workers_alone():
    child = subprocess.run(  # a fork without exec, as a DataLoader makes it, in a process of its own
        [sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, text=True, timeout=60
    )
    assert child.stdout.split() == ["closed", "alive"], child.stderr


FORK = """
import os, time
from tempo.fleet import ProcessWorker
worker = ProcessWorker("w")
worker.connect()
pid = os.fork()
if not pid:
    worker.close()
    print("closed", flush=True)
    os._exit(0)
os.waitpid(pid, 0)
os.kill(worker.pid, 0)
worker.release([1], time.monotonic() + 5)
print("alive" if worker._process.poll() is None else "dead", flush=True)
worker.close()
"""
