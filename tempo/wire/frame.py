"""Frames on a connected socket.

    frame  = prefix header payload
    prefix = 8 bytes, big-endian: 24 bits length of the header, 40 bits length of the payload
    header = one message in msgpack, decoded into its struct
    payload = the raw little-endian bytes of tensors, in the order that the header gives

Rules, and the attack that each one blocks:
- Both lengths are compared with their limits before a byte is allocated: no claim costs memory.
- Only Compute, Ring and Result may have a payload: no message smuggles bytes that nobody reads.
- Payloads are received into tensors that the receiver made from what it expects, and never past the
  length that was announced: a peer can neither overrun a buffer nor shift the next frame.
- Every frame has a deadline, kept across partial reads and writes: a peer that trickles single bytes
  holds nobody longer than one that is silent.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Literal, TypeVar, final

import torch
from torch import Tensor

from tempo.errors import ProtocolError, WorkerLost
from tempo.wire import limits
from tempo.wire.deadline import DeadlinePassed, remaining
from tempo.wire.messages import Message, encode
from tempo.wire.tls import TlsRefused, Why, refusal
from tempo.wire.waiting import LONGEST_S, poll_for, wait

_PREFIX = struct.Struct(">Q")
PREFIX_BYTES = _PREFIX.size
_PAYLOAD_BITS = 40
_SEND_BUFFER = 4 << 20
_SCRATCH = 1 << 20
# One write: under ssl the other direction waits for as long as it takes.
_PIECE = 1 << 20
_LAST_WORDS_S = 0.5
#: First bytes of a TLS handshake and of a TLS alert: lengths over any limit, read as a prefix.
_TLS_RECORDS = (b"\x16\x03", b"\x15\x03")

M = TypeVar("M", bound=Message)
#: Sees each piece of the stream as it arrived or left (what a worker's recorder is).
Tap = Callable[[Literal["arrived", "left"], memoryview], None]


def prefix(header: int, payload: int) -> bytes:
    """The eight bytes before a header. Lengths are the caller's claim (the tests' liar uses this too)."""
    return _PREFIX.pack(header << _PAYLOAD_BITS | payload)


def lengths(first: bytes | bytearray) -> tuple[int, int]:
    """Of the header and of the payload, as a prefix claims them."""
    (both,) = _PREFIX.unpack(first)
    return both >> _PAYLOAD_BITS, both & ((1 << _PAYLOAD_BITS) - 1)


def as_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy."""
    return tensor.detach().view(-1).view(torch.uint8).numpy().data


def let_it_read(sock: socket.socket) -> None:
    """Leave the peer a moment to read our last words. Closing over bytes of its that nobody read would
    reset the connection, and it would learn nothing."""
    until = time.monotonic() + _LAST_WORDS_S
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_WR)
        while (left := until - time.monotonic()) > 0:
            sock.settimeout(left)
            if not socket.socket.recv(sock, 1 << 16):  # past TLS, whose state may be lost
                return


