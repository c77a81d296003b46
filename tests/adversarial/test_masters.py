"""Whoever is not the master that was measured does not get into the ring, and gets nobody stuck."""

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tempo.errors import OutsideError, ProtocolError, RefusedError, TempoError, UsageError
from tempo.masters import Attested, UnsafeUnattested, join
from tempo.masters.messages import MAX_MESSAGE, Introduction, Piece, Proof, context, decode
from tempo.masters.place import Place
from tempo.masters.ring import Ring
from tempo.trust.vault import UnsafeSimulated
from tempo.wire import Endpoint, TlsFiles
from tempo.wire.authority import issue, make_authority
from tempo.wire.frame import Channel
from tempo.wire.tls import handshake, wrap

pytestmark = pytest.mark.security

#: Of X25519, as good as any.
KEY = bytes([9]) + bytes(31)
GOOD, BAD = bytes([7]) * 48, bytes([8]) * 48
POLICY = f"""
tempo-policy = 1
name = "masters"
allow-unsafe = true
[unsafe-simulated]
measurements = [{{ measurement = "{GOOD.hex()}" }}]
"""


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    make_authority(folder)
    made = {f"m{r}": issue(folder, f"m{r}", "master") for r in range(2)}
    return made | {f"p{r}": issue(folder, f"p{r}", "peer", ["127.0.0.1"]) for r in range(2)}


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


class Scene:
    """Two masters of one run; addresses are known as soon as one listens."""

    def __init__(self, pki, seconds=10.0):
        self.pki, self.seconds, self.known = pki, seconds, {}
        self.told = threading.Condition()

    def publish(self, rank, text):
        with self.told:
            self.known[rank] = text
            self.told.notify_all()

    def ask(self, rank):
        with self.told:
            if not self.told.wait_for(lambda: rank in self.known, self.seconds):
                raise OutsideError("nobody published that rank")
            return self.known[rank]

    def ring(self, rank, attestation, run="run", **files):
        return Ring.join(
            Place(run, rank, 2, self.seconds),
            files.get("tls", self.pki[f"m{rank}"]),
            files.get("peer", self.pki[f"p{rank}"]),
            Endpoint.parse("127.0.0.1:0"),
            attestation,
            publish=lambda text: self.publish(rank, text),
            ask=self.ask,
        )

    def both(self, first, second, **other):
        """Rings or errors of both."""

        def one(rank, attestation, more):
            try:
                return self.ring(rank, attestation, **more)
            except TempoError as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            left = pool.submit(one, 0, first, {})
            right = pool.submit(one, 1, second, other)
            return left.result(), right.result()


def close(*rings):
    for ring in rings:
        if isinstance(ring, Ring):
            ring.close()


def attested(policy, measurement=GOOD):
    return Attested(UnsafeSimulated(measurement), policy)


def test_two_measured_masters_meet(pki, policy):
    left, right = Scene(pki).both(attested(policy), attested(policy))
    sent = left.send(Piece(1, "reduce", 0), torch.arange(5.0))
    room = torch.empty(5)
    right.receive(Piece(1, "reduce", 0), room)
    sent.result(5)
    assert room.tolist() == [0, 1, 2, 3, 4]
    close(left, right)


@pytest.mark.parametrize(
    "other",
    [lambda policy: attested(policy, BAD), lambda policy: UnsafeUnattested()],
    ids=["wrong measurement", "no evidence"],
)
def test_a_master_that_runs_something_else_is_refused(pki, policy, other):
    left, right = Scene(pki, 3.0).both(attested(policy), other(policy))
    assert isinstance(left, TempoError)
    assert isinstance(right, TempoError)
    assert "refused at step" in f"{left} {right}"


def test_another_run_of_the_same_owner_does_not_cross(pki):
    left, right = Scene(pki, 3.0).both(UnsafeUnattested(), UnsafeUnattested(), run="another")
    assert "of this run" in f"{left} {right}"


def test_a_certificate_of_another_authority_or_role_is_refused(pki, tmp_path):
    make_authority(tmp_path)
    foreign = issue(tmp_path, "m1", "master")
    left, right = Scene(pki, 3.0).both(UnsafeUnattested(), UnsafeUnattested(), tls=foreign)
    assert isinstance(left, OutsideError)
    assert isinstance(right, OutsideError)
    swapped = TlsFiles(pki["p1"].cert, pki["p1"].key, pki["p1"].ca)
    left, right = Scene(pki, 3.0).both(UnsafeUnattested(), UnsafeUnattested(), tls=swapped)
    assert isinstance(left, OutsideError)
    assert isinstance(right, OutsideError)


