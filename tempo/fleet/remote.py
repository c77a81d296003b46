"""A worker on another host. It may come back after a loss, with nothing of what it held."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Iterable
from typing import final

from tempo.errors import UsageError, WorkerLost
from tempo.fleet.client import Client
from tempo.fleet.worker import Worker
from tempo.ops import AnyJob, Unverified
from tempo.wire import Endpoint, TlsFiles, TlsRefused
from tempo.wire.renewal import Renewal
from tempo.wire.tls import handshake, wrap

DEFAULT_CONNECT_S = 10.0


@final
class RemoteWorker(Worker):
    """Construction touches no network; `connect` does.

    endpoint: "host:7443", "[v6]:7443", "vsock:CID:7443" or "unix:/path". tls: required unless it is a
    Unix socket, or unsafe_plaintext is said. connect_s: for name, connection, TLS and Hello together.
    reconnect_s, reconnect_most_s: first and longest pause before it is tried again.
    """

    depth = 2

    def __init__(
        self,
        endpoint: str | Endpoint,
        *,
        name: str = "",
        tls: TlsFiles | None = None,
        connect_s: float = DEFAULT_CONNECT_S,
        reconnect_s: float = 0.5,
        reconnect_most_s: float = 30.0,
        unsafe_plaintext: bool = False,
    ) -> None:
        self.endpoint = Endpoint.parse(endpoint) if isinstance(endpoint, str) else endpoint
        self.name = name or str(self.endpoint)
        if tls is None and self.endpoint.kind != "unix" and not unsafe_plaintext:
            raise UsageError(
                f"worker {self.name} is reached over a network, so it needs certificates: "
                "RemoteWorker(..., tls=TlsFiles(cert, key, ca))"
            )
        if not (connect_s > 0 and 0 < reconnect_s <= reconnect_most_s):
            raise UsageError("connect_s, reconnect_s and reconnect_most_s are positive, the last the longest")
        self._renewal = Renewal(tls, "master") if tls is not None else None
        self._context = tls.context("master") if tls is not None else None
        self._connect_s = connect_s
        self._pauses = (reconnect_s, reconnect_most_s)
        self._owner = os.getpid()
        self._lock = threading.Lock()  # guards the two below against `close`; never held across a socket
        self._client: Client | None = None
        self._closed = False
        self._dialling: socket.socket | None = None
        self._before = (0, 0)  # bytes of earlier connections

    @property
    def bytes_sent(self) -> int:
        client = self._client
        return self._before[0] + (client.bytes_sent if client is not None else 0)

    @property
    def bytes_received(self) -> int:
        client = self._client
        return self._before[1] + (client.bytes_received if client is not None else 0)

    def connect(self) -> None:
        if self._client is None:
            try:
                self._connect(time.monotonic() + self._connect_s)
            except BaseException:
                self.drop()
                raise

    def run(self, job: AnyJob, ship: frozenset[int], deadline: float) -> Unverified:
        return self._connected().run(job, ship, deadline)

    def begin(self, job: AnyJob, ship: frozenset[int], deadline: float) -> None:
        self._connected().begin(job, ship, deadline)

    def ready(self, seconds: float) -> bool:
        return self._connected().ready(seconds)

    def end(self, deadline: float) -> Unverified:
        return self._connected().end(deadline)

    def release(self, ids: Iterable[int], deadline: float) -> None:
        self._connected().release(ids, deadline)

    def drop(self) -> None:
        with self._lock:
            client, self._client = self._client, None
            dialling, self._dialling = self._dialling, None
        if client is not None:
            self._before = (self._before[0] + client.bytes_sent, self._before[1] + client.bytes_received)
            self._leave(client)
        if dialling is not None:
            dialling.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            client, dialling = self._client, self._dialling
        if client is not None:
            self._leave(client)
        if dialling is not None and os.getpid() == self._owner:
            with contextlib.suppress(OSError):  # wakes the thread that dials; it closes the socket
                socket.socket.shutdown(dialling, socket.SHUT_RDWR)

    def retry_s(self, attempt: int) -> float | None:
        """Doubles, with jitter, so that a restarted worker does not meet all its masters at once."""
        first, most = self._pauses
        return min(most, first * 2.0 ** min(attempt, 30)) * random.SystemRandom().uniform(0.5, 1.0)

    def _connect(self, deadline: float) -> None:
        sock = self.endpoint.connect(deadline, self._dial)
        if self._context is not None and self._renewal is not None:
            try:
                self._context = self._renewal.of(self._context)
            except WorkerLost:
                sock.close()
                raise
            sock = wrapped = wrap(sock, self._context, "master", self.endpoint.tls_name)
            self._dial(wrapped)
            try:
                handshake(wrapped, "master", deadline=deadline)
            except TlsRefused as refused:
                raise TlsRefused(refused.why, by_peer=refused.by_peer, whom=f"worker {self.name}") from None
        client = Client(sock, self.name)
        with self._lock:
            self._client, self._dialling = client, None
            if self._closed:
                raise WorkerLost(f"worker {self.name} is closed")
        try:
            client.handshake(deadline)
        except TlsRefused as refused:  # a worker says no to our certificate after our side is done
            raise TlsRefused(refused.why, by_peer=refused.by_peer, whom=f"worker {self.name}") from None

    def _dial(self, sock: socket.socket) -> None:
        with self._lock:
            self._dialling = sock
            if not self._closed:
                return
        raise WorkerLost(f"worker {self.name} is closed")

    def _connected(self) -> Client:
        client = self._client
        if client is None:
            raise WorkerLost(f"worker {self.name} is not connected")
        return client

    def _leave(self, client: Client) -> None:
        if os.getpid() == self._owner:
            client.close()
        else:
            client.abandon()  # a forked child must not say Bye on its parent's connection

    def __repr__(self) -> str:
        return f"RemoteWorker({str(self.endpoint)!r}, name={self.name!r})"
