"""Frames: bytes as frozen, limits before allocation, deadlines, no frame shifted."""

import socket
import threading
import time
import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tempo.errors import ProtocolError, WorkerLost
from tempo.wire import Channel, DeadlinePassed, Hello, Result, decode_reply, decode_request, encode, limits
from tempo.wire.frame import prefix


@pytest.fixture
def raw_and_master():
    """A raw end for the enemy, and the master's channel."""
    raw, ours = socket.socketpair()
    channel = Channel(ours, decode_reply)
    yield raw, channel
    raw.close()
    channel.close()


def soon(seconds=5.0):
    return time.monotonic() + seconds


def frame(message, payload=b"", claim=None):
    header = encode(message)
    return prefix(len(header), len(payload) if claim is None else claim) + header + payload


def test_frozen_frame():
    raw, ours = socket.socketpair()
    with raw:
        channel = Channel(ours, decode_request)
        channel.send(Result(5), (torch.tensor([1.0, -2.0]),), deadline=soon())
        channel.close()
        sent = b"".join(iter(lambda: raw.recv(4096), b""))
    # 0x10 bytes of header, 8 of payload; Result(5); 1.0 and -2.0 in little-endian float32
    assert sent.hex() == "0000100000000008" + "82a26973a6726573756c74a36a6f6205" + "0000803f000000c0"
    assert channel.bytes_sent == len(sent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 5), (0, 4), (2, 0), (1, 1000, 700)])
def test_round_trip(dtype, shape):
    one, two = socket.socketpair()
    sender, receiver = Channel(one, decode_request), Channel(two, decode_reply)
    tensor = torch.randn(shape).to(dtype)
    thread = threading.Thread(target=sender.send, args=(Result(1), (tensor,)), kwargs={"deadline": soon()})
    thread.start()
    message, length = receiver.receive(soon())
    got = torch.empty(shape, dtype=dtype)
    receiver.fill(got, deadline=soon())
    thread.join()
    assert (message, length) == (Result(1), tensor.nbytes)
    assert torch.equal(got, tensor)
    assert sender.bytes_sent == receiver.bytes_received
    sender.close()
    with pytest.raises(WorkerLost, match="closed"):
        receiver.receive(soon())
    receiver.close()


@pytest.mark.security
@pytest.mark.parametrize(
    "start",
    [prefix(limits.MAX_HEADER + 1, 0), prefix(10, limits.MAX_PAYLOAD + 1), b"\xff" * 8],
    ids=["header", "payload", "all ones"],
)
def test_claims_over_the_limit_cost_no_memory(raw_and_master, start):
    raw, channel = raw_and_master
    raw.sendall(start + bytes(100))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="claims"):
            channel.receive(soon())
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.security
def test_only_messages_with_a_payload_have_one(raw_and_master):
    raw, channel = raw_and_master
    from tempo.wire import Refused

    raw.sendall(frame(Refused("memory", 1), b"smuggled"))
    with pytest.raises(ProtocolError, match="has no payload"):
        channel.receive(soon())


@pytest.mark.security
def test_a_payload_is_read_neither_short_nor_long(raw_and_master):
    raw, channel = raw_and_master
    raw.sendall(frame(Result(1), bytes(16)))
    channel.receive(soon())
    with pytest.raises(ProtocolError, match="expected 20"):
        channel.fill(torch.empty(5), deadline=soon())
    channel.fill(torch.empty(2), deadline=soon())
    with pytest.raises(ProtocolError, match="8 bytes of the last payload"):
        channel.receive(soon())
    channel.drain(deadline=soon())
    raw.sendall(frame(Result(2)))
    assert channel.receive(soon()) == (Result(2), 0)


@pytest.mark.security
@pytest.mark.parametrize("begin", [b"", b"\0\0\0", frame(Result(1), claim=400) + bytes(10)])
def test_a_silent_peer_is_left_at_the_deadline(raw_and_master, begin):
    raw, channel = raw_and_master
    raw.sendall(begin)
    started = time.monotonic()

    def both():
        channel.receive(soon(0.2))
        channel.fill(torch.empty(100), deadline=soon(0.2))

    with pytest.raises(DeadlinePassed):
        both()
    assert time.monotonic() - started < 10


@pytest.mark.security
def test_a_trickle_does_not_prolong_the_deadline(raw_and_master):
    raw, channel = raw_and_master
    stop = threading.Event()

    def trickle():
        for byte in frame(Result(1), bytes(1000)):
            if stop.wait(0.02):
                return
            raw.sendall(bytes([byte]))

    thread = threading.Thread(target=trickle)
    thread.start()
    started = time.monotonic()
    with pytest.raises(DeadlinePassed):
        channel.receive(soon(0.3))
    assert time.monotonic() - started < 10
    stop.set()
    thread.join()


@pytest.mark.security
def test_a_peer_that_does_not_read_is_left_at_the_deadline(raw_and_master):
    _, channel = raw_and_master
    started = time.monotonic()
    with pytest.raises(DeadlinePassed):
        channel.send(Hello(1), (torch.zeros(4 << 20),), deadline=soon(0.3))
    assert time.monotonic() - started < 10


def test_an_idle_worker_waits_for_a_frame_to_begin_but_not_to_end(raw_and_master, monkeypatch):
    raw, channel = raw_and_master
    monkeypatch.setattr(limits, "FRAME_SECONDS", 0.2)
    raw.sendall(b"\0")
    with pytest.raises(DeadlinePassed):
        channel.receive(None)


def test_close_wakes_a_waiting_thread(raw_and_master):
    _, channel = raw_and_master
    caught = []

    def wait():
        try:
            channel.receive(None)
        except WorkerLost as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    channel.close()
    thread.join(5)
    assert len(caught) == 1


def test_a_frame_over_the_limit_is_not_sent(raw_and_master, monkeypatch):
    _, channel = raw_and_master
    monkeypatch.setattr(limits, "MAX_PAYLOAD", 100)
    with pytest.raises(ProtocolError, match="over the limits"):
        channel.send(Result(1), (torch.zeros(26),), deadline=soon())
    assert channel.bytes_sent == 0


@pytest.mark.security
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_random_streams_end_in_an_error_of_ours(data, framed):
    raw, ours = socket.socketpair()
    channel = Channel(ours, decode_reply)
    with raw:
        raw.sendall(prefix(len(data), 0) + data if framed else data)
        raw.shutdown(socket.SHUT_WR)
        try:
            while True:
                channel.receive(soon(1))
                channel.drain(deadline=soon(1))
        except (ProtocolError, WorkerLost):
            pass
        finally:
            channel.close()


def test_a_close_while_another_thread_polls_ends_as_a_lost_connection(raw_and_master):
    """`Client.close` says Bye from another thread: poll refuses two threads with a RuntimeError."""
    _, channel = raw_and_master
    inside, ended = threading.Event(), []

    def wait():
        inside.set()
        ended.append(channel.ready(2.0))

    thread = threading.Thread(target=wait)
    thread.start()
    inside.wait(5)
    time.sleep(0.1)
    with pytest.raises(WorkerLost, match="RuntimeError"):
        channel.ready(1.0)
    channel.close()
    thread.join(5)
    assert not thread.is_alive()
