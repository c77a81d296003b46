"""TLS under a peer that stalls, trickles, does not read or is tampered with; closing from another thread."""

import contextlib
import socket
import threading
import time

import pytest
import torch

from tempo.errors import ProtocolError, WorkerLost
from tempo.wire import Channel, DeadlinePassed, Result, decode_reply
from tempo.wire.authority import issue, make_authority
from tempo.wire.frame import prefix
from tempo.wire.tls import handshake, wrap

pytestmark = pytest.mark.security


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    make_authority(folder)
    return {"worker": issue(folder, "gpu-a", "worker", ["localhost"]), "master": issue(folder, "m", "master")}


def pair(pki):
    """Both ends of a TLS connection over a socket pair."""
    one, two = socket.socketpair()
    worker = wrap(one, pki["worker"].context("worker"), "worker")
    master = wrap(two, pki["master"].context("master"), "master", "localhost")
    thread = threading.Thread(target=handshake, args=(worker, "worker"), kwargs={"deadline": soon()})
    thread.start()
    assert handshake(master, "master", deadline=soon()) == "gpu-a"
    thread.join()
    return worker, master


def soon(seconds=5.0):
    return time.monotonic() + seconds


def test_a_silent_or_trickling_handshake_is_left_at_the_deadline(pki):
    for trickle in (False, True):
        one, two = socket.socketpair()
        master = wrap(two, pki["master"].context("master"), "master", "localhost")
        stop = threading.Event()

        def drip(sock=one, stop=stop):
            for byte in b"\x16\x03\x03\x10\x00" + bytes(1000):
                if stop.wait(0.02):
                    return
                sock.send(bytes([byte]))

        thread = threading.Thread(target=drip)
        if trickle:
            thread.start()
        started = time.monotonic()
        with pytest.raises(DeadlinePassed, match="TLS handshake"):
            handshake(master, "master", deadline=soon(0.3))
        assert time.monotonic() - started < 10
        stop.set()
        if trickle:
            thread.join()
        one.close()
        master.close()


def test_deadlines_bind_in_sends_and_receives_under_tls(pki):
    worker, master = pair(pki)
    channel = Channel(master, decode_reply)
    started = time.monotonic()
    with pytest.raises(DeadlinePassed):
        channel.send(Result(1), (torch.zeros(8 << 20),), deadline=soon(0.3))  # nobody reads
    assert time.monotonic() - started < 10
    channel.close()
    worker.close()

    worker, master = pair(pki)
    channel = Channel(master, decode_reply)
    stop = threading.Event()

    def trickle():  # a TLS record per byte: each read of ours ends in time
        with contextlib.suppress(OSError):
            for byte in prefix(1000, 0) + bytes(1000):
                if stop.wait(0.02):
                    return
                worker.send(bytes([byte]))

    thread = threading.Thread(target=trickle)
    thread.start()
    started = time.monotonic()
    with pytest.raises(DeadlinePassed):
        channel.receive(soon(0.3))
    assert time.monotonic() - started < 10
    stop.set()
    thread.join()
    channel.close()
    worker.close()


def test_a_slow_reader_does_not_prolong_a_send(pki):
    worker, master = pair(pki)
    channel = Channel(master, decode_reply)
    stop = threading.Event()

    def sip():
        worker.settimeout(1)
        with contextlib.suppress(OSError):
            while not stop.wait(0.02):
                worker.recv(1 << 14)

    thread = threading.Thread(target=sip)
    thread.start()
    started = time.monotonic()
    with pytest.raises(DeadlinePassed):
        channel.send(Result(1), (torch.zeros(8 << 20),), deadline=soon(0.4))
    assert time.monotonic() - started < 5
    stop.set()
    channel.close()
    thread.join()
    worker.close()


@pytest.mark.parametrize("sending", [False, True])
def test_close_wakes_a_waiting_thread_and_frees_the_descriptor_last(pki, sending):
    worker, master = pair(pki)
    channel = Channel(master, decode_reply)
    caught = []

    def wait():
        try:
            if sending:
                channel.send(Result(1), (torch.zeros(16 << 20),), deadline=soon(20))
            else:
                channel.receive(None)
        except WorkerLost as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    channel.close()
    thread.join(5)
    assert len(caught) == 1
    assert master.fileno() == -1
    with pytest.raises(WorkerLost):
        channel.receive(soon())
    worker.close()


def test_an_altered_record_breaks_the_connection(pki):
    """A network that flips bits: no byte of the altered record is taken."""
    ours, middle_one = socket.socketpair()
    middle_two, theirs = socket.socketpair()
    alter = threading.Event()

    def forward(source, target, watched):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if watched and alter.is_set():
                    data = data[:-1] + bytes([data[-1] ^ 1])
                target.sendall(data)

    ways = ((middle_one, middle_two, False), (middle_two, middle_one, True))
    forwarders = [threading.Thread(target=forward, args=way) for way in ways]
    for thread in forwarders:
        thread.start()
    worker = wrap(theirs, pki["worker"].context("worker"), "worker")
    thread = threading.Thread(target=handshake, args=(worker, "worker"), kwargs={"deadline": soon()})
    thread.start()
    master = wrap(ours, pki["master"].context("master"), "master", "localhost")
    handshake(master, "master", deadline=soon())
    thread.join()
    alter.set()
    worker.sendall(b"\0" * 16)
    channel = Channel(master, decode_reply)
    with pytest.raises((ProtocolError, WorkerLost)):
        channel.receive(soon())
    assert channel.bytes_received == 0
    channel.close()
    worker.close()
    for thread in forwarders:
        thread.join(5)
    middle_one.close()
    middle_two.close()
