"""The bad link: carries what it is given, and does what it is told."""

import json
import socket
import subprocess
import sys
import threading
import time

import pytest

from tempo.chaos.proxy import flipped


@pytest.fixture
def link():
    """(connect, order): a proxy in front of an echo server."""
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=echo, args=(server,), daemon=True).start()
    port = str(server.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "tempo.chaos.proxy", "127.0.0.1", "0", "127.0.0.1", port],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    where = ("127.0.0.1", int(process.stdout.readline()))

    def order(**what):
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"

    yield lambda: socket.create_connection(where, 5), order
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()
    server.close()


def echo(server):
    def back(sock):
        with sock:
            try:
                while data := sock.recv(1 << 16):
                    sock.sendall(data)
            except OSError:
                pass

    while True:
        try:
            sock, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=back, args=(sock,), daemon=True).start()


def round_trip(sock, data=b"x" * 1000):
    sock.settimeout(5)
    began = time.monotonic()
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = sock.recv(1 << 16)
        assert piece, "closed"
        got += piece
    return got, time.monotonic() - began


def test_every_order(link):
    connect, order = link
    with connect() as sock:
        data = bytes(range(256)) * 500
        assert round_trip(sock, data)[0] == data
        order(flip=1)
        got, _ = round_trip(sock)
        assert got == flipped(b"x" * 1000)
        order()
        assert round_trip(sock)[0] == b"x" * 1000
        order(delay=0.2)
        assert round_trip(sock)[1] >= 0.4
        order(rate=20_000)
        assert round_trip(sock, b"x" * 4000)[1] >= 0.3
        order(drop=1)
        sock.sendall(b"waits")
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.recv(10)
        order()
        sock.settimeout(5)
        assert sock.recv(10) == b"waits"
        order(cut=1)
        with pytest.raises((ConnectionResetError, AssertionError)):
            round_trip(sock)
    with connect() as sock:
        assert round_trip(sock)[0] == b"x" * 1000


def test_one_bit():
    assert sum(bin(a ^ b).count("1") for a, b in zip(flipped(b"abc"), b"abc")) == 1
