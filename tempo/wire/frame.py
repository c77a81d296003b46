"""Frames on a connected socket.

    frame  = prefix header payload
    prefix = 8 bytes, big-endian: 24 bits length of the header, 40 bits length of the payload
    header = one message in msgpack, decoded into its struct
    payload = the raw little-endian bytes of tensors, in the order that the header gives

Rules, and the attack that each one blocks:
- Both lengths are compared with their limits before a byte is allocated: no claim costs memory.
- Only Compute and Result may have a payload: no message smuggles bytes that nobody reads.
- Payloads are received into tensors that the receiver made from what it expects, and never past the
  length that was announced: a peer can neither overrun a buffer nor shift the next frame.
- Every frame has a deadline, kept across partial reads and writes: a peer that trickles single bytes
  holds nobody longer than one that is silent.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, final

import torch
from torch import Tensor

from tempo.errors import ProtocolError, WorkerLost
from tempo.wire import limits
from tempo.wire.messages import Message, encode

_PREFIX = struct.Struct(">Q")
_PAYLOAD_BITS = 40
_SEND_BUFFER = 4 << 20
_SCRATCH = 1 << 20

M = TypeVar("M", bound=Message)


class DeadlinePassed(WorkerLost):
    """The peer is there, but a frame took longer than it may. The connection is out of step."""


def prefix(header: int, payload: int) -> bytes:
    """The eight bytes before a header. Lengths are the caller's claim (the tests' liar uses this too)."""
    return _PREFIX.pack(header << _PAYLOAD_BITS | payload)


def as_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy."""
    return tensor.detach().view(-1).view(torch.uint8).numpy().data


@final
class Channel(Generic[M]):
    """One end of a connection. Not thread-safe, except `close`.

    decode: what this end accepts; `decode_request` on a worker, `decode_reply` on a master.
    After any error the stream is out of step and must be closed.
    """

    def __init__(self, sock: socket.socket, decode: Callable[[bytes | bytearray], M]) -> None:
        self._sock = sock
        self._decode = decode
        self.pending = 0  # bytes of the current payload that were not read yet
        self.bytes_sent = 0
        self.bytes_received = 0
        if sock.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        elif sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: Message, tensors: Sequence[Tensor] = (), *, deadline: float) -> None:
        """Send a frame. Tensors: contiguous and on the CPU; they are written from where they are."""
        header = encode(message)
        payload = sum(tensor.nbytes for tensor in tensors)
        if len(header) > limits.MAX_HEADER or payload > limits.MAX_PAYLOAD:
            raise ProtocolError(f"a frame of {len(header)} and {payload} bytes is over the limits")
        self.send_raw(prefix(len(header), payload) + header, deadline=deadline)
        for tensor in tensors:
            if tensor.numel():
                self.send_raw(as_bytes(tensor), deadline=deadline)

    def send_raw(self, data: bytes | memoryview, *, deadline: float) -> None:
        """Bytes as they are: the body of `send`, and what a lying worker uses."""
        try:
            self._sock.settimeout(_remaining(deadline))
            self._sock.sendall(data)  # its time-out covers the whole, not each write
        except TimeoutError:
            raise DeadlinePassed("the peer did not take a frame before its deadline") from None
        except OSError as error:
            raise WorkerLost(f"the connection broke while sending ({_name(error)})") from None
        self.bytes_sent += len(data)

    def receive(self, deadline: float | None) -> tuple[M, int]:
        """The next message and the length of its payload, which the caller has to `fill` or `drain`.

        deadline None waits for ever for a frame to begin, not for it to end.
        """
        if self.pending:
            raise ProtocolError(f"{self.pending} bytes of the last payload were not read")
        first = bytearray(_PREFIX.size)
        view = memoryview(first)
        if deadline is None:
            self._read(view[:1], None)
            deadline, view = time.monotonic() + limits.FRAME_SECONDS, view[1:]
        self._read(view, deadline)
        (both,) = _PREFIX.unpack(first)
        length, payload = both >> _PAYLOAD_BITS, both & ((1 << _PAYLOAD_BITS) - 1)
        if length > limits.MAX_HEADER or payload > limits.MAX_PAYLOAD:
            raise ProtocolError(
                f"a frame claims a header of {length} and a payload of {payload} bytes; "
                f"at most {limits.MAX_HEADER} and {limits.MAX_PAYLOAD} are allowed"
            )
        header = bytearray(length)
        self._read(memoryview(header), deadline)
        message = self._decode(header)
        if payload and not message.carries_payload:
            raise ProtocolError(f"{type(message).__name__} came with {payload} bytes, it has no payload")
        self.pending = payload
        return message, payload

    def fill(self, tensor: Tensor, *, deadline: float) -> None:
        """Receive payload into the memory of a contiguous CPU tensor."""
        if tensor.nbytes > self.pending:
            raise ProtocolError(f"the payload has {self.pending} bytes left, expected {tensor.nbytes}")
        if tensor.numel():
            self._read(as_bytes(tensor), deadline)
        self.pending -= tensor.nbytes

    def drain(self, *, deadline: float) -> None:
        """Read the rest of the payload and forget it."""
        scratch = memoryview(bytearray(min(self.pending, _SCRATCH)))
        while self.pending:
            piece = scratch[: self.pending]
            self._read(piece, deadline)
            self.pending -= len(piece)

    def drain_until_closed(self) -> None:
        """Read and forget until the peer closes (how a worker keeps silent and still notices)."""
        while True:
            self._read(memoryview(bytearray(1)), None)

    def close(self) -> None:
        """Close, and wake a thread of this process that waits in `send` or `receive`."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def abandon(self) -> None:
        """Drop this process's handle and leave the connection to the process it was forked from."""
        self._sock.close()

    def _read(self, view: memoryview, deadline: float | None) -> None:
        try:
            while view:
                self._sock.settimeout(None if deadline is None else _remaining(deadline))
                count = self._sock.recv_into(view)
                if not count:
                    raise WorkerLost("the peer closed the connection")
                self.bytes_received += count
                view = view[count:]
        except TimeoutError:
            raise DeadlinePassed("a frame did not arrive before its deadline") from None
        except OSError as error:
            raise WorkerLost(f"the connection broke while receiving ({_name(error)})") from None


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def _name(error: OSError) -> str:
    return type(error).__name__
