"""Coverage-guided fuzzing of both sides of the wire and of the recording reader, with atheris (not in CI).

    python3.11 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris
    PYTHONPATH=.:$(echo .venv/lib/python3*/site-packages) OMP_NUM_THREADS=1 \
        /tmp/fuzz/bin/python tests/fuzz/fuzz_wire.py -max_total_time=180 -max_len=4096 CORPUS_FOLDER

The first byte of an input chooses the side; the rest is what a hostile peer sends, as a stream, or as a
list of headers to which the prefixes are added. Whatever it is: no exception but ours, memory bounded.
"""

import socket
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tempo.wire", "tempo.worker", "tempo.fleet", "tempo.ops"]):
    from tempo.errors import DataError, WorkerError
    from tempo.fleet.client import Client
    from tempo.ops import Job, Op, Operand, RingJob, RingOperand, Seed
    from tempo.wire import (
        Channel,
        Compute,
        Endpoint,
        Hello,
        Part,
        Refused,
        Release,
        Result,
        Ring,
        RingPart,
        Welcome,
        decode_request,
        encode,
    )
    from tempo.wire.frame import prefix
    from tempo.worker import Executor, serve
    from tempo.worker.recording import read

import torch

torch.set_num_threads(1)
MEMORY = 1 << 16
HELLO = encode(Hello(3))
X, W = torch.ones(2, 3), torch.ones(1, 4, 3)
JOB = Job(Op.PRODUCT, Operand(1, (2, 3), X.dtype, X, True), Operand(2, (1, 4, 3), W.dtype, W, True), (2,))
SHARE = torch.ones(5, 2, 3, dtype=torch.uint8)
SHARES = RingOperand(3, (2, 3), (Seed(bytes(32)), SHARE), True), RingOperand(4, (2, 3), (SHARE, SHARE), True)
RING = RingJob(Op.GRAD_W, *SHARES, (2,))


def frames(data: bytes) -> bytes:
    """Headers, each after two bytes of its length and two of its payload's, as whole frames."""
    out, at = b"", 0
    while at + 4 <= len(data):
        header, payload = (
            int.from_bytes(data[at : at + 2], "big"),
            int.from_bytes(data[at + 2 : at + 4], "big"),
        )
        body = data[at + 4 : at + 4 + header + payload]
        out += prefix(min(header, len(body)), max(0, len(body) - header)) + body
        at += 4 + header + payload
    return out


def pair(stream: bytes) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.sendall(stream)
    theirs.shutdown(socket.SHUT_WR)
    return ours, theirs


def worker(stream: bytes) -> None:
    ours, theirs = pair(stream)
    executor = Executor("cpu", MEMORY)
    serve(Channel(ours, decode_request), executor, hello_s=1.0)
    assert 0 <= executor.store.bytes <= MEMORY
    theirs.close()


def master(stream: bytes) -> None:
    ours, theirs = pair(stream)
    client = Client(ours, "w")
    try:
        client.handshake(time.monotonic() + 1)
        for job in (JOB, RING):
            for ship in (frozenset(operand.id for operand in job.operands), frozenset()):
                client.run(job, ship, time.monotonic() + 1)
    except WorkerError:
        pass
    client.close()
    theirs.close()


def recording(data: bytes, folder: Path) -> None:
    (folder / "x.tempo-rec").write_bytes(b"TEMPOREC\0\1" + data)
    try:
        for record in read(folder):
            if getattr(record.message, "room", 0) < 1 << 24:  # the reader's own limit is that of a payload
                record.operands, record.shares, record.raw  # noqa: B018
    except DataError:
        pass


def endpoint(data: bytes) -> None:
    try:
        parsed = Endpoint.parse(data.decode("utf-8", "replace"))
    except ValueError:  # UsageError is one
        return
    assert Endpoint.parse(str(parsed)) == parsed


def one(data: bytes, folder: Path) -> None:
    side, rest = (data[0] if data else 0), data[1:]
    match side % 6:
        case 0:
            worker(rest)
        case 1:
            worker(prefix(len(HELLO), 0) + HELLO + frames(rest))
        case 2:
            master(rest)
        case 3:
            welcome = encode(Welcome(3, ("f32", "f64", "bf16")))
            master(prefix(len(welcome), 0) + welcome + frames(rest))
        case 4:
            recording(rest, folder)
        case 5:
            endpoint(rest)


def seeds(folder: Path) -> None:
    part = [Part(1, (2, 3), "f32", True, True), Part(2, (1, 4, 3), "f32", True, True)]
    shares = [RingPart(3, (2, 3), (bytes(32), None), True), RingPart(4, (2, 3), (None, None), True)]
    whole = [
        (1, encode(Compute(1, "product", *part, (2,), "fp32")), X.nbytes + W.nbytes),
        (1, encode(Ring(1, "grad_w", *shares, (2,))), 3 * SHARE.nbytes),
        (1, encode(Release((1, 2))), 0),
        (3, encode(Result(1)), 32),
        (3, encode(Result(3)), 45),
        (3, encode(Refused("memory", 1)), 0),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for number, (side, header, payload) in enumerate(whole):
        head = len(header).to_bytes(2, "big") + payload.to_bytes(2, "big")
        (folder / f"seed-{number}").write_bytes(bytes([side]) + 2 * (head + header + bytes(payload)))
    (folder / "seed-stream").write_bytes(b"\0" + 2 * (prefix(len(HELLO), 0) + HELLO))
    record = b"\0" + bytes(8) + len(whole[0][1]).to_bytes(4, "big")
    (folder / "seed-recording").write_bytes(b"\4" + record + prefix(len(HELLO), 0) + HELLO)
    for number, text in enumerate(["gpu-a:7443", "[::1]:1", "unix:/x", "vsock:3:4"]):
        (folder / f"seed-endpoint-{number}").write_bytes(b"\5" + text.encode())


def main() -> None:
    corpora = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    for corpus in corpora:
        seeds(Path(corpus))
    with tempfile.TemporaryDirectory() as folder:
        atheris.Setup(sys.argv, lambda data: one(data, Path(folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
