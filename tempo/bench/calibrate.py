"""The constants of a roofline, measured: copies, products in the TEE, the link, the workers.

A roofline must not be beaten, so each rate is that of the fastest run, at sizes where a call costs nothing
beside its work, and what is no transfer (a round trip, a product) is subtracted from a transfer.
"""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import final

import torch

from tempo.bench.crew import Crew
from tempo.bench.roofline import Constants
from tempo.bench.timing import Repeats, Spread, interleaved, measure
from tempo.fleet import Worker
from tempo.ops import Job, Op, Operand

_FAR_S = 600.0
_SNDBUF = 4 << 20  # as the wire sets it on Unix sockets

#: Sends back what it gets, in a process of its own; the bare transport.
_ECHO = """
import socket, sys
sock, count = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
view = memoryview(bytearray(count))
while True:
    done = 0
    while done < count:
        got = sock.recv_into(view[done:])
        if not got:
            raise SystemExit
        done += got
    sock.sendall(view)
"""


_REPEATS = Repeats(least=3, most=7, seconds=1.0)


@final
@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the calibration itself. copy: elements. side: of square products. transfer: bytes. outer: of a
    worker's product. inner: its two inner lengths, whose difference in time holds no transfer."""

    copy: int = 1 << 24
    side: int = 2048
    transfer: int = 16 << 20
    outer: int = 1024
    inner: tuple[int, int] = (1024, 4096)
    repeats: Repeats = _REPEATS


#: Quick, and still large enough that a rate is one.
SMALL = Sizes(side=1024, inner=(512, 2048), repeats=Repeats(3, 5, 0.2))
#: A difference smaller than this share of the whole is noise.
_LEAST_SHARE = 0.01
LARGE = Sizes(1 << 25, 4096, 64 << 20, 4096, (4096, 32768))  # for a GPU


def constants(crew: Crew, workers: Sequence[Worker], sizes: Sizes | None = None) -> Constants:
    """Of this machine and these workers, which must be free."""
    sizes = sizes or (Sizes() if crew.shared else LARGE)
    for worker in workers:
        worker.connect()
    up, down = link_rates(workers, sizes)
    alone = None if crew.in_process else transport_rate(sizes.transfer, sizes.repeats)
    return Constants(
        copy=copy_rate(sizes.copy, sizes.repeats),
        tee_flops=tee_flops(sizes.side, sizes.repeats),
        up=up,
        down=down,
        alone=alone,
        round_trip=None if alone is None else 2 / (1 / up + 1 / down),
        worker_flops=worker_flops(workers, sizes),
        shared=crew.shared,
    )


def copy_rate(elements: int, repeats: Repeats) -> float:
    """float32 elements a second, into memory already touched."""
    source = torch.ones(elements)
    target = torch.empty_like(source)
    return elements / measure(lambda: target.copy_(source), repeats).low


def tee_flops(side: int, repeats: Repeats) -> dict[str, float]:
    """flop/s of a square product here, by arithmetic. bf16 is left out where the CPU only emulates it (a
    small product is slower than in float32 by half), since a large one would then take minutes."""
    a = torch.randn(side, side)
    small = torch.randn(256, 256)
    probe = interleaved(
        {"fp32": lambda: small @ small, "bf16": _product(small.bfloat16())}, Repeats(3, 5, 0.2)
    )
    works: dict[str, Callable[[], object]] = {"fp32": lambda: a @ a}
    if probe["bf16"].median < 1.5 * probe["fp32"].median:
        works["bf16"] = _product(a.bfloat16())
    return {name: 2 * side**3 / took.low for name, took in interleaved(works, repeats).items()}


def _product(a: torch.Tensor) -> Callable[[], object]:
    return lambda: a @ a


