"""Where the master before this one is waited for. Whoever knocks has a thread and a few seconds of its own,
and of too many a random one is dropped, so strangers keep nobody out for long."""

from __future__ import annotations

import contextlib
import queue
import random
import socket
import ssl
import threading
import time
from typing import Final, final

from tempo.errors import OutsideError, TempoError
from tempo.masters.attestation import Attestation
from tempo.masters.introduction import introduce
from tempo.masters.messages import Words
from tempo.masters.place import Place
from tempo.masters.secret import Shared
from tempo.wire import TlsFiles
from tempo.wire.frame import Channel
from tempo.wire.tls import handshake, wrap

#: Seconds in which a stranger must have shown a certificate and said who it is; seconds for the rest.
_STRANGER_S: Final = 5.0
_PROOF_S: Final = 120.0
#: Who knock at a time.
_KNOCKING: Final = 64
_LOOK_S: Final = 0.1


@final
class Door:
    """One thread waits; any may close."""

    def __init__(
        self, place: Place, server: socket.socket, files: TlsFiles, attestation: Attestation
    ) -> None:
        files.context("peer")  # a wrong file is said now, not to strangers
        self._place, self._server, self._files, self._attestation = place, server, files, attestation
        self._came: queue.SimpleQueue[tuple[Channel[Words], Shared]] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards the three below
        self._knocking: list[ssl.SSLSocket] = []
        self._closed = False
        self._refused = "nobody came"

    def wait(self, deadline: float) -> tuple[Channel[Words], Shared]:
        """Raises OutsideError where nobody comes who may."""
        self._server.settimeout(_LOOK_S)
        while not self._closed and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                return self._came.get_nowait()
            try:
                raw, _ = self._server.accept()
            except TimeoutError:
                continue
            except OSError:  # out of descriptors, or somebody who has left again
                time.sleep(_LOOK_S)
                continue
            self._admit(raw, deadline)
        before, seconds = self._place.before, self._place.seconds
        raise OutsideError(
            f"master {before} did not join within {seconds:g} s ({self._refused}): does it run, with the "
            "same authority and the same run?"
        )

    def close(self) -> None:
        """Whoever waits need not, and who knocks is sent away. May be called again."""
        with self._lock:
            self._closed = True
            for sock in self._knocking:
                _cut(sock)
        with contextlib.suppress(queue.Empty):
            while True:
                self._came.get_nowait()[0].close()

    def _admit(self, raw: socket.socket, deadline: float) -> None:
        try:
            # Made anew for each, so that a new list of revoked certificates counts.
            sock = wrap(raw, self._files.context("peer"), "peer")
        except TempoError as error:
            raw.close()
            self._refused = str(error)
            return
        with self._lock:
            if len(self._knocking) >= _KNOCKING:
                _cut(self._knocking.pop(random.SystemRandom().randrange(_KNOCKING)))
            self._knocking.append(sock)
        thread = threading.Thread(target=self._greet, args=(sock, deadline), name="tempo-door", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads
            sock.close()

    def _greet(self, sock: ssl.SSLSocket, deadline: float) -> None:
        now = time.monotonic()
        first, last = min(deadline, now + _STRANGER_S), min(deadline, now + _PROOF_S)
        before = self._place.before
        found: tuple[Channel[Words], Shared] | None = None
        try:
            handshake(sock, "peer", deadline=first)
            found = introduce(
                sock, self._place, before, self._attestation, dials=False, first=first, deadline=last
            )
        except (TempoError, OSError) as error:
            self._refused = str(error)
        with self._lock:
            with contextlib.suppress(ValueError):
                self._knocking.remove(sock)
            if found is not None and not self._closed:
                self._came.put(found)
                return
        sock.close()


def _cut(sock: socket.socket) -> None:
    """From any thread: what waits on it wakes up."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
