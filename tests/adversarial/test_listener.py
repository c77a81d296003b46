"""A listening worker against hostile masters: bounded, isolated, and the others are served meanwhile."""

import contextlib
import os
import socket
import threading
import time

import pytest
import torch
from listener_script import MB, W, X, assert_served, greeted, job, soon

from tempo.errors import ProtocolError, WorkerLost
from tempo.fleet import OperandsEvicted
from tempo.fleet.client import Client
from tempo.ops import Op, compute
from tempo.wire import (
    Channel,
    Compute,
    Hello,
    Part,
    Refused,
    Release,
    decode_reply,
    encode,
    limits,
)
from tempo.wire.frame import prefix

pytestmark = pytest.mark.security


BIG = Part(1, (1 << 30, 1), "f32", True, True)
HOSTILE = {
    "noise": os.urandom(1 << 16),
    "zeros": bytes(1 << 16),
    "huge header": prefix(limits.MAX_HEADER + 1, 0) + bytes(1 << 16),
    "huge payload": prefix(10, limits.MAX_PAYLOAD + 1) + bytes(1 << 16),
    "no message": prefix(100, 0) + os.urandom(100),
    "deep": prefix(1 << 16, 0) + b"\x91" * (1 << 16),
    "reply": prefix(len(encode(Refused("memory"))), 0) + encode(Refused("memory")),
    "hello again": prefix(len(encode(Hello(limits.VERSION))), 0) + encode(Hello(limits.VERSION)),
    "smuggled": prefix(len(encode(Release((1,)))), 9) + encode(Release((1,))) + bytes(9),
}


@pytest.mark.parametrize("greet", [False, True])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_stream_that_is_no_protocol_ends_its_own_connection_only(run, master, kind, greet):
    running = run()
    honest = master(running)
    if greet or kind == "hello again":
        raw, _ = greeted(running)
    else:
        raw = running.connect()
    with contextlib.suppress(OSError):
        raw.sendall(HOSTILE[kind])
    assert_served(honest)
    raw.settimeout(5)
    with contextlib.suppress(ConnectionError):
        while raw.recv(1 << 16):  # Refused, then the end; never silence
            pass
    raw.close()
    assert_served(honest)
    assert_served(master(running))


def test_a_claim_over_the_memory_is_refused_before_a_byte_is_stored(run, master):
    running = run(memory=8 * MB, max_connections=2)
    raw, channel = greeted(running)
    big = Compute(1, "product", BIG, Part(2, (1, 1, 1), "f32", True, True), (1 << 30,), "fp32")
    header = encode(big)
    before = rss()
    channel.send_raw(prefix(len(header), big.payload) + header + bytes(MB), deadline=soon())
    assert_served(master(running))
    assert rss() - before < 64 * MB  # of 4 GB claimed
    channel.close()


def rss():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


def test_the_operands_of_another_connection_cannot_be_named(run, master):
    running = run()
    owner, thief = master(running), master(running)
    assert_served(owner)
    with pytest.raises(OperandsEvicted) as caught:
        thief.run(job(), frozenset(), soon())
    assert caught.value.ids == (1, 2)
    assert_served(thief, X + 1, W - 1)  # its own, under the same ids
    thief.release([1, 2], soon())
    reply = owner.run(job(), frozenset(), soon())  # neither replaced nor released
    assert torch.equal(reply.open_for_check(), compute(Op.PRODUCT, X, W, (6,)))


def test_no_connection_takes_the_memory_of_another(run, master):
    running = run(memory=8 * MB, max_connections=4)
    owner, greedy = master(running), master(running)
    x = torch.randn(MB // 8, 1)  # half a MB
    w = torch.ones(1, 1, 1)
    owner.run(job(x, w), frozenset({1, 2}), soon())
    before = rss()
    for number in range(3, 80):
        greedy.run(job(x, w, (number, 2)), frozenset({number, 2}), soon())
    assert rss() - before < 24 * MB  # of 40 MB that it wanted kept
    owner.run(job(x, w), frozenset(), soon())  # nothing of it was evicted
    with pytest.raises(OperandsEvicted):  # the greedy one has a quarter
        greedy.run(job(x, w, (3, 2)), frozenset(), soon())


def test_a_place_per_connection_and_a_word_for_those_without(run, master):
    running = run(max_connections=2)
    first, second = master(running), master(running)
    with pytest.raises(WorkerLost, match="no connection free"):
        master(running)
    running.until("all 2 connections are taken")
    second.close()
    running.until(": closed")
    end = soon()
    while time.monotonic() < end:
        with contextlib.suppress(WorkerLost):
            assert_served(master(running))
            break
    assert_served(first)


def test_strangers_that_stay_silent_hold_nobody_up(run, master, monkeypatch, pki):
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.5)
    running = run("127.0.0.1:0", tls=pki[0])
    honest = master(running, pki[1])
    silent = []
    for _ in range(5 * limits.MAX_HANDSHAKES):
        silent.append(running.connect())
        silent[-1].send(b"\x16\x03\x01")  # the beginning of a ClientHello
    assert_served(honest)
    threads = [t for t in threading.enumerate() if t.name == "tempo-connection"]
    assert len(threads) <= 2 * limits.MAX_HANDSHAKES
    assert_served(master(running, pki[1]))  # in their midst
    time.sleep(1.2)  # past their deadline
    assert len([t for t in threading.enumerate() if t.name == "tempo-connection"]) == 2
    for sock in silent:
        sock.close()


