"""What suite `seal` is measured against: AES-GCM without a file, and a file without AES-GCM."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from tempo.bench.timing import Work
from tempo.trust.sealed import DataKey
from tempo.trust.sealed.stream import SALT, SEGMENT, TAG, Segments

_PIECE: Final = 256 << 10


@final
@dataclass(frozen=True, slots=True)
class Case:
    """A row. baseline: names of the works of AES-GCM streamed, of it cached, and of the plain file."""

    work: Work
    op: str
    how: str
    record: int | None = None
    volume: int = 0
    aes: str | None = None
    plain: str | None = None
    prepare: Work | None = None


def aes_alone(plain: memoryview, out: memoryview) -> Iterator[tuple[str, Case]]:
    segments = Segments(DataKey.generate(), os.urandom(SALT), b"")
    count, whole = len(plain) // SEGMENT, SEGMENT + TAG
    sealed, one = memoryview(bytearray(count * whole)), memoryview(bytearray(SEGMENT))

    def seal() -> None:
        for i in range(count):
            into = sealed[i * whole : (i + 1) * whole]
            segments.seal_into(i, plain[i * SEGMENT : (i + 1) * SEGMENT], into, last=False)

    def unseal() -> None:
        for i in range(count):
            part = sealed[i * whole : (i + 1) * whole]
            segments.open_into(i, part, out[i * SEGMENT : (i + 1) * SEGMENT], last=False)

    def seal_one() -> None:
        # The nonce comes again, for the same bytes: nothing of it leaves this function.
        for _ in range(count):
            segments.seal_into(0, plain[:SEGMENT], sealed[:whole], last=False)

    def open_one() -> None:
        for _ in range(count):
            segments.open_into(0, sealed[:whole], one, last=False)

    yield "seal streamed", Case(seal, "aes-gcm seal", "streamed", aes="seal")
    yield "open streamed", Case(unseal, "aes-gcm open", "streamed", aes="open")
    yield "seal cached", Case(seal_one, "aes-gcm seal", "cached", aes="seal")
    yield "open cached", Case(open_one, "aes-gcm open", "cached", aes="open")


def plain_file(folder: Path, plain: memoryview) -> Iterator[tuple[str, Case]]:
    kept, path, piece = folder / "kept", folder / "plain", memoryview(bytearray(_PIECE))
    kept.write_bytes(plain)

    def read() -> None:
        with kept.open("rb", buffering=0) as file:
            while file.readinto(piece):
                pass

    def write(*, durable: bool) -> None:
        with path.open("wb", buffering=0) as file:
            for at in range(0, len(plain), _PIECE):
                file.write(plain[at : at + _PIECE])
            if durable:
                os.fsync(file.fileno())

    remove = lambda: path.unlink(missing_ok=True)  # noqa: E731
    yield "read", Case(read, "plain read", "page cache", aes="open")
    yield "write", Case(lambda: write(durable=False), "plain write", "written", aes="seal", prepare=remove)
    yield "durable", Case(lambda: write(durable=True), "plain write", "durable", aes="seal", prepare=remove)