def link_rates(workers: Sequence[Worker], sizes: Sizes) -> tuple[float, float]:
    """Bytes a second (to, from) all workers at once.

    To: the same job with its operand shipped, less the same with the operand there already. From: a
    product whose reply is as large as the transfer, less one with as many multiplications and a reply of one
    number. The worker's allocation of the reply is still in it.
    """
    width = 1024
    rows = max(1, sizes.transfer // (4 * width))
    x = _operand(torch.ones(rows, width))
    job = Job(Op.PRODUCT, x, _operand(torch.ones(1, 1, width)), (rows,))
    _together(workers, lambda worker: _run(worker, job, all_of(job)))
    took = interleaved(
        {
            "shipped": lambda: _together(workers, lambda worker: _run(worker, job, frozenset({x.id}))),
            "there": lambda: _together(workers, lambda worker: _run(worker, job, frozenset())),
        },
        sizes.repeats,
    )
    up = len(workers) * job.left.nbytes / _more(took["shipped"], took["there"])
    side = max(1, int((sizes.transfer / 4) ** 0.5))
    large = Job(Op.PRODUCT, _operand(torch.ones(side, 1)), _operand(torch.ones(1, side, 1)), (side,))
    small = Job(Op.PRODUCT, _operand(torch.ones(1, side**2)), _operand(torch.ones(1, 1, side**2)), (1,))
    for each in (large, small):
        _together(workers, lambda worker, each=each: _run(worker, each, all_of(each)))  # type: ignore[misc]
    reply = interleaved(
        {
            "large": lambda: _together(workers, lambda worker: _run(worker, large, frozenset())),
            "small": lambda: _together(workers, lambda worker: _run(worker, small, frozenset())),
        },
        sizes.repeats,
    )
    _release(workers, job, large, small)
    return up, len(workers) * 4 * side * side / _more(reply["large"], reply["small"])


def _more(with_it: Spread, without: Spread) -> float:
    """Seconds that something took more, by the fastest runs of both."""
    return max(with_it.low - without.low, _LEAST_SHARE * with_it.low)


def worker_flops(workers: Sequence[Worker], sizes: Sizes) -> float:
    """flop/s of all workers at once, from two products that differ in their inner length alone."""
    short, long = (_square(sizes.outer, inner) for inner in sizes.inner)
    for job in (short, long):
        _together(workers, lambda worker, job=job: _run(worker, job, all_of(job)))  # type: ignore[misc]
    took = interleaved(
        {
            "short": lambda: _together(workers, lambda worker: _run(worker, short, frozenset())),
            "long": lambda: _together(workers, lambda worker: _run(worker, long, frozenset())),
        },
        sizes.repeats,
    )
    _release(workers, short, long)
    return len(workers) * (long.flops - short.flops) / _more(took["long"], took["short"])


def transport_rate(nbytes: int, repeats: Repeats) -> float:
    """Bytes a second, both ways together, over a bare Unix socket to a process that echoes."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SNDBUF)
    with ours, theirs:
        echo = subprocess.Popen(
            [sys.executable, "-S", "-c", _ECHO, str(theirs.fileno()), str(nbytes)],
            pass_fds=(theirs.fileno(),),
            stderr=subprocess.DEVNULL,
        )
        try:
            theirs.close()
            out, back = memoryview(bytearray(nbytes)), memoryview(bytearray(nbytes))

            def trip() -> None:
                ours.sendall(out)
                done = 0
                while done < nbytes:
                    got = ours.recv_into(back[done:])
                    if not got:
                        raise EOFError("the echo process ended")
                    done += got

            return 2 * nbytes / measure(trip, repeats).low
        finally:
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
            echo.kill()
            echo.wait()


def all_of(job: Job) -> frozenset[int]:
    return frozenset(operand.id for operand in job.operands)


#: Far above what a session on the same workers would count to.
_ids = itertools.count(1 << 40)


def _operand(tensor: torch.Tensor) -> Operand:
    return Operand(next(_ids), tuple(tensor.shape), tensor.dtype, tensor, keep=True)


def _square(outer: int, inner: int) -> Job:
    x, w = torch.randn(outer, inner), torch.randn(1, outer, inner)
    return Job(Op.PRODUCT, _operand(x), _operand(w), (outer,))


def _run(worker: Worker, job: Job, ship: frozenset[int]) -> None:
    worker.run(job, ship, time.monotonic() + _FAR_S)


def _release(workers: Sequence[Worker], *jobs: Job) -> None:
    for worker in workers:
        for job in jobs:
            worker.release(all_of(job), time.monotonic() + _FAR_S)


def _together(workers: Sequence[Worker], work: Callable[[Worker], None]) -> None:
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
