"""Takes connections, each in a thread of its own: what everything that listens has in common.

1. TLS, where there is a context: the socket is wrapped, the service does the handshake.
2. At most `max_handshakes` peers are greeted at a time; over that a random one is dropped for the newcomer,
   so strangers keep nobody out for long. A service says `greeted` once it knows the peer.
3. One of `places` for each peer that is served.
4. After `stop` nobody new is taken; those at rest are cut off at once, the others when the grace is over.

Knows no message and no secret: what is said on a connection is the service's.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, final

from tempo.errors import WorkerError
from tempo.wire.endpoint import Endpoint, reason
from tempo.wire.frame import Channel
from tempo.wire.renewal import Renewal
from tempo.wire.tls import Role, TlsFiles, wrap

_POLL_S: Final = 0.02
_PAUSE_S: Final = 0.1  # after accept failed: out of descriptors, say


@final
class Peer:
    """A connection. number: counted from 1. where: its address. Its own thread alone touches it, but for
    `cut` and what says whether it is at rest. channel: once the service has made it."""

    def __init__(self, sock: socket.socket, number: int, where: str) -> None:
        self.sock = sock
        self.number = number
        self.where = where
        self.channel: Channel[Any] | None = None

    def cut(self) -> None:
        """From any thread: what waits on it wakes up."""
        if self.channel is not None:
            return self.channel.close()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


@final
class Place:
    """One of the places, until `leave`."""

    def __init__(self, places: threading.Semaphore) -> None:
        self._places = places
        self._held = True

    def leave(self) -> None:
        """May be called again."""
        if self._held:
            self._held = False
            self._places.release()


class Service(ABC):
    """Abstract. What an acceptor does with a connection."""

    @abstractmethod
    def attend(self, peer: Peer) -> None:
        """All of a connection, in its thread; the socket blocks. WorkerError and OSError end it alone."""

    @abstractmethod
    def at_rest(self, peer: Peer) -> bool:
        """Whether it may be cut off at once when the service stops."""

    @abstractmethod
    def failed(self, peer: Peer, error: BaseException) -> None:
        """`attend` raised something else, in its thread."""

    @abstractmethod
    def left(self, peer: Peer) -> None:
        """It is over; the socket is closed after this."""

    @abstractmethod
    def tell(self, peer: Peer, what: str) -> None:
        """What became of it, in words of ours."""


@final
class Acceptor:
    """Listens once made; `serve` returns after `stop`, which any thread or signal handler may call.

    tls, role: of our side of TLS; None for a service without. A new list of revoked certificates counts from
    the next connection on. name: of its threads. log: gets a line where no connection can be taken.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        tls: TlsFiles | None,
        role: Role,
        *,
        max_handshakes: int,
        places: int,
        name: str,
        log: Callable[[str], None],
    ) -> None:
        # It looks before the context is made: a list that is replaced in between is read again.
        self._renewal = Renewal(tls, role) if tls else None
        self._context = tls.context(role) if tls else None
        self._role = role
        self._max_handshakes = max_handshakes
        self._places = threading.Semaphore(places)
        self._name = name
        self._log = log
        self._lock = threading.Lock()  # guards the two below
        self._greeting: list[Peer] = []
        self._peers: set[Peer] = set()
        self._count = 0
        self._stopping = False
        self._wake_out, self._wake_in = os.pipe()
        self._sock = endpoint.listen()
        self._sock.setblocking(False)
        self.endpoint = endpoint.bound(self._sock)

    @property
    def stopping(self) -> bool:
        return self._stopping

    def serve(
        self,
        service: Service,
        grace_s: float,
        *,
        idle: Callable[[], None] = lambda: None,
        every_s: float | None = None,
    ) -> None:
        """Accept until `stop`, then wind down. idle: called after each connection, and `every_s` seconds."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._sock, selectors.EVENT_READ)
                selector.register(self._wake_out, selectors.EVENT_READ)
                while not self._stopping:
                    ready = {key.fileobj for key, _ in selector.select(every_s)}
                    if self._sock in ready and not self._stopping:
                        self._accept(service)
                    idle()
        finally:
            self._stopping = True
            self._sock.close()
            self.endpoint.unlink()
            self._wind_down(service, grace_s)
            os.close(self._wake_out)
            os.close(self._wake_in)

    def stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            with contextlib.suppress(OSError):
                os.write(self._wake_in, b"x")

    def place(self) -> Place | None:
        """None: all are taken."""
        return Place(self._places) if self._places.acquire(blocking=False) else None

    def greeted(self, peer: Peer) -> None:
        """It is known, and is no longer dropped for a newcomer. May be called again."""
        with self._lock, contextlib.suppress(ValueError):
            self._greeting.remove(peer)

    def is_greeting(self, peer: Peer) -> bool:
        with self._lock:
            return peer in self._greeting

    def _accept(self, service: Service) -> None:
        try:
            sock, address = self._sock.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._log(f"cannot accept a connection ({reason(error)})")
            return time.sleep(_PAUSE_S)
        self._count += 1
        where = str(address[0]) if isinstance(address, tuple) else "this machine"
        if self._context is not None and self._renewal is not None:
            try:
                self._context = self._renewal.of(self._context)
                sock = wrap(sock, self._context, self._role)
            except WorkerError as error:
                self._log(f"connection {self._count} from {where}: refused: {error}")
                return sock.close()
        peer = Peer(sock, self._count, where)
        with self._lock:
            if len(self._greeting) >= self._max_handshakes:
                victim = random.SystemRandom().choice(self._greeting)
                self._greeting.remove(victim)
                victim.cut()
            self._greeting.append(peer)
            self._peers.add(peer)
        try:
            threading.Thread(target=self._run, args=(service, peer), name=self._name, daemon=True).start()
        except RuntimeError:  # no more threads
            self._forget(peer)

    def _run(self, service: Service, peer: Peer) -> None:
        try:
            peer.sock.setblocking(True)
            self.endpoint.accepted(peer.sock)
            service.attend(peer)
        except WorkerError as error:
            service.tell(peer, f"refused: {error}")
        except OSError as error:
            service.tell(peer, f"refused: {reason(error)}")
        except BaseException as error:
            service.failed(peer, error)
        finally:
            try:
                service.left(peer)
            finally:
                self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        self.greeted(peer)
        with self._lock:
            self._peers.discard(peer)
        with contextlib.suppress(OSError):
            peer.sock.close()

    def _wind_down(self, service: Service, grace_s: float) -> None:
        until = time.monotonic() + grace_s
        while peers := self._living():
            late = time.monotonic() > until
            for peer in peers:
                if late or service.at_rest(peer):
                    peer.cut()
            if time.monotonic() > until + grace_s:
                return  # what does not end is a daemon
            time.sleep(_POLL_S)

    def _living(self) -> list[Peer]:
        with self._lock:
            return list(self._peers)
