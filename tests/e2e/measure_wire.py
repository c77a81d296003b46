"""Throughput of the wire against raw sockets of the same transport, in one run; not a test.

    OMP_NUM_THREADS=1 .venv/bin/python tests/e2e/measure_wire.py [MEGABYTES] [ROUNDS]

A payload goes to a forked process and comes back. Figures are bytes in both directions per second, the
median of the rounds, with the fastest and the slowest. connections: N of them at once, a thread each.
"""

import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from tempo.wire import Channel, Endpoint, Result, decode_reply
from tempo.wire.authority import issue, make_authority
from tempo.wire.tls import handshake, wrap

FAR = 1e6
PIECE = 1 << 20


class Raw:
    def __init__(self, sock, tensor):
        self.sock, self.tensor, self.view = sock, tensor, memoryview(tensor.numpy()).cast("B")

    def send(self):
        view = self.view
        while view:
            view = view[self.sock.send(view[:PIECE]) :]

    def receive(self):
        view = self.view
        while view:
            count = self.sock.recv_into(view)
            if not count:
                raise EOFError
            view = view[count:]


class Framed:
    def __init__(self, sock, tensor):
        self.channel, self.tensor = Channel(sock, decode_reply), tensor

    def send(self):
        self.channel.send(Result(1), (self.tensor,), deadline=time.monotonic() + FAR)

    def receive(self):
        self.channel.receive(time.monotonic() + FAR)
        self.channel.fill(self.tensor, deadline=time.monotonic() + FAR)


def echo(sock, end, nbytes):
    peer = end(sock, torch.ones(nbytes // 4))
    try:
        while True:
            peer.receive()
            peer.send()
    except Exception:  # the other side is done
        os._exit(0)


def pair(transport, files, folder):
    endpoint = Endpoint.parse(f"unix:{folder}/s" if transport == "unix" else "127.0.0.1:0")
    listening = endpoint.listen()
    endpoint = endpoint.bound(listening)
    if (child := os.fork()) == 0:
        sock, _ = listening.accept()
        if transport == "tls":
            sock = wrap(sock, files[0].context("worker"), "worker")
            handshake(sock, "worker", deadline=time.monotonic() + 20)
            sock.settimeout(None)
        return None, sock
    sock = endpoint.connect(time.monotonic() + 20)
    if transport == "tls":
        sock = wrap(sock, files[1].context("master"), "master", "127.0.0.1")
        handshake(sock, "master", deadline=time.monotonic() + 20)
    sock.settimeout(None)
    listening.close()
    endpoint.unlink()
    return child, sock


def connect(transport, end, connections, nbytes, files, folder):
    ends = []
    for _ in range(connections):
        child, sock = pair(transport, files, folder)
        if transport == "unix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)  # as Channel does, for both
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if child is None:
            echo(sock, end, nbytes // connections)
        ends.append((child, sock, end(sock, torch.ones(nbytes // connections // 4))))
    return ends


def rate(ends, nbytes):
    started = time.perf_counter()

    def trip(one):
        one.send()
        one.receive()

    threads = [threading.Thread(target=trip, args=(one,)) for _, _, one in ends[1:]]
    for thread in threads:
        thread.start()
    trip(ends[0][2])
    for thread in threads:
        thread.join()
    return 2 * nbytes / (time.perf_counter() - started) / 1e9


def measure(transport, connections, nbytes, rounds, files, folder):
    """Rates of both kinds, in turns."""
    kinds = {
        kind: connect(transport, end, connections, nbytes, files, folder)
        for kind, end in (("raw", Raw), ("channel", Framed))
    }
    rates = {kind: [] for kind in kinds}
    for _ in range(rounds + 1):
        for kind, ends in kinds.items():
            rates[kind].append(rate(ends, nbytes))
    for ends in kinds.values():
        for child, sock, _ in ends:
            sock.close()
            os.kill(child, signal.SIGKILL)  # later children hold its socket too: no end of file
            os.waitpid(child, 0)
    # The first round touches the memory.
    return {
        kind: (statistics.median(found[1:]), min(found[1:]), max(found[1:])) for kind, found in rates.items()
    }


def main():
    megabytes, rounds = (int(a) for a in [*sys.argv[1:], *["16", "15"][len(sys.argv) - 1 :]])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        pki = Path(folder) / "pki"
        make_authority(pki)
        files = issue(pki, "w", "worker", ["127.0.0.1"]), issue(pki, "m", "master")
        for transport in ("unix", "tcp", "tls"):
            for connections in (1, 2, 4):
                found = measure(transport, connections, megabytes << 20, rounds, files, folder)
                row = {"transport": transport, "connections": connections, "megabytes": megabytes}
                for kind, (median, low, high) in found.items():
                    row[f"{kind}_gb_per_second"] = round(median, 2)
                    row[f"{kind}_low_high"] = [round(low, 2), round(high, 2)]
                row["share_of_raw"] = round(found["channel"][0] / found["raw"][0], 2)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
