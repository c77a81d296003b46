"""GET /metrics: what Prometheus gets, and what others do not."""

from __future__ import annotations

import select
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import tempo
from tempo.errors import OutsideError
from tempo.watch import endpoint
from tempo.watch.endpoint import Endpoint


@pytest.fixture
def served() -> Iterator[Endpoint]:
    server = Endpoint("127.0.0.1:0", lambda: "tempo_checks_total 7\n")
    yield server
    server.close()


def ask(served: Endpoint, request: bytes) -> bytes:
    host, _, port = served.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(request)
        return b"".join(iter(lambda: sock.recv(4096), b""))


def test_a_session_is_scraped_while_it_runs() -> None:
    with tempo.Session("cpu") as session:
        watch = session.watch(metrics="127.0.0.1:0")
        layer = session.protect(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)))
        layer(torch.randn(128, 64))
        with urllib.request.urlopen(f"http://{watch.address}/metrics", timeout=10) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            text = answer.read().decode()
        assert text == session.metrics()
    assert "tempo_products_total 1" in text
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://{watch.address}/metrics", timeout=2)
    assert not [t for t in threading.enumerate() if t.name == "tempo metrics"]


def test_prometheus_own_parser_reads_it() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    with tempo.Session("cpu") as session:
        families = {f.name for f in parser.text_string_to_metric_families(session.metrics())}
    assert {"tempo_checks", "tempo_steps", "tempo_workers_usable"} <= families


@pytest.mark.security
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /metrics/../secret<script> HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"501"),
        (b"BREW<script> / HTTP/1.1\r\n\r\n", b"501"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"431"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
)
def test_one_path_is_answered_and_nothing_is_sent_back(
    request_: bytes, status: bytes, served: Endpoint, capfd
) -> None:
    try:
        answer = ask(served, request_)
    except ConnectionResetError:  # it was answered and closed with bytes of ours unread
        answer = b""
    if answer:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert status in head.partition(b"\r\n")[0]
        assert body == {b"200": b"tempo_checks_total 7\n", b"404": b"only GET /metrics is answered\n"}.get(
            status, b""
        )
        assert b"script" not in answer
        assert b"Server" not in head
    assert capfd.readouterr().err == ""
    with urllib.request.urlopen(f"http://{served.address}/metrics", timeout=10) as answer_:
        assert answer_.status == 200


@pytest.mark.security
def test_who_sends_slowly_is_cut_and_who_crowds_is_turned_away(monkeypatch) -> None:
    monkeypatch.setattr(endpoint, "_SECONDS", 0.6)
    served = Endpoint("127.0.0.1:0", lambda: "x 1\n")
    host, _, port = served.address.rpartition(":")
    crowd = [socket.create_connection((host, int(port)), timeout=5) for _ in range(endpoint._CONNECTIONS)]
    try:
        time.sleep(0.2)
        assert ask(served, b"GET /metrics HTTP/1.0\r\n\r\n") == b"", "no connection is free"
    except ConnectionError:
        pass
    start = time.monotonic()
    slow = crowd[0]
    try:  # a byte now and then does not keep it open
        while time.monotonic() - start < 5 and not select.select([slow], [], [], 0.1)[0]:
            slow.sendall(b"G")
        assert slow.recv(1) == b""
    except ConnectionError:
        pass
    finally:
        for sock in crowd:
            sock.close()
    assert time.monotonic() - start < 3
    time.sleep(0.2)
    assert ask(served, b"GET /metrics HTTP/1.0\r\n\r\n").endswith(b"x 1\n")
    served.close()


def test_a_port_that_is_taken(served: Endpoint) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OutsideError, match="cannot be listened on"):
            Endpoint(f"127.0.0.1:{other.getsockname()[1]}", lambda: "")