def test_strangers_at_the_door_keep_nobody_out(pki):
    """One says nothing, one speaks no TLS; the master comes after them."""
    scene = Scene(pki, 20.0)
    held = []

    def strangers():
        host, port = scene.ask(0).rsplit(":", 1)
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64):
            sock = socket.create_connection((host, int(port)), 5)
            sock.sendall(words)
            held.append(sock)

    thread = threading.Thread(target=strangers)
    thread.start()
    with ThreadPoolExecutor(2) as pool:
        left = pool.submit(scene.ring, 0, UnsafeUnattested())
        thread.join()
        right = pool.submit(scene.ring, 1, UnsafeUnattested())
        close(left.result(), right.result())
    for sock in held:
        sock.close()


def dial(scene, pki, rank):
    """The malicious master: an authenticated connection that it may use as it likes."""
    endpoint = Endpoint.parse(scene.ask(rank))
    deadline = time.monotonic() + 10
    sock = wrap(endpoint.connect(deadline), pki["m1"].context("master"), "master", endpoint.tls_name)
    handshake(sock, "master", deadline=deadline, dialled="peer")
    return Channel(sock, decode, max_header=MAX_MESSAGE)


def refused(scene, attestation, lie):
    """What master 0 says of a malicious one before it."""
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(scene.ring, 0, attestation)
        channel = dial(scene, scene.pki, 0)
        lie(channel)
        with pytest.raises(TempoError) as found:
            joining.result()
        channel.close()
    return str(found.value)


def test_evidence_that_answers_another_question_is_refused(pki, policy):
    """Replayed: genuine evidence of a good machine, made for another nonce, then for another rank."""

    def lie(nonce_of, key, about):
        def do(channel):
            deadline = time.monotonic() + 10
            channel.send(Introduction(1, "run", 1, 2, bytes(32), KEY), deadline=deadline)
            words, _ = channel.receive(deadline)
            channel.send(Proof(UnsafeSimulated(GOOD)(nonce_of(words), key, about)), deadline=deadline)

        return do

    right = context("run", 2, 1, 0)
    for lying in (
        lie(lambda words: bytes(32), KEY, right),
        lie(lambda words: words.nonce, b"another key", right),
        lie(lambda words: words.nonce, KEY, context("run", 2, 0, 1)),
    ):
        assert "binding" in refused(Scene(pki, 3.0), attested(policy), lying)


def test_our_own_nonce_is_no_nonce(pki, policy):
    def lie(channel):
        deadline = time.monotonic() + 10
        words, _ = channel.receive(deadline)
        channel.send(Introduction(1, "run", 1, 2, words.nonce, KEY), deadline=deadline)

    scene = Scene(pki, 3.0)
    assert "our own nonce" in refused(scene, attested(policy), lie)


@pytest.mark.parametrize(
    ("piece", "count"),
    [
        (Piece(2, "reduce", 0), 5),
        (Piece(1, "gather", 0), 5),
        (Piece(1, "reduce", 0), 6),
        (Piece(1, "reduce", 1), 5),
    ],
    ids=["sequence", "kind", "size", "part"],
)
def test_a_piece_that_is_not_due_is_no_sum(pki, piece, count):
    left, right = Scene(pki).both(UnsafeUnattested(), UnsafeUnattested())
    left.send(piece, torch.full((count,), 9.0))
    room = torch.zeros(5)
    with pytest.raises(ProtocolError, match="another piece"):
        right.receive(Piece(1, "reduce", 0), room)
    assert room.tolist() == [0] * 5
    close(left, right)


def test_a_silent_master_is_waited_for_until_the_deadline(pki):
    left, right = Scene(pki, 2.0).both(UnsafeUnattested(), UnsafeUnattested())
    start = time.monotonic()
    with pytest.raises(OutsideError, match="deadline"):
        right.receive(Piece(1, "reduce", 0), torch.zeros(5))
    assert time.monotonic() - start < 10
    close(left, right)


def test_the_default_is_to_be_attested(pki):
    with pytest.raises(TypeError):
        join(pki["m0"], pki["p0"], "127.0.0.1:0")
    with pytest.raises(UsageError, match="attest each other"):
        join(pki["m0"], pki["p0"], "127.0.0.1:0", None)


