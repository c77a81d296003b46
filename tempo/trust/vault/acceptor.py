"""Takes connections of masters under mutual TLS, each in a thread of its own.

1. TLS handshake and role, within HANDSHAKE_SECONDS; at most MAX_HANDSHAKES are under way, over that a random
   one is dropped for the newcomer, so strangers keep nobody out for long.
2. One of `max_connections` places, or `turn_away`.
3. `attend`, with the name in the master's certificate.
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
from typing import Final, final

from tempo.errors import TempoError, WorkerError
from tempo.trust.vault.protocol import MAX_MESSAGE, Code, Request, decode_request
from tempo.wire import Channel, Endpoint, TlsFiles, TlsRefused, Why, limits
from tempo.wire.endpoint import reason
from tempo.wire.frame import let_it_read
from tempo.wire.renewal import Renewal
from tempo.wire.tls import handshake, wrap

#: Handshakes under way: of fifty masters that start together none is dropped.
MAX_HANDSHAKES: Final = 64
_PAUSE_S: Final = 0.1  # after accept failed: out of descriptors, say
_POLL_S: Final = 0.02

Attend = Callable[[Channel[Request], str], str]
TurnAway = Callable[[Channel[Request], str, Code], None]


@final
class _Peer:
    """A connection. Its own thread alone touches it, but for `cut`."""

    def __init__(self, sock: ssl.SSLSocket, number: int, where: str) -> None:
        self.sock = sock
        self.number = number
        self.where = where
        self.channel: Channel[Request] | None = None

    def cut(self) -> None:
        if self.channel is not None:
            return self.channel.close()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


@final
class Acceptor:
    """Listens once made; `serve` returns after `stop`, which any thread or signal handler may call.

    attend: one exchange; returns what came of it, in words of ours. turn_away: answers whom it does not
    take. log: gets one line per connection that ended or was refused. An error of theirs that is no
    WorkerError ends `serve`, which raises it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        tls: TlsFiles,
        max_connections: int,
        attend: Attend,
        turn_away: TurnAway,
        log: Callable[[str], None],
    ) -> None:
        self._renewal = Renewal(tls, "vault")
        self._context = tls.context("vault")
        self._attend = attend
        self._turn_away = turn_away
        self._log = log
        self._places = threading.Semaphore(max_connections)
        self._lock = threading.Lock()  # guards the three below
        self._greeting: list[_Peer] = []
        self._peers: set[_Peer] = set()
        self._fatal: BaseException | None = None
        self._count = 0
        self._stopping = False
        self._wake_out, self._wake_in = os.pipe()
        self._sock = endpoint.listen()
        self._sock.setblocking(False)
        self.endpoint = endpoint.bound(self._sock)

    def serve(self, idle: Callable[[], None], every_s: float, grace_s: float) -> None:
        """Accept until `stop`, calling `idle` that often; then let exchanges end, at most `grace_s`."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._sock, selectors.EVENT_READ)
                selector.register(self._wake_out, selectors.EVENT_READ)
                while not self._stopping:
                    ready = {key.fileobj for key, _ in selector.select(every_s)}
                    if self._sock in ready and not self._stopping:
                        self._accept()
                    idle()
        finally:
            self._stopping = True
            self._sock.close()
            self.endpoint.unlink()
            self._wind_down(grace_s)
            os.close(self._wake_out)
            os.close(self._wake_in)
        if self._fatal is not None:
            raise self._fatal

    def stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            with contextlib.suppress(OSError):
                os.write(self._wake_in, b"x")

    def _accept(self) -> None:
        try:
            raw, address = self._sock.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._log(f"cannot accept a connection ({reason(error)})")
            return time.sleep(_PAUSE_S)
        self._count += 1
        where = str(address[0]) if isinstance(address, tuple) else "this machine"
        try:
            self._context = self._renewal.of(self._context)
            sock = wrap(raw, self._context, "vault")
        except WorkerError as error:
            self._log(f"connection {self._count} from {where}: refused: {error}")
            return raw.close()
        peer = _Peer(sock, self._count, where)
        with self._lock:
            if len(self._greeting) >= MAX_HANDSHAKES:
                victim = random.SystemRandom().choice(self._greeting)
                self._greeting.remove(victim)
                victim.cut()
            self._greeting.append(peer)
            self._peers.add(peer)
        try:
            threading.Thread(target=self._run, args=(peer,), name="tempo-vault", daemon=True).start()
        except RuntimeError:  # no more threads
            self._forget(peer)

    def _run(self, peer: _Peer) -> None:
        try:
            peer.sock.setblocking(True)
            self.endpoint.accepted(peer.sock)
            self._tell(peer, self._serve(peer))
        except WorkerError as error:
            self._tell(peer, f"refused: {error}")
        except OSError as error:
            self._tell(peer, f"refused: {reason(error)}")
        except BaseException as error:
            what = str(error) if isinstance(error, TempoError) else type(error).__name__
            self._tell(peer, f"the vault cannot go on: {what}")
            with self._lock:
                self._fatal = self._fatal or error
            self.stop()
        finally:
            self._forget(peer)

    def _serve(self, peer: _Peer) -> str:
        deadline = time.monotonic() + limits.HANDSHAKE_SECONDS
        try:
            name = handshake(peer.sock, "vault", deadline=deadline)
        except TlsRefused as refused:
            if refused.why is Why.WRONG_ROLE and peer.sock.version():
                channel = self._channel(peer)
                self._turn_away(channel, "", "role")
                channel.leave()
            else:
                let_it_read(peer.sock)
            raise
        channel = self._channel(peer)
        self._greeted(peer)
        if not self._places.acquire(blocking=False):
            self._turn_away(channel, name, "busy")
            channel.leave()
            return f"{name} turned away: all connections are taken"
        try:
            done = self._attend(channel, name)
        finally:
            self._places.release()
            channel.leave()
        return f"{name} {done}"

    def _channel(self, peer: _Peer) -> Channel[Request]:
        peer.channel = Channel(peer.sock, decode_request, max_header=MAX_MESSAGE)
        return peer.channel

    def _greeted(self, peer: _Peer) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._greeting.remove(peer)

    def _forget(self, peer: _Peer) -> None:
        self._greeted(peer)
        with self._lock:
            self._peers.discard(peer)
        with contextlib.suppress(OSError):
            peer.sock.close()

    def _wind_down(self, grace_s: float) -> None:
        until = time.monotonic() + grace_s
        while True:
            with self._lock:
                peers = list(self._peers)
                greeting = set(self._greeting)
            late = time.monotonic() > until
            for peer in peers:
                if late or peer in greeting:
                    peer.cut()
            if not peers or time.monotonic() > until + grace_s:
                return  # what does not end is a daemon
            time.sleep(_POLL_S)

    def _tell(self, peer: _Peer, what: str) -> None:
        self._log(f"connection {peer.number} from {peer.where}: {what}")
