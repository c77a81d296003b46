"""The recorder: byte for byte what a master sent and got, inside TLS, refused connections too."""

import os
import threading
import time

import pytest
import torch

from tempo.errors import DataError, OutsideError
from tempo.fleet.client import Client
from tempo.ops import Job, Op, Operand, compute
from tempo.wire import Bye, Channel, Compute, Endpoint, Hello, Release, Result, Welcome, decode_reply
from tempo.wire.authority import issue, make_authority
from tempo.wire.tls import handshake, wrap
from tempo.worker.listener import Listener, ListenSettings
from tempo.worker.recorder import HEAD, Recorder
from tempo.worker.recording import read


def soon(seconds=5.0):
    return time.monotonic() + seconds


class Recorded:
    """A listener that records, and connections whose bytes are noted on the master's side too."""

    def __init__(self, folder, tls=None, **settings):
        self.folder = folder / "recording"
        endpoint = Endpoint.parse("127.0.0.1:0" if tls else f"unix:{folder}/s")
        self.tls = tls
        worker = tls[0] if tls else None
        self.log = []
        settings = ListenSettings(endpoint=endpoint, tls=worker, record=self.folder, **settings)
        self.listener = Listener(settings, self.log.append)
        self.thread = threading.Thread(target=self.listener.serve)
        self.thread.start()

    def connect(self):
        sock = self.listener.endpoint.connect(soon())
        if self.tls:
            sock = wrap(sock, self.tls[1].context("master"), "master", "127.0.0.1")
            handshake(sock, "master", deadline=soon())
        return sock

    def client(self):
        passed = {"arrived": bytearray(), "left": bytearray()}
        sock = self.connect()
        client = Client(sock, "w")
        client._channel._tap = lambda direction, data: passed[direction].extend(data)
        return client, passed

    def end(self, connections=1):
        end = soon()
        while sum(": closed" in line or ": refused" in line for line in self.log) < connections:
            assert time.monotonic() < end, self.log
            time.sleep(0.01)
        self.listener.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
        return list(read(self.folder))


