"""Reads what a worker recorded: `for record in read(directory)`. What an attack gets to see.

Messages come in the order in which they were complete, one connection after the other; what stayed half
comes at the end of its connection. A file that was cut short is read as far as it goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, final

import torch
from torch import Tensor

from tempo.errors import DataError, ProtocolError
from tempo.ops import Half, Seed
from tempo.wire import Compute, Reply, Request, Result, Ring, decode_reply, decode_request, limits, nbytes
from tempo.wire.frame import PREFIX_BYTES, as_bytes, lengths
from tempo.worker.recorder import ARRIVED, HEAD, LEFT, MAGIC, NOTE, SUFFIX, VERSION

Direction = Literal["arrived", "left", "note"]
_DIRECTIONS: dict[int, Direction] = {ARRIVED: "arrived", LEFT: "left", NOTE: "note"}


@final
@dataclass(frozen=True, slots=True)
class Record:
    """A frame, or a note, whose text is then the header.

    connection: its file's name. seconds: monotonic, when its last byte passed. prefix: its first 8 bytes.
    complete: False where the stream ended first, or was no frame: then `raw` holds what there is.
    """

    connection: str
    direction: Direction
    seconds: float
    prefix: bytes
    header: bytes
    payload: bytes
    complete: bool

    @property
    def raw(self) -> bytes:
        """The bytes as they passed."""
        return self.prefix + self.header + self.payload

    @property
    def message(self) -> Request | Reply | None:
        """The header decoded; None where it is no message."""
        if self.direction == "note" or not self.complete:
            return None
        try:
            return decode_request(self.header) if self.direction == "arrived" else decode_reply(self.header)
        except ProtocolError:
            return None

    @property
    def operands(self) -> dict[int, Tensor]:
        """The tensors that a Compute ships, by id, and of a Ring what the worker computes with: its shares
        with seeds expanded, uint8 (H, P, *shape). For every other message none. Raises DataError where
        seeds stand for more than a payload may hold."""
        found: dict[int, Tensor] = {}
        message = self.message
        if not isinstance(message, Compute | Ring) or len(self.payload) != message.payload:
            return found
        if message.room > limits.MAX_PAYLOAD and message.room > message.payload:
            raise DataError(f"a record of {self.connection} has seeds that stand for {message.room} bytes")
        rest = memoryview(self.payload)
        for part in message.sent:
            shape, dtype = part.memory
            found[part.id] = tensor = torch.empty(shape, dtype=dtype)
            for place in part.places(tensor):
                if place.numel():
                    as_bytes(place)[:] = rest[: place.nbytes]
                rest = rest[place.nbytes :]
            part.complete(tensor)
        return found

    @property
    def shares(self) -> dict[int, tuple[Half, ...]]:
        """The shares that a Ring ships, by id, as they came: residues or seeds. For other messages none."""
        message = self.message
        if not isinstance(message, Ring):
            return {}
        operands = self.operands
        return {
            part.id: tuple(
                residues if key is None else Seed(key)
                for residues, key in zip(operands[part.id], part.halves, strict=True)
            )
            for part in message.parts
            if part.id in operands and part.sent
        }

    def result_of(self, request: Compute | Ring) -> Tensor:
        """The tensor of this Result, the reply to `request`. Raises ProtocolError where it is none."""
        shape, dtype = request.result
        if not isinstance(self.message, Result) or len(self.payload) != nbytes(shape, dtype):
            raise ProtocolError("this record is not the whole result of that request")
        if not self.payload:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(bytearray(self.payload), dtype=dtype).reshape(shape)


def read(directory: Path) -> Iterator[Record]:
    """All that was recorded in a folder. Raises DataError for a file that is no recording."""
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        with path.open("rb") as file:
            yield from _connection(path.name.removesuffix(SUFFIX), file)


def _connection(name: str, file: BinaryIO) -> Iterator[Record]:
    if file.read(len(MAGIC) + 2) != MAGIC + VERSION.to_bytes(2, "big"):
        raise DataError(f"{name} is no recording of version {VERSION}")
    streams = {ARRIVED: bytearray(), LEFT: bytearray()}
    seconds = {ARRIVED: 0.0, LEFT: 0.0}
    while len(head := file.read(HEAD.size)) == HEAD.size:
        kind, nanoseconds, length = HEAD.unpack(head)
        data = file.read(length)
        now = nanoseconds / 1e9
        if kind == NOTE:
            yield Record(name, "note", now, b"", data, b"", len(data) == length)
        elif kind in streams:
            streams[kind] += data
            seconds[kind] = now
            while (frame := _frame(streams[kind])) is not None:
                yield Record(name, _DIRECTIONS[kind], now, *frame, complete=True)
        else:
            raise DataError(f"{name} holds a record of unknown kind {kind}")
    for kind, rest in streams.items():
        if rest:
            yield Record(name, _DIRECTIONS[kind], seconds[kind], *_split(rest), complete=False)


def _frame(stream: bytearray) -> tuple[bytes, bytes, bytes] | None:
    """Takes the first frame off a stream, once it is whole."""
    if len(stream) < PREFIX_BYTES:
        return None
    header, payload = lengths(stream[:PREFIX_BYTES])
    whole = PREFIX_BYTES + header + payload
    if header > limits.MAX_HEADER or payload > limits.MAX_PAYLOAD or len(stream) < whole:
        return None
    found = _split(stream[:whole])
    del stream[:whole]
    return found


def _split(stream: bytearray) -> tuple[bytes, bytes, bytes]:
    first = bytes(stream[:PREFIX_BYTES])
    end = PREFIX_BYTES + (lengths(first)[0] if len(first) == PREFIX_BYTES else 0)
    return first, bytes(stream[PREFIX_BYTES:end]), bytes(stream[end:])
