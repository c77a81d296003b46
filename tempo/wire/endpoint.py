"""Where a worker listens, in one notation for both sides:

host:port   [v6]:port   unix:/absolute/path   vsock:CID:PORT (a VM and its host; CID "any" to listen)
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import queue
import re
import socket
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, final

from tempo.errors import OutsideError, UsageError, WorkerLost
from tempo.wire.deadline import DeadlinePassed, remaining

_FORMS = '"host:7443", "[2001:db8::1]:7443", "unix:/run/tempo.sock" or "vsock:CID:7443"'
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_ANY_CID = 0xFFFFFFFF
_MAX_PATH = 107  # of struct sockaddr_un, without its final zero
_BACKLOG = 64
_AGAIN_S = 0.01
# A peer that vanished without a word is noticed within a minute and a half, while no frame is due.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


@final
@dataclass(frozen=True, slots=True)
class Endpoint:
    """host: the name, the address, the path or the CID. port: 0 lets the system choose, to listen only."""

    kind: Literal["tcp", "unix", "vsock"]
    host: str
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Raises UsageError that says what was expected."""
        scheme, _, rest = text.partition(":")
        if scheme == "unix":
            if not rest.startswith("/") or "\0" in rest or len(os.fsencode(rest)) > _MAX_PATH:
                raise UsageError(f"{text!r}: a Unix socket is an absolute path of at most {_MAX_PATH} bytes")
            return cls("unix", rest)
        host, colon, port = text.rpartition(":")
        if not colon or not re.fullmatch(r"[0-9]{1,10}", port):
            raise UsageError(f"{text!r} is no endpoint: expected {_FORMS}")
        number = int(port)
        if re.fullmatch(r"vsock:(any|[0-9]{1,10})", host):
            cid = host.removeprefix("vsock:")
            if max(number, 0 if cid == "any" else int(cid)) >= _ANY_CID:
                raise UsageError(f"{text!r}: CID and port of a vsock have 32 bits")
            return cls("vsock", cid if cid == "any" else str(int(cid)), number)
        if number > 65535:
            raise UsageError(f"{text!r}: a TCP port is at most 65535")
        if host.startswith("[") and host.endswith("]"):
            with contextlib.suppress(ValueError):
                return cls("tcp", str(ipaddress.IPv6Address(host[1:-1])), number)
        elif host != "vsock" and _NAME.fullmatch(host):
            return cls("tcp", host, number)
        raise UsageError(f"{text!r} is no endpoint: expected {_FORMS}")

    def __str__(self) -> str:
        match self.kind:
            case "unix":
                return f"unix:{self.host}"
            case "vsock":
                return f"vsock:{self.host}:{self.port}"
            case "tcp":
                return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def tls_name(self) -> str:
        """The name that the worker's certificate must have. A vsock has no names: its CID serves."""
        return {"tcp": self.host, "vsock": f"vsock-{self.host}", "unix": "localhost"}[self.kind]

    def connect(
        self, deadline: float, opened: Callable[[socket.socket], object] = lambda sock: None
    ) -> socket.socket:
        """A connected socket. Raises WorkerLost, DeadlinePassed.

        opened: is given each socket before it connects; shutting it down there ends the attempt.
        """
        if self.kind != "unix" and (self.port == 0 or self.host == "any"):
            raise UsageError(f"{self}: port 0 and CID any are for listening: name the worker's own")
        failure = "it has no address"
        try:
            for family, address in self._addresses(deadline):
                sock = socket.socket(family, socket.SOCK_STREAM)
                try:
                    opened(sock)
                    self._connect(sock, address, deadline)
                except OSError as error:
                    sock.close()
                    if isinstance(error, TimeoutError) and error.errno is None:
                        raise
                    failure = reason(error)
                except BaseException:
                    sock.close()
                    raise
                else:
                    _keep_alive(sock)
                    return sock
        except TimeoutError:
            raise DeadlinePassed(f"{self} did not take a connection in time") from None
        except OSError as error:
            failure = reason(error)
        raise WorkerLost(f"{self} cannot be reached ({failure})")

    def listen(self) -> socket.socket:
        """A listening socket. Raises OutsideError where the address cannot be had."""
        try:
            family, address = self._bindable()
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                if self.kind == "tcp":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if self.kind == "unix":
                    self._bind_unix(sock)
                else:
                    sock.bind(address)
                sock.listen(_BACKLOG)
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            raise OutsideError(f"cannot listen on {self} ({reason(error)}): name another") from error
        return sock

    def bound(self, sock: socket.socket) -> Endpoint:
        """This endpoint with the port that the system chose."""
        if self.kind == "unix":
            return self
        return Endpoint(self.kind, self.host, sock.getsockname()[1])

    def unlink(self) -> None:
        """Remove what `listen` left in the file system."""
        if self.kind == "unix":
            with contextlib.suppress(OSError):
                os.unlink(self.host)

    def accepted(self, sock: socket.socket) -> None:
        """Prepare a connection that was just accepted here."""
        _keep_alive(sock)

    def _addresses(self, deadline: float) -> list[tuple[int, Any]]:
        match self.kind:
            case "unix":
                return [(socket.AF_UNIX, self.host)]
            case "vsock":
                return [(_vsock_family(), (int(self.host), self.port))]
            case "tcp":
                return _resolve(self.host, self.port, deadline)

    def _connect(self, sock: socket.socket, address: Any, deadline: float) -> None:
        while True:
            sock.settimeout(remaining(deadline))
            try:
                return sock.connect(address)
            except BlockingIOError:  # a Unix socket with a full backlog does not queue us: come again
                time.sleep(_AGAIN_S)

    def _bindable(self) -> tuple[int, Any]:
        match self.kind:
            case "unix":
                return socket.AF_UNIX, self.host
            case "vsock":
                return _vsock_family(), (_ANY_CID if self.host == "any" else int(self.host), self.port)
            case "tcp":
                found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
                return found[0][0], found[0][4]

    def _bind_unix(self, sock: socket.socket) -> None:
        """Only the owner may connect. A socket that a killed worker left behind is replaced."""
        before = os.umask(0o177)
        try:
            try:
                sock.bind(self.host)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not _is_dead(self.host):
                    raise
                os.unlink(self.host)
                sock.bind(self.host)
        finally:
            os.umask(before)


def reason(error: OSError) -> str:
    """The system's words for an error, never a peer's."""
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else type(error).__name__


def _is_dead(path: str) -> bool:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _vsock_family() -> int:
    family = getattr(socket, "AF_VSOCK", None)
    if family is None:
        raise UsageError("this Python knows no vsock: use TCP or a Unix socket")
    return int(family)


def _resolve(host: str, port: int, deadline: float) -> list[tuple[int, Any]]:
    """getaddrinfo within a deadline: the system's resolver knows none and may take half a minute."""
    answers: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            answers.put(error)

    threading.Thread(target=ask, name="tempo-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=remaining(deadline))
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, OSError):
        raise WorkerLost(f"{host} has no address (name not known)") from None
    return [(int(found[0]), found[4]) for found in answer]


def _keep_alive(sock: socket.socket) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
