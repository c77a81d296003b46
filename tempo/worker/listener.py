"""A worker that listens: many masters on one device, none of which can reach another's operands.

A connection, step by step, in a thread of its own:
1. TLS handshake and role, within HANDSHAKE_SECONDS; at most MAX_HANDSHAKES are under way.
2. One of `max_connections` places, or Refused(busy).
3. Hello within HANDSHAKE_SECONDS, then requests, each frame within its deadline.

The memory of the worker is divided evenly among the places, once and for all. So the cap holds whatever
they do, and nobody can evict another's operands or learn from evictions that there is another. For one
master alone, give one place.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from tempo.errors import OutsideError, UsageError
from tempo.wire import Channel, Endpoint, Request, TlsFiles, TlsRefused, Why, decode_request, limits
from tempo.wire.acceptor import Acceptor, Peer, Service
from tempo.wire.frame import let_it_read
from tempo.wire.tls import handshake
from tempo.worker.executor import Executor
from tempo.worker.malicious import Lie, MaliciousWorker
from tempo.worker.recorder import DEFAULT_MAX_BYTES, Recorder, Recording
from tempo.worker.server import send_result, serve, turn_away

#: TLS alert "protocol version": tells a peer without TLS what this side speaks. OpenSSL sends it nothing.
#: Twice, so that it fills the prefix of a frame.
_ALERT = 2 * bytes.fromhex("15030100020246")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListenSettings:
    """tls is required unless the endpoint is a Unix socket, or unsafe_plaintext is said."""

    endpoint: Endpoint
    device: str = "cpu"
    #: Bytes of operands and results, of all connections together.
    memory: int = 4 << 30
    max_connections: int = 4
    tls: TlsFiles | None = None
    #: Masters are not identified, and what they send travels in the clear.
    unsafe_plaintext: bool = False
    record: Path | None = None
    record_bytes: int = DEFAULT_MAX_BYTES
    #: Seconds that frames under way have to end after `stop`.
    grace_s: float = 10.0
    #: Answer some jobs of each connection falsely: for tests, chaos and demonstrations.
    unsafe_lie: Lie | None = None

    def __post_init__(self) -> None:
        if self.memory < self.max_connections or self.max_connections < 1:
            raise UsageError("a worker has one connection or more, and a byte of memory for each")
        if self.tls is None and self.endpoint.kind != "unix" and not self.unsafe_plaintext:
            raise UsageError(
                f"{self.endpoint} is no Unix socket, so it needs a certificate: give --cert, --key and "
                "--ca (tempo worker ca, tempo worker issue), or say --unsafe-plaintext"
            )


@final
class Listener(Service):
    """Listens once made; `serve` returns after `stop`, which any thread or signal handler may call.

    log: gets one line per connection that began, ended or was refused, in words of ours.
    """

    def __init__(self, settings: ListenSettings, log: Callable[[str], None] = lambda line: None) -> None:
        self._settings = settings
        self._log = log
        self._recorder = Recorder(settings.record, settings.record_bytes) if settings.record else None
        self._recordings: dict[int, Recording] = {}  # by connection; each thread has its own entry
        self._share = settings.memory // settings.max_connections
        _try_device(settings.device)
        self._acceptor = Acceptor(
            settings.endpoint,
            settings.tls,
            "worker",
            max_handshakes=limits.MAX_HANDSHAKES,
            places=settings.max_connections,
            name="tempo-connection",
            log=log,
        )

    @property
    def endpoint(self) -> Endpoint:
        """With the port that the system chose."""
        return self._acceptor.endpoint

    def serve(self) -> None:
        """Accept until `stop`, then let frames under way end, then close everything."""
        self._acceptor.serve(self, self._settings.grace_s)

    def stop(self) -> None:
        self._acceptor.stop()

    def attend(self, peer: Peer) -> None:
        try:
            if self._recorder is not None:
                self._recordings[peer.number] = self._recorder.connection(peer.number)
            self.tell(peer, "connected")
            self._attend(peer)
        except OutsideError as error:
            self.tell(peer, f"refused: {error}")

    def at_rest(self, peer: Peer) -> bool:
        return peer.channel is None or peer.channel.idle

    def failed(self, peer: Peer, error: BaseException) -> None:
        raise error  # a fault of ours: this thread says where, the others go on

    def left(self, peer: Peer) -> None:
        if recording := self._recordings.pop(peer.number, None):
            recording.close()

    def tell(self, peer: Peer, what: str) -> None:
        if recording := self._recordings.get(peer.number):
            recording.note(f"{peer.where}: {what}")
        self._log(f"connection {peer.number} from {peer.where}: {what}")

    def _attend(self, peer: Peer) -> None:
        try:
            name = self._secure(peer)
        except TlsRefused as refused:
            if refused.why is Why.WRONG_ROLE and isinstance(peer.sock, ssl.SSLSocket) and peer.sock.version():
                turn_away(self._channel(peer), "role", limits.HANDSHAKE_SECONDS)
            else:
                if refused.why is Why.NO_TLS:
                    with contextlib.suppress(OSError):
                        socket.socket.send(peer.sock, _ALERT)
                let_it_read(peer.sock)
            raise
        channel = self._channel(peer)
        place = self._acceptor.place()
        if place is None:
            self.tell(peer, f"refused: all {self._settings.max_connections} connections are taken")
            return turn_away(channel, "busy", limits.HANDSHAKE_SECONDS)
        try:
            self._acceptor.greeted(peer)
            self.tell(peer, f"serves {name}")
            executor = Executor(self._settings.device, self._share)
            lie = self._settings.unsafe_lie
            answer = send_result if lie is None else MaliciousWorker(channel, executor, lie).answer
            stopping = self._is_stopping
            hello_s = limits.HANDSHAKE_SECONDS
            self.tell(peer, serve(channel, executor, answer, hello_s=hello_s, stopping=stopping))
        finally:
            place.leave()

    def _is_stopping(self) -> bool:
        return self._acceptor.stopping

    def _secure(self, peer: Peer) -> str:
        if not isinstance(peer.sock, ssl.SSLSocket):
            return "a master that is not identified"
        return handshake(peer.sock, "worker", deadline=time.monotonic() + limits.HANDSHAKE_SECONDS)

    def _channel(self, peer: Peer) -> Channel[Request]:
        recording = self._recordings.get(peer.number)
        channel = Channel(peer.sock, decode_request, recording.tap if recording is not None else None)
        peer.channel = channel
        return channel


def _try_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"torch has no device {device!r} here: name cpu or cuda:N") from error