def test_thousands_of_tiny_connections_leave_nothing_behind(run, master):
    running = run()
    honest = master(running)
    assert_served(honest)
    before, descriptors = rss(), len(os.listdir("/proc/self/fd"))
    for number in range(2000):
        raw = running.connect()
        if number % 3 == 0:
            with contextlib.suppress(OSError):
                raw.send(b"\0" * (number % 9))
        raw.close()
        if number % 500 == 0:
            assert_served(honest)
    assert_served(honest)
    end = soon()
    while True:  # the last strangers may still hold places: their end is noticed in threads of their own
        try:
            other = master(running)
            break
        except WorkerLost:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert_served(other)
    while len(os.listdir("/proc/self/fd")) > descriptors + 4 and time.monotonic() < end:
        time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 4
    assert rss() - before < 32 * MB


@pytest.mark.parametrize("half", ["prefix", "header", "payload", "hello"])
def test_half_a_frame_holds_its_place_until_the_deadline_only(run, master, monkeypatch, half):
    monkeypatch.setattr(limits, "FRAME_SECONDS", 0.3)
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.3)
    running = run(max_connections=1)
    if half == "hello":
        channel = Channel(running.connect(), decode_reply)
        channel.send_raw(b"\0\0", deadline=soon())
    else:
        _, channel = greeted(running)
        part = Part(1, (6, 3), "f32", True, True)
        header = encode(Compute(1, "product", part, Part(2, (1, 4, 3), "f32", True, True), (6,), "fp32"))
        frame = prefix(len(header), X.nbytes + W.nbytes) + header + bytes(X.nbytes)
        channel.send_raw(frame[: {"prefix": 5, "header": 50, "payload": len(frame)}[half]], deadline=soon())
    time.sleep(0.1)
    with pytest.raises(WorkerLost, match="no connection free"):
        master(running)
    running.until("closed")
    end = soon()
    while True:
        try:
            assert_served(master(running))
            break
        except WorkerLost:
            assert time.monotonic() < end
    channel.close()


def test_a_master_that_does_not_read_its_result_is_dropped(run, master, monkeypatch):
    monkeypatch.setattr(limits, "FRAME_SECONDS", 0.3)
    monkeypatch.setattr(limits, "MIN_RATE", 1e9)
    running = run()
    _, channel = greeted(running)
    x, w = torch.zeros(2048, 1), torch.zeros(1, 2048, 1)  # 16 MB of result
    request = Compute(1, "product", part(1, x), part(2, w), (2048,), "fp32")
    channel.send(request, (x, w), deadline=soon())
    assert_served(master(running))
    running.until("closed")
    channel.close()


def part(number, tensor):
    return Part(number, tuple(tensor.shape), "f32", True, False)


def test_versions_that_differ_refuse_each_other_clearly(run, monkeypatch):
    running = run()
    channel = Channel(running.connect(), decode_reply)
    channel.send(Hello(limits.VERSION + 1), deadline=soon())
    assert channel.receive(soon())[0] == Refused("version")
    channel.close()
    with monkeypatch.context() as patch:  # an older worker, as the newer master sees it
        ours, theirs = socket.socketpair()
        refused = encode(Refused("version"))
        theirs.sendall(prefix(len(refused), 0) + refused)
        patch.setattr(limits, "VERSION", limits.VERSION + 1)
        client = Client(ours, "old")
        with pytest.raises(ProtocolError, match="worker old speaks another version"):
            client.handshake(soon())
        client.close()
        theirs.close()