def test_refusals_have_a_step(policy):
    with pytest.raises(RefusedError, match="step"):
        attested(policy).judge(UnsafeSimulated(BAD)(bytes(32), b"k", b"c"), bytes(32), b"k", b"c")


# ---- who has both keys of TLS and stands in between


def test_who_passes_everything_on_reads_and_changes_nothing(pki, policy):
    """The stolen keys: the relay ends TLS on both sides with the masters' own certificates."""
    scene, seen = Scene(pki, 10.0), []
    relay = Endpoint.parse("127.0.0.1:0").listen()
    inner = f"127.0.0.1:{relay.getsockname()[1]}"
    ask = scene.ask
    scene.ask = lambda rank: inner if rank == 1 else ask(rank)  # the store lies to master 0

    def passing(take, give, change):
        with contextlib.suppress(OSError):
            while data := take.recv(1 << 16):
                seen.append(data)
                give.sendall(change(data))

    def stand_in_between():
        raw, _ = relay.accept()
        deadline = time.monotonic() + 10
        near = wrap(raw, pki["p1"].context("peer"), "peer")
        handshake(near, "peer", deadline=deadline)
        far_end = Endpoint.parse(ask(1))
        far = wrap(far_end.connect(deadline), pki["m0"].context("master"), "master", "127.0.0.1")
        handshake(far, "master", deadline=deadline, dialled="peer")
        for sock in (near, far):
            sock.settimeout(10)
        # Of what comes from master 0 the last byte of a sealed tensor is changed, not of a header before it.
        spoil = lambda data: data[:-1] + bytes([data[-1] ^ 1]) if armed and len(data) > 500 else data  # noqa: E731
        back = threading.Thread(target=passing, args=(far, near, lambda data: data), daemon=True)
        back.start()
        passing(near, far, spoil)
        for sock in (near, far):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        back.join(10)
        near.close()
        far.close()

    armed = []
    between = threading.Thread(target=stand_in_between, daemon=True)
    between.start()
    left, right = scene.both(attested(policy), attested(policy))
    secret = torch.full((64,), 1234.5678, dtype=torch.float64)
    left.send(Piece(1, "reduce", 0), secret).result(5)
    room = torch.zeros(64, dtype=torch.float64)
    right.receive(Piece(1, "reduce", 0), room)
    assert torch.equal(room, secret)
    assert secret[:1].numpy().tobytes() not in b"".join(seen)
    armed.append(True)
    left.send(Piece(2, "reduce", 0), secret).result(5)
    room.zero_()
    with pytest.raises(TempoError, match="not sealed by the master that was attested"):
        right.receive(Piece(2, "reduce", 0), room)
    close(left, right)
    between.join(15)
    relay.close()


def test_many_silent_strangers_keep_nobody_out(pki):
    """They connect and say nothing; one has even a certificate, and says nothing after it."""
    scene, held = Scene(pki, 20.0), []
    with ThreadPoolExecutor(2) as pool:
        left = pool.submit(scene.ring, 0, UnsafeUnattested())
        host, port = scene.ask(0).rsplit(":", 1)
        held = [socket.create_connection((host, int(port)), 5) for _ in range(100)]
        silent = dial(scene, pki, 0)
        start = time.monotonic()
        right = pool.submit(scene.ring, 1, UnsafeUnattested())
        close(left.result(), right.result())
    assert time.monotonic() - start < 15  # one after the other they would take 500
    silent.close()
    for sock in held:
        sock.close()


@pytest.mark.parametrize("name", ["", "none"])
def test_a_run_without_a_name_of_its_own_is_refused(pki, monkeypatch, name):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
    with pytest.raises(UsageError, match="must not meet"):
        join(pki["m0"], pki["p0"], "127.0.0.1:0", UnsafeUnattested())


def test_a_collective_that_fails_is_an_error_also_to_the_other_side_of_pytorch():
    from tempo.masters.backend import Pending

    pending = Pending()
    pending.finish(None, OutsideError("the ring broke"))
    with pytest.raises(OutsideError, match="the ring broke"):
        pending.wait()
    with pytest.raises(Exception, match="the ring broke"):
        pending.get_future().wait()
    with pytest.raises(Exception, match="the ring broke"):
        pending.get_future().then(lambda found: found.value()).wait()