@final
class Channel(Generic[M]):
    """One end of a connection. One thread may send while another receives; `close` is for any.

    The socket never blocks: a call that finds nothing to do waits in poll until its own deadline, so the
    directions do not share one. Under TLS they share the state of OpenSSL, hence a lock for each call
    on it, never held while waiting.

    decode: what this end accepts; `decode_request` on a worker, `decode_reply` on a master.
    After any error the stream is out of step and must be closed.
    """

    def __init__(
        self,
        sock: socket.socket,
        decode: Callable[[bytes | bytearray], M],
        tap: Tap | None = None,
        max_header: int = limits.MAX_HEADER,
    ) -> None:
        self._sock = sock
        self._decode, self._tap, self._max_header = decode, tap, max_header
        self._guard = threading.Lock()  # guards the two below
        self._inside = 0  # threads that use the socket
        self._closed = False
        self._calls = threading.Lock() if isinstance(sock, ssl.SSLSocket) else contextlib.nullcontext()
        self._waits = False  # for a frame to begin
        # Counted by a worker's server: two, since each is written by one thread.
        self.requests = 0
        self.answers = 0
        self.pending = 0  # bytes of the current payload that were not read yet
        self.bytes_sent = 0
        self.bytes_received = 0
        if sock.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        elif sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        # One for each direction: a poll object serves one thread at a time.
        self._polls = {event: poll_for(sock, event) for event in (select.POLLIN, select.POLLOUT)}

    @property
    def idle(self) -> bool:
        """Waits for a frame to begin, and all requests are answered."""
        return self._waits and self.requests == self.answers

    def ready(self, seconds: float) -> bool:
        """Whether `receive` would find something, the end included. Waits that long at most."""
        with self._touching("receiving", "unused"):
            return self._decrypted() or wait(self._polls[select.POLLIN], seconds)

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
        view = memoryview(data)
        with self._touching("sending", "the peer did not take a frame before its deadline"):
            while view:
                count = self._call(self._sock.send, view[:_PIECE], select.POLLOUT, deadline)
                if self._tap is not None:
                    self._tap("left", view[:count])
                self.bytes_sent += count
                view = view[count:]

    def receive(self, deadline: float | None) -> tuple[M, int]:
        """The next message and the length of its payload, which the caller has to `fill` or `drain`.

        deadline None waits for ever for a frame to begin, not for it to end.
        """
        if self.pending:
            raise ProtocolError(f"{self.pending} bytes of the last payload were not read")
        first = bytearray(_PREFIX.size)
        view = memoryview(first)
        self._waits = True
        try:
            self._read(view[:1], deadline)
        finally:
            self._waits = False
        if deadline is None:
            deadline = time.monotonic() + limits.FRAME_SECONDS
        self._read(view[1:], deadline)
        if bytes(first[:2]) in _TLS_RECORDS and not isinstance(self._sock, ssl.SSLSocket):
            raise TlsRefused(Why.UNASKED)
        length, payload = lengths(first)
        if length > self._max_header or payload > limits.MAX_PAYLOAD:
            raise ProtocolError(
                f"a frame claims a header of {length} and a payload of {payload} bytes; "
                f"at most {self._max_header} and {limits.MAX_PAYLOAD} are allowed"
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

    def wait_until_closed(self) -> None:
        """Return never: raise WorkerLost once the peer closes (how a worker keeps silent and still notices).
        Reads nothing, so another thread may."""
        with self._touching("receiving", "unused"):
            while not wait(poll_for(self._sock, select.POLLRDHUP), LONGEST_S):
                pass
            raise WorkerLost("the peer closed the connection")

    def leave(self) -> None:
        """Close once the peer had a moment to read our last message."""
        if not self._closed:
            let_it_read(self._sock)
        self.close()

    def close(self) -> None:
        """Close, and wake a thread of this process that waits in `send` or `receive`.

        The descriptor is closed by the last one out: OpenSSL would read on from its number, which may
        belong to another connection by then.
        """
        with self._guard:
            self._closed = True
            with contextlib.suppress(OSError):
                # Not SSLSocket's own shutdown, which takes its state away from under the other thread.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
            if not self._inside:
                self._sock.close()

    def abandon(self) -> None:
        """Drop this process's handle and leave the connection to the process it was forked from."""
        self._sock.close()

    def _read(self, view: memoryview, deadline: float | None) -> None:
        with self._touching("receiving", "a frame did not arrive before its deadline"):
            while view:
                count = self._call(self._sock.recv_into, view, select.POLLIN, deadline)
                if not count:
                    raise WorkerLost("the peer closed the connection")
                if self._tap is not None:
                    self._tap("arrived", view[:count])
                self.bytes_received += count
                view = view[count:]

    def _call(
        self, call: Callable[[memoryview], int], view: memoryview, event: int, deadline: float | None
    ) -> int:
        """A call on the socket, as soon as it need not wait. Raises TimeoutError."""
        # Under TLS a call in vain costs as much as half a record: ask first.
        ask = event == select.POLLIN and isinstance(self._sock, ssl.SSLSocket)
        while True:
            left = LONGEST_S if deadline is None else remaining(deadline)
            if ask and not self._decrypted() and not wait(self._polls[event], left):
                continue
            try:
                with self._calls:
                    return call(view)
            except BlockingIOError:
                wait(self._polls[event], left)
            except ssl.SSLWantReadError:
                wait(poll_for(self._sock, select.POLLIN), left)
            except ssl.SSLWantWriteError:
                wait(poll_for(self._sock, select.POLLOUT), left)

    def _decrypted(self) -> bool:
        """TLS has bytes for us that are no longer in the socket."""
        if not isinstance(self._sock, ssl.SSLSocket):
            return False
        with self._calls:
            return self._sock.pending() > 0

    @contextlib.contextmanager
    def _touching(self, doing: str, late: str) -> Iterator[None]:
        with self._guard:
            if self._closed:
                raise WorkerLost("the connection is closed")
            self._inside += 1
        try:
            yield
        except TimeoutError:
            raise DeadlinePassed(late) from None
        # Of another thread that closes: ValueError after it did, RuntimeError while it polls for its Bye.
        except (OSError, ValueError, RuntimeError) as error:
            refused = refusal(error) if isinstance(error, OSError) else None
            raise refused or WorkerLost(
                f"the connection broke while {doing} ({type(error).__name__})"
            ) from None
        finally:
            self._out()

    def _out(self) -> None:
        with self._guard:
            self._inside -= 1
            if self._closed and not self._inside:
                self._sock.close()
