"""`GET /metrics` for Prometheus, in a thread of its own. It says counters and timings, and hears nothing.

Whoever reaches it may connect, so: one path, no body read, headers within the limits of http.server, a few
connections at once, each with a deadline; nothing of a request is logged or sent back.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any, Final, final

from tempo.errors import OutsideError, UsageError

_SECONDS: Final = 5.0
_CONNECTIONS: Final = 4
_KIND: Final = "text/plain; version=0.0.4; charset=utf-8"
_ADDRESS: Final = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^\s:\[\]/]+)):(?P<port>[0-9]{1,5})")


@final
class Endpoint:
    """text: asked at each request. Raises UsageError for an address that is none, OutsideError where it is
    taken."""

    def __init__(self, address: str, text: Callable[[], str]) -> None:
        found = _ADDRESS.fullmatch(address)
        if found is None or int(found["port"]) > 65535:
            raise UsageError(f"watch.metrics = {address!r}: expected HOST:PORT, such as 127.0.0.1:9464")
        family = socket.AF_INET6 if found["v6"] else socket.AF_INET
        host = found["v6"] or found["host"]
        try:
            self._server = _Server(family, (host, int(found["port"])), text)
        except OSError as error:
            raise OutsideError(
                f"watch.metrics: {address} cannot be listened on ({error.strerror}): name another port"
            ) from error
        self.address = f"[{host}]" if found["v6"] else host
        self.address += f":{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="tempo metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """May be called again."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@final
class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, family: int, where: tuple[str, int], text: Callable[[], str]) -> None:
        self.address_family = family
        self.text = text
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(where, _Handler)

    def server_bind(self) -> None:
        """Without the name service, which HTTPServer would ask for this host's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # However slowly bytes come, the connection ends: the socket's own timeout starts again with each.
        cut = threading.Timer(_SECONDS, self.shutdown_request, (request,))
        cut.daemon = True
        cut.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away is no event."""


@final
class _Handler(BaseHTTPRequestHandler):
    timeout = _SECONDS
    server: _Server

    def do_GET(self) -> None:
        if self.path != "/metrics":
            self._answer(HTTPStatus.NOT_FOUND, "only GET /metrics is answered\n", "text/plain")
        else:
            self._answer(HTTPStatus.OK, self.server.text(), _KIND)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Without the words of the request, which the library's own page quotes."""
        self._answer(HTTPStatus(code), "", "text/plain")

    def _answer(self, status: HTTPStatus, text: str, kind: str) -> None:
        body = text.encode()
        self.close_connection = True
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not on standard error."""