@pytest.fixture
def recorded(tmp_path):
    made = []

    def make(**options):
        made.append(Recorded(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.listener.stop()
        one.thread.join(10)


X, W = torch.randn(600, 30), torch.randn(1, 400, 30)
BOTH = frozenset({1, 2})


def job(dtype=torch.float32):
    x, w = (t.to(dtype) for t in (X, W))
    x, w = Operand(1, (600, 30), dtype, x, True), Operand(2, (1, 400, 30), dtype, w, True)
    return Job(Op.PRODUCT, x, w, (600,))


def test_bfloat16_operands_are_recorded_as_such(recorded):
    running = recorded()
    client, _ = running.client()
    client.handshake(soon())
    reply = client.run(job(torch.bfloat16), BOTH, soon()).open_for_check()
    client.close()
    (first,) = (r for r in running.end() if isinstance(r.message, Compute))
    assert first.operands[1].dtype == reply.dtype == torch.bfloat16
    assert torch.equal(first.operands[1], X.bfloat16())
    assert torch.equal(first.operands[2], W.bfloat16())


@pytest.mark.security
@pytest.mark.parametrize("over_tls", [False, True])
def test_the_recording_is_what_the_master_sent_and_got(recorded, tmp_path, over_tls):
    tls = None
    if over_tls:
        make_authority(tmp_path / "pki")
        tls = issue(tmp_path / "pki", "w", "worker", ["127.0.0.1"]), issue(tmp_path / "pki", "m", "master")
    running = recorded(tls=tls)
    client, passed = running.client()
    client.handshake(soon())
    client.run(job(), BOTH, soon())
    client.run(job(), frozenset(), soon())
    client.release([1], soon())
    client.close()
    records = running.end()
    for ours, theirs in (("left", "arrived"), ("arrived", "left")):
        assert b"".join(r.raw for r in records if r.direction == theirs) == bytes(passed[ours])
    assert all(record.complete for record in records)
    assert [r.seconds for r in records] == sorted(r.seconds for r in records)
    # Each direction has a thread of its own: how they interleave is a matter of microseconds.
    said = {way: [type(r.message) for r in records if r.direction == way] for way in ("arrived", "left")}
    assert said == {"arrived": [Hello, Compute, Compute, Release, Bye], "left": [Welcome, Result, Result]}
    first, second = (r for r in records if isinstance(r.message, Compute))
    assert torch.equal(first.operands[1], X)
    assert torch.equal(first.operands[2], W)
    assert second.operands == {}
    result = next(r for r in records if isinstance(r.message, Result))
    assert result.payload == compute(Op.PRODUCT, X, W, (600,)).numpy().tobytes()
    notes = [record.header.decode() for record in records if record.direction == "note"]
    where = "127.0.0.1" if over_tls else "this machine"
    who = "m" if over_tls else "a master that is not identified"
    assert notes == [f"{where}: connected", f"{where}: serves {who}", f"{where}: closed"]


@pytest.mark.security
@pytest.mark.parametrize("sent", [b"\0\0", b"\xff" * 50, bytes.fromhex("000010ffffffffff") + b"half"])
def test_a_refused_connection_is_there_as_far_as_it_came(recorded, sent):
    running = recorded()
    sock = running.connect()
    sock.sendall(sent)
    time.sleep(0.05)
    sock.close()
    records = running.end()
    arrived = [record for record in records if record.direction == "arrived"]
    assert [record.complete for record in arrived] == [False]
    assert sent.startswith(arrived[0].raw)  # a worker reads no further than what it refuses
    assert len(arrived[0].raw) >= min(8, len(sent))
    assert arrived[0].message is None


def test_a_refused_certificate_leaves_a_note(recorded, tmp_path):
    make_authority(tmp_path / "pki")
    worker = issue(tmp_path / "pki", "w", "worker", ["127.0.0.1"])
    running = recorded(tls=(worker, worker))
    sock = running.listener.endpoint.connect(soon())
    sock.sendall(b"no TLS at all, no TLS at all")
    sock.settimeout(5)
    while sock.recv(100):
        pass
    sock.close()
    (first, second) = running.end()
    assert b"connected" in first.header
    assert b"refused: the peer does not speak TLS" in second.header


def test_files_are_the_owners_alone_new_each_time_and_one_a_connection(recorded):
    running = recorded()
    for _ in range(3):
        client, _ = running.client()
        client.handshake(soon())
        client.close()
    records = running.end(3)
    files = sorted(running.folder.iterdir())
    assert len({record.connection for record in records}) == len(files) == 3
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    assert running.folder.stat().st_mode & 0o777 == 0o700
    recorder = Recorder(running.folder)
    recorder._run = files[0].name.rsplit("-", 2)[0]
    with pytest.raises(OutsideError, match="File exists"):  # never the file of an earlier connection
        recorder.connection(1)


def test_the_size_cap_ends_the_recording_and_not_the_service(recorded):
    running = recorded(record_bytes=100_000)
    client, passed = running.client()
    client.handshake(soon())
    for _ in range(5):
        client.run(job(), BOTH, soon())
    client.close()
    records = running.end()
    assert sum(path.stat().st_size for path in running.folder.iterdir()) < 100_000 + 200
    assert b"size cap" in next(r.header for r in records if b"cut" in r.header)
    arrived = b"".join(r.raw for r in records if r.direction == "arrived")
    assert bytes(passed["left"]).startswith(arrived)
    assert len(arrived) < len(passed["left"])


def test_a_folder_that_cannot_be_written_serves_nobody_unrecorded(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutsideError, match="cannot record"):
        Recorder(tmp_path / "file")


def test_a_recording_that_was_cut_short_is_read_as_far_as_it_goes(tmp_path):
    recorder = Recorder(tmp_path)
    recording = recorder.connection(1)
    header = b"\x81\xa2is\xa3bye"
    frame = (len(header) << 40).to_bytes(8, "big") + header
    recording.tap("arrived", memoryview(frame))
    recording.tap("arrived", memoryview(frame))
    recording.close()
    recording.tap("arrived", memoryview(frame))  # nothing after the end
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    assert len(whole) == 10 + 2 * (HEAD.size + len(frame))
    for cut in range(10, len(whole)):
        path.write_bytes(whole[:cut])
        raw = b"".join(record.raw for record in read(tmp_path))
        assert (frame + frame).startswith(raw)
    path.write_bytes(b"TEMPOREC\0\2")
    with pytest.raises(DataError, match="version 1"):
        list(read(tmp_path))


def test_the_format_is_frozen(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "monotonic_ns", lambda: 258)
    recording = Recorder(tmp_path).connection(7)
    recording.tap("arrived", memoryview(b"ab"))
    recording.tap("left", memoryview(b"c"))
    recording.note("d")
    recording.close()
    (path,) = tmp_path.iterdir()
    assert path.name.endswith(f"-{os.getpid()}-00000007.tempo-rec")
    assert path.read_bytes().hex() == (
        "54454d504f524543" + "0001" + "00" + "0000000000000102" + "00000002" + "6162"
        "01" + "0000000000000102" + "00000001" + "63" + "02" + "0000000000000102" + "00000001" + "64"
    )


def test_a_channel_without_a_tap_records_nothing(tmp_path):
    import socket

    one, two = socket.socketpair()
    Channel(one, decode_reply).close()
    two.close()
    assert list(read(tmp_path)) == []
