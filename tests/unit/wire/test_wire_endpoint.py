"""Endpoints: the notation, and sockets that come of it."""

import socket
import threading
import time

import pytest

from tempo.errors import OutsideError, UsageError, WorkerLost
from tempo.wire import DeadlinePassed, Endpoint


def soon(seconds=5.0):
    return time.monotonic() + seconds


@pytest.mark.parametrize(
    ("text", "endpoint", "tls_name"),
    [
        ("gpu-a:7443", Endpoint("tcp", "gpu-a", 7443), "gpu-a"),
        ("gpu-a.example.org:0", Endpoint("tcp", "gpu-a.example.org", 0), "gpu-a.example.org"),
        ("10.0.0.1:7443", Endpoint("tcp", "10.0.0.1", 7443), "10.0.0.1"),
        ("[2001:db8::1]:7443", Endpoint("tcp", "2001:db8::1", 7443), "2001:db8::1"),
        ("unix:/run/tempo.sock", Endpoint("unix", "/run/tempo.sock"), "localhost"),
        ("unix:/run/a:7443", Endpoint("unix", "/run/a:7443"), "localhost"),
        ("vsock:3:7443", Endpoint("vsock", "3", 7443), "vsock-3"),
        ("vsock:any:70000", Endpoint("vsock", "any", 70000), "vsock-any"),
    ],
)
def test_notation(text, endpoint, tls_name):
    assert Endpoint.parse(text) == endpoint
    assert str(endpoint) == text
    assert endpoint.tls_name == tls_name


@pytest.mark.parametrize(
    "text",
    [
        *("", "gpu-a", "gpu-a:", ":7443", "gpu-a:x", "gpu-a:-1", "gpu-a:65536", "gpu-a:7443 ", "gpu a:7443"),
        *("2001:db8::1:7443", "[2001:db8::g]:7443", "[gpu-a]:7443", "[]:7443", "http://gpu-a:7443"),
        *("unix:", "unix:relative", "unix:/" + "x" * 107, "unix:/a\0b"),
        *("vsock:3", "vsock::7443", "vsock:-1:7443", "vsock:4294967295:1", "vsock:3:4294967295", "vsock:x:1"),
        *("-gpu:7443", "gpu-a:٣", "gpu-a:7443\n", "a" * 300 + ":1"),
    ],
)
def test_what_is_no_endpoint_is_said(text):
    with pytest.raises(UsageError):
        Endpoint.parse(text)


def meet(endpoint):
    """A connection over a listening endpoint, from end to end."""
    listening = endpoint.listen()
    try:
        ours = endpoint.bound(listening).connect(soon())
        theirs, _ = listening.accept()
        with ours, theirs:
            ours.sendall(b"there")
            assert theirs.recv(5) == b"there"
            return ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    finally:
        listening.close()


def test_tcp_over_both_families():
    assert meet(Endpoint.parse("127.0.0.1:0")) == 1
    assert meet(Endpoint.parse("localhost:0")) == 1
    if socket.has_ipv6:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            return  # no address ::1 on this machine
        meet(Endpoint.parse("[::1]:0"))


def test_a_unix_socket_is_its_owners_alone_and_a_dead_one_is_replaced(tmp_path):
    endpoint = Endpoint.parse(f"unix:{tmp_path}/s")
    meet(endpoint)  # leaves its file behind, as a killed worker does
    meet(endpoint)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    alive = endpoint.listen()
    with pytest.raises(OutsideError, match="in use"):
        endpoint.listen()
    alive.close()
    endpoint.unlink()
    (tmp_path / "s").write_text("a file of somebody's")
    with pytest.raises(OutsideError, match="in use"):
        endpoint.listen()
    assert (tmp_path / "s").read_text()


def test_an_address_that_cannot_be_had():
    with pytest.raises(OutsideError, match=r"cannot listen on 192\.0\.2\.1:7443"):
        Endpoint.parse("192.0.2.1:7443").listen()


def test_why_a_worker_cannot_be_reached(tmp_path, monkeypatch):
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    with pytest.raises(WorkerLost, match="connection refused"):
        Endpoint.parse(f"127.0.0.1:{port}").connect(soon())
    with pytest.raises(WorkerLost, match="no such file"):
        Endpoint.parse(f"unix:{tmp_path}/none").connect(soon())
    with pytest.raises(UsageError, match="for listening"):
        Endpoint.parse("127.0.0.1:0").connect(soon())

    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(WorkerLost, match="no address"):
        Endpoint.parse("nowhere.invalid:1").connect(soon())


def test_a_resolver_that_does_not_answer_is_left_at_the_deadline(monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: go.wait(60) and [])
    started = time.monotonic()
    with pytest.raises(DeadlinePassed):
        Endpoint.parse("slow.example:1").connect(soon(0.2))
    go.set()
    assert time.monotonic() - started < 10


def test_a_host_that_does_not_answer_is_left_at_the_deadline():
    with socket.socket() as deaf:  # a backlog that is full takes no further connection
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        full = [socket.socket() for _ in range(4)]
        try:
            for sock in full:
                sock.setblocking(False)
                sock.connect_ex(deaf.getsockname())
            with pytest.raises(DeadlinePassed, match="in time"):
                Endpoint("tcp", "127.0.0.1", deaf.getsockname()[1]).connect(soon(0.3))
        finally:
            for sock in full:
                sock.close()


# ---- vsock: this machine may have none, so the address and the calls are tested ------------------


class Recorded:
    """Stands in for a socket where a vsock cannot be had."""

    made: list = []

    def __init__(self, family, kind):
        self.calls = [("socket", family)]
        Recorded.made.append(self)

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))

    family = 40


@pytest.mark.skipif(not hasattr(socket, "AF_VSOCK"), reason="this Python knows no vsock")
def test_a_vsock_is_addressed_by_cid_and_port(monkeypatch):
    Recorded.made = []
    monkeypatch.setattr(socket, "socket", Recorded)
    Endpoint.parse("vsock:3:7443").connect(soon())
    Endpoint.parse("vsock:any:7443").listen()
    Endpoint.parse("vsock:5:7443").listen()
    dialled, anywhere, own = (made.calls for made in Recorded.made)
    assert dialled[0] == ("socket", socket.AF_VSOCK)
    assert ("connect", (3, 7443)) in dialled
    assert ("bind", (socket.VMADDR_CID_ANY, 7443)) in anywhere
    assert ("bind", (5, 7443)) in own


def test_a_vsock_for_real_where_the_kernel_has_its_loopback():
    endpoint = Endpoint.parse("vsock:1:54321")
    try:
        endpoint.listen().close()
    except (OutsideError, UsageError):
        pytest.skip("no vsock loopback (modprobe vsock_loopback)")
    meet(endpoint)


def test_a_python_without_vsock_says_so(monkeypatch):
    monkeypatch.delattr(socket, "AF_VSOCK", raising=False)
    with pytest.raises(UsageError, match="no vsock"):
        Endpoint.parse("vsock:3:7443").connect(soon())
