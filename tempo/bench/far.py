"""Jobs at workers, one by one and at all of them at once, past fleet and session: what calibration times."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import torch

from tempo.fleet import Worker
from tempo.ops import Job, Op, Operand

_FAR_S: Final = 600.0
#: Far above what a session on the same workers would count to.
_ids: Final = itertools.count(1 << 40)


def product(x_RK: torch.Tensor, w_1NK: torch.Tensor) -> Job:
    """X W^T; a worker keeps both operands until they are released."""
    return Job(Op.PRODUCT, _operand(x_RK), _operand(w_1NK), (x_RK.shape[0],))


def all_of(job: Job) -> frozenset[int]:
    return frozenset(operand.id for operand in job.operands)


def run(worker: Worker, job: Job, ship: frozenset[int] = frozenset()) -> None:
    """ship: operands to send first. The reply is not looked at."""
    worker.run(job, ship, time.monotonic() + _FAR_S)


def release(workers: Sequence[Worker], *jobs: Job) -> None:
    for worker in workers:
        for job in jobs:
            worker.release(all_of(job), time.monotonic() + _FAR_S)


def together(workers: Sequence[Worker], work: Callable[[Worker], None]) -> None:
    """On all workers at once. The first error of any is raised."""
    errors: list[BaseException] = []

    def guarded(worker: Worker) -> None:
        try:
            work(worker)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(worker,)) for worker in workers[1:]]
    for thread in threads:
        thread.start()
    guarded(workers[0])
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _operand(tensor: torch.Tensor) -> Operand:
    return Operand(next(_ids), tuple(tensor.shape), tensor.dtype, tensor, keep=True)
