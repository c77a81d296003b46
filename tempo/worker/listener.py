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
import os
import random
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from tempo.errors import OutsideError, UsageError, WorkerError
from tempo.wire import Channel, Endpoint, Request, TlsFiles, TlsRefused, Why, decode_request, limits
from tempo.wire.frame import let_it_read
from tempo.wire.renewal import Renewal
from tempo.wire.tls import handshake, wrap
from tempo.worker.executor import Executor
from tempo.worker.malicious import Lie, MaliciousWorker
from tempo.worker.recorder import DEFAULT_MAX_BYTES, Recorder, Recording
from tempo.worker.server import send_result, serve, turn_away

_POLL_S = 0.02
#: TLS alert "protocol version": tells a peer without TLS what this side speaks. OpenSSL sends it nothing.
#: Twice, so that it fills the prefix of a frame.
_ALERT = 2 * bytes.fromhex("15030100020246")
_PAUSE_S = 0.1  # after accept failed: out of descriptors, say


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
class _Peer:
    """A connection. Its own thread alone touches it, but for `cut`, `idle` and what `serve` reads."""

    def __init__(self, sock: socket.socket, number: int, where: str) -> None:
        self.sock = sock
        self.number = number
        self.where = where
        self.channel: Channel[Request] | None = None
        self.recording: Recording | None = None

    @property
    def idle(self) -> bool:
        return self.channel is None or self.channel.idle

    def cut(self) -> None:
        if self.channel is not None:
            return self.channel.close()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


@final
class Listener:
    """Listens once made; `serve` returns after `stop`, which any thread or signal handler may call.

    log: gets one line per connection that began, ended or was refused, in words of ours.
    """

    def __init__(self, settings: ListenSettings, log: Callable[[str], None] = lambda line: None) -> None:
        self._settings = settings
        self._log = log
        self._renewal = Renewal(settings.tls, "worker") if settings.tls else None
        self._context = settings.tls.context("worker") if settings.tls else None
        self._recorder = Recorder(settings.record, settings.record_bytes) if settings.record else None
        self._share = settings.memory // settings.max_connections
        _try_device(settings.device)
        self._places = threading.Semaphore(settings.max_connections)
        self._lock = threading.Lock()  # guards the two below
        self._greeting: list[_Peer] = []
        self._peers: set[_Peer] = set()
        self._count = 0
        self._stopping = False
        self._wake_out, self._wake_in = os.pipe()
        self._sock = settings.endpoint.listen()
        self._sock.setblocking(False)
        self.endpoint = settings.endpoint.bound(self._sock)

    def serve(self) -> None:
        """Accept until `stop`, then let frames under way end, then close everything."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._sock, selectors.EVENT_READ)
                selector.register(self._wake_out, selectors.EVENT_READ)
                while not self._stopping:
                    selector.select()
                    if not self._stopping:
                        self._accept()
        finally:
            self._stopping = True
            self._sock.close()
            self.endpoint.unlink()
            self._wind_down()
            os.close(self._wake_out)
            os.close(self._wake_in)

    def stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            with contextlib.suppress(OSError):
                os.write(self._wake_in, b"x")

    def _accept(self) -> None:
        try:
            sock, address = self._sock.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._log(f"cannot accept a connection ({error.strerror})")
            return time.sleep(_PAUSE_S)
        self._count += 1
        where = str(address[0]) if isinstance(address, tuple) else "this machine"
        if self._context is not None and self._renewal is not None:
            try:
                self._context = self._renewal.of(self._context)
                sock = wrap(sock, self._context, "worker")
            except WorkerError as error:
                self._log(f"connection {self._count} from {where}: refused: {error}")
                return sock.close()
        peer = _Peer(sock, self._count, where)
        with self._lock:
            if len(self._greeting) >= limits.MAX_HANDSHAKES:
                victim = random.SystemRandom().choice(self._greeting)
                self._greeting.remove(victim)
                victim.cut()
            self._greeting.append(peer)
            self._peers.add(peer)
        try:
            threading.Thread(target=self._run, args=(peer,), name="tempo-connection", daemon=True).start()
        except RuntimeError:  # no more threads
            self._forget(peer)

    def _run(self, peer: _Peer) -> None:
        try:
            peer.sock.setblocking(True)
            self.endpoint.accepted(peer.sock)
            if self._recorder is not None:
                peer.recording = self._recorder.connection(peer.number)
            self._tell(peer, "connected")
            self._attend(peer)
        except (WorkerError, OutsideError, OSError) as error:
            words = error.strerror if isinstance(error, OSError) else error
            self._tell(peer, f"refused: {words}")
        finally:
            self._forget(peer)

    def _attend(self, peer: _Peer) -> None:
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
        if not self._places.acquire(blocking=False):
            self._tell(peer, f"refused: all {self._settings.max_connections} connections are taken")
            return turn_away(channel, "busy", limits.HANDSHAKE_SECONDS)
        try:
            self._greeted(peer)
            self._tell(peer, f"serves {name}")
            executor = Executor(self._settings.device, self._share)
            lie = self._settings.unsafe_lie
            answer = send_result if lie is None else MaliciousWorker(channel, executor, lie).answer
            stopping = self._is_stopping
            hello_s = limits.HANDSHAKE_SECONDS
            self._tell(peer, serve(channel, executor, answer, hello_s=hello_s, stopping=stopping))
        finally:
            self._places.release()

    def _is_stopping(self) -> bool:
        return self._stopping

    def _secure(self, peer: _Peer) -> str:
        if not isinstance(peer.sock, ssl.SSLSocket):
            return "a master that is not identified"
        return handshake(peer.sock, "worker", deadline=time.monotonic() + limits.HANDSHAKE_SECONDS)

    def _channel(self, peer: _Peer) -> Channel[Request]:
        tap = peer.recording.tap if peer.recording is not None else None
        peer.channel = Channel(peer.sock, decode_request, tap)
        return peer.channel

    def _greeted(self, peer: _Peer) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._greeting.remove(peer)

    def _forget(self, peer: _Peer) -> None:
        self._greeted(peer)
        with self._lock:
            self._peers.discard(peer)
        if peer.recording is not None:
            peer.recording.close()
        with contextlib.suppress(OSError):
            peer.sock.close()

    def _wind_down(self) -> None:
        until = time.monotonic() + self._settings.grace_s
        while peers := self._living():
            late = time.monotonic() > until
            for peer in peers:
                if late or peer.idle:
                    peer.cut()
            if time.monotonic() > until + self._settings.grace_s:
                return  # a kernel that does not end: its thread is a daemon
            time.sleep(_POLL_S)

    def _living(self) -> list[_Peer]:
        with self._lock:
            return list(self._peers)

    def _tell(self, peer: _Peer, what: str) -> None:
        if peer.recording is not None:
            peer.recording.note(f"{peer.where}: {what}")
        self._log(f"connection {peer.number} from {peer.where}: {what}")


def _try_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"torch has no device {device!r} here: name cpu or cuda:N") from error
