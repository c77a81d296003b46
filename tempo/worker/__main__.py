"""`python -m tempo.worker`: a worker process on an inherited socket. It ends when that socket does."""

from __future__ import annotations

import argparse
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import torch

from tempo.wire import Channel, decode_request
from tempo.worker.executor import Executor
from tempo.worker.malicious import Lie, MaliciousWorker
from tempo.worker.recorder import Recorder
from tempo.worker.server import serve


def main(argv: Sequence[str] | None = None) -> int:
    # Ctrl-C in a terminal reaches the whole process group: the master decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError):
        parser.error(f"torch has no device {options.device!r} here")
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("highest")
    tap = None if options.record is None else Recorder(options.record).connection(1).tap
    channel = Channel(socket.socket(fileno=options.fd), decode_request, tap)
    executor = Executor(options.device, options.memory)
    if options.unsafe_lie is not None:
        MaliciousWorker(channel, executor, options.unsafe_lie).serve()
    else:
        serve(channel, executor)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tempo.worker", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="a connected socket, inherited from the master")
    parser.add_argument("--device", default="cpu", help="torch device: cpu, cuda:0 (default: %(default)s)")
    parser.add_argument("--threads", type=_positive, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument(
        "--memory",
        type=_positive,
        default=4 << 30,
        help="bytes of operands and results (default: %(default)s)",
    )
    parser.add_argument("--record", type=Path, metavar="DIR", help="write all that arrives and leaves here")
    parser.add_argument(
        "--unsafe-lie", type=_lie, metavar="KIND:FIRST:COUNT", help="answer some jobs wrongly, for tests"
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _lie(text: str) -> Lie:
    try:
        return Lie.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    raise SystemExit(main())
