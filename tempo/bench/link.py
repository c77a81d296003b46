"""What a link carries through workers, and what its bare transport carries, timed in turns: a machine's
rates drift by a third within a minute, and the ratio of the two is to be that of the same seconds."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Final, final

import torch

from tempo.bench import far
from tempo.bench.timing import Repeats, Work, interleaved
from tempo.fleet import Worker

_SNDBUF: Final = 4 << 20  # as the wire sets it on Unix sockets
#: Sends back what it gets, in a process of its own; the bare transport.
_ECHO: Final = """
import socket, sys
sock, count = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, int(sys.argv[3]))
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


@final
@dataclass(frozen=True, slots=True)
class Link:
    """Bytes a second. up, down: to and from all workers at once, each measured alone. alone: of the bare
    transport, both ways together; None where none was asked for."""

    up: float
    down: float
    alone: float | None


def link_rates(workers: Sequence[Worker], transfer: int, repeats: Repeats, *, bare: bool) -> Link:
    """Rates of transfers of `transfer` bytes, by the fastest runs.

    up: a job with its operand shipped, less the same with the operand there already. down: a product whose
    reply is as large as the transfer, less one with as many multiplications and a reply of one number. The
    worker's allocations are still in both. bare: time a bare Unix socket to a process that echoes as well.
    """
    width = 1024
    x = torch.ones(max(1, transfer // (4 * width)), width)
    up = far.product(x, torch.ones(1, 1, width))
    operand = frozenset({up.left.id})
    side = max(1, int((transfer / 4) ** 0.5))
    large = far.product(torch.ones(side, 1), torch.ones(1, side, 1))
    small = far.product(torch.ones(1, side**2), torch.ones(1, 1, side**2))
    for job in (up, large, small):
        far.together(workers, lambda worker, job=job: far.run(worker, job, far.all_of(job)))  # type: ignore[misc]
    works: dict[str, Work] = {
        "shipped": lambda: far.together(workers, lambda worker: far.run(worker, up, operand)),
        "there": lambda: far.together(workers, lambda worker: far.run(worker, up)),
        "large": lambda: far.together(workers, lambda worker: far.run(worker, large)),
        "small": lambda: far.together(workers, lambda worker: far.run(worker, small)),
    }
    # Each has as long as it would have by itself.
    repeats = Repeats(repeats.least, repeats.most, (len(works) + bare) * repeats.seconds)
    with _echo(transfer) if bare else nullcontext() as trip:
        took = interleaved(works if trip is None else {**works, "alone": trip}, repeats)
    far.release(workers, up, large, small)
    return Link(
        up=len(workers) * up.left.nbytes / took["shipped"].beyond(took["there"]),
        down=len(workers) * 4 * side**2 / took["large"].beyond(took["small"]),
        alone=2 * transfer / took["alone"].low if bare else None,
    )


@contextmanager
def _echo(nbytes: int) -> Iterator[Work]:
    """A round trip of so many bytes over a bare Unix socket to a process that echoes."""
    out, back = memoryview(bytearray(nbytes)), memoryview(bytearray(nbytes))
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SNDBUF)
    with ours, theirs:
        echo = subprocess.Popen(
            [sys.executable, "-S", "-c", _ECHO, str(theirs.fileno()), str(nbytes), str(_SNDBUF)],
            pass_fds=(theirs.fileno(),),
            stderr=subprocess.DEVNULL,
        )

        def trip() -> None:
            ours.sendall(out)
            done = 0
            while done < nbytes:
                got = ours.recv_into(back[done:])
                if not got:
                    raise EOFError("the echo process ended")
                done += got

        try:
            theirs.close()
            yield trip
        finally:
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
            echo.kill()
            echo.wait()
