"""Connections of masters under mutual TLS: what the vault does with each that `tempo.wire.acceptor` takes.

1. TLS handshake and role, within HANDSHAKE_SECONDS; at most MAX_HANDSHAKES are under way.
2. One of `max_connections` places, or `turn_away`.
3. `attend`, with the name in the master's certificate. Its place is free again before it answers: who asks
   again at once is not refused for its own last question.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from typing import Final, final

from tempo.errors import TempoError
from tempo.trust.vault.protocol import MAX_MESSAGE, Code, Request, decode_request
from tempo.wire import Channel, Endpoint, TlsFiles, TlsRefused, Why, limits
from tempo.wire.acceptor import Acceptor, Peer, Service
from tempo.wire.frame import let_it_read
from tempo.wire.tls import handshake

#: Handshakes under way: of fifty masters that start together none is dropped.
MAX_HANDSHAKES: Final = 64

#: One exchange; returns what came of it, in words of ours. The last argument gives its place back: to be
#: called before the answer is sent.
Attend = Callable[[Channel[Request], str, Callable[[], None]], str]
TurnAway = Callable[[Channel[Request], str, Code], None]


@final
class Masters(Service):
    """Listens once made; `serve` returns after `stop`, which any thread or signal handler may call.

    attend: one exchange. turn_away: answers whom it does not take. log: gets one line per connection that
    ended or was refused. An error of theirs that is no WorkerError ends `serve`, which raises it.
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
        self._attend = attend
        self._turn_away = turn_away
        self._log = log
        self._lock = threading.Lock()  # guards the one below
        self._fatal: BaseException | None = None
        self._acceptor = Acceptor(
            endpoint,
            tls,
            "vault",
            max_handshakes=MAX_HANDSHAKES,
            places=max_connections,
            name="tempo-vault",
            log=log,
        )

    @property
    def endpoint(self) -> Endpoint:
        """With the port that the system chose."""
        return self._acceptor.endpoint

    def serve(self, idle: Callable[[], None], every_s: float, grace_s: float) -> None:
        """Accept until `stop`, calling `idle` that often; then let exchanges end, at most `grace_s`."""
        self._acceptor.serve(self, grace_s, idle=idle, every_s=every_s)
        if self._fatal is not None:
            raise self._fatal

    def stop(self) -> None:
        self._acceptor.stop()

    def attend(self, peer: Peer) -> None:
        sock = peer.sock
        if not isinstance(sock, ssl.SSLSocket):
            raise AssertionError("a vault takes no connection without TLS")
        deadline = time.monotonic() + limits.HANDSHAKE_SECONDS
        try:
            name = handshake(sock, "vault", deadline=deadline)
        except TlsRefused as refused:
            if refused.why is Why.WRONG_ROLE and sock.version():
                channel = self._channel(peer)
                self._turn_away(channel, "", "role")
                channel.leave()
            else:
                let_it_read(sock)
            raise
        channel = self._channel(peer)
        self._acceptor.greeted(peer)
        place = self._acceptor.place()
        if place is None:
            self._turn_away(channel, name, "busy")
            channel.leave()
            return self.tell(peer, f"{name} turned away: all connections are taken")
        try:
            done = self._attend(channel, name, place.leave)
        finally:
            place.leave()
            channel.leave()
        self.tell(peer, f"{name} {done}")

    def at_rest(self, peer: Peer) -> bool:
        return self._acceptor.is_greeting(peer)

    def failed(self, peer: Peer, error: BaseException) -> None:
        what = str(error) if isinstance(error, TempoError) else type(error).__name__
        self.tell(peer, f"the vault cannot go on: {what}")
        with self._lock:
            self._fatal = self._fatal or error
        self.stop()

    def left(self, peer: Peer) -> None:
        return

    def tell(self, peer: Peer, what: str) -> None:
        self._log(f"connection {peer.number} from {peer.where}: {what}")

    def _channel(self, peer: Peer) -> Channel[Request]:
        channel = Channel(peer.sock, decode_request, max_header=MAX_MESSAGE)
        peer.channel = channel
        return channel
