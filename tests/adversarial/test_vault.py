"""Who attacks a vault: masters that replay, relay and flood, strangers, and whoever writes to its files."""

import socket
import time

import pytest
from vault_attacker import Attacker, public, shown
from vault_scene import Scene, entries, machine, make_pki

from tempo.errors import ProtocolError, TamperedError, WorkerLost
from tempo.trust.ledger import Kind
from tempo.trust.sealed import DataKey, OwnerKey
from tempo.trust.vault import KeyRefused, exchange, fetch, protocol
from tempo.trust.vault.protocol import Ask, Attest, Challenge, Denied, Released
from tempo.wire import DeadlinePassed, frame, limits

pytestmark = pytest.mark.security


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def scene(tmp_path, pki):
    made = Scene(tmp_path / "vault", pki)
    yield made
    made.store.close()


@pytest.fixture(autouse=True)
def connections():
    Attacker.connections = []
    yield
    for channel in Attacker.connections:
        channel.close()


def no_release(scene):
    assert not entries(scene.folder, Kind.KEY_RELEASED)


# ---- replay ------------------------------------------------------------------------------------


def test_evidence_of_another_session_answers_nothing(scene):
    with scene.serving() as where:
        key = public()
        first, second = (Attacker(where, scene.pki["trainer"]) for _ in range(2))
        nonce = first.ask()
        assert second.ask() != nonce
        second.say(Attest(key, shown(nonce, key)))
        assert second.denied("evidence").step == "verifier 3 binding"
        no_release(scene)
        # It was good evidence: where it belongs, it counts.
        first.say(Attest(key, shown(nonce, key)))
        assert isinstance(first.hear(), Released)


def test_evidence_that_released_a_key_releases_none_again(scene):
    seen = []

    def keep(nonce, public_key, what):
        seen.append((public_key, machine()(nonce, public_key, what)))
        return seen[-1][1]

    with scene.serving() as where:
        fetch(where, scene.pki["trainer"], keep, "photos")
        attacker = Attacker(where, scene.pki["other"])
        attacker.ask()
        attacker.say(Attest(*seen[0]))
        attacker.denied("evidence")
    assert len(entries(scene.folder, Kind.KEY_RELEASED)) == 1


def test_a_nonce_is_used_once(scene):
    """Whatever became of the first try, there is no second one on that nonce."""
    with scene.serving() as where:
        attacker = Attacker(where, scene.pki["trainer"])
        nonce, key = attacker.ask(), public()
        attacker.say(Attest(key, b"no evidence"))
        attacker.say(Attest(key, shown(nonce, key)))
        attacker.denied("evidence")
        attacker = Attacker(where, scene.pki["trainer"])
        nonce = attacker.ask()
        attacker.say(Attest(key, shown(nonce, key)))
        attacker.say(Attest(key, shown(nonce, key)))
        assert isinstance(attacker.hear(), Released)
        with pytest.raises(WorkerLost):
            attacker.hear()
    assert len(entries(scene.folder, Kind.KEY_RELEASED)) == 1


def test_nonces_differ(scene):
    with scene.serving() as where:
        found = set()
        for _ in range(20):
            attacker = Attacker(where, scene.pki["trainer"])
            found.add(attacker.ask())
    assert len(found) == 20


# ---- keys --------------------------------------------------------------------------------------


def test_a_key_that_is_not_in_the_evidence(scene):
    """The man in the middle passes on a machine's evidence and puts a key of his own beside it."""
    with scene.serving() as where:
        attacker = Attacker(where, scene.pki["trainer"])
        nonce = attacker.ask()
        attacker.say(Attest(public(), shown(nonce, public())))
        assert attacker.denied("evidence").step == "verifier 3 binding"
    no_release(scene)


def test_who_passes_on_evidence_gets_what_only_its_maker_opens(scene):
    owner = OwnerKey.generate()
    with scene.serving() as where:
        attacker = Attacker(where, scene.pki["other"])
        nonce, key = attacker.ask(), owner.recipient.public_bytes
        attacker.say(Attest(key, shown(nonce, key)))
        released = attacker.hear()
    info = protocol.info("photos", None, nonce)
    assert owner.unwrap(released.sealed, info).name == scene.key.name
    for other, said in (
        (OwnerKey.generate(), info),
        (owner, protocol.info("photos", 1, nonce)),
        (owner, protocol.info("photos", None, bytes(32))),
        (owner, b"tempo sealed file 1"),
    ):
        with pytest.raises(TamperedError):
            other.unwrap(released.sealed, said)


def test_evidence_for_another_key_or_version(scene):
    scene.store.add("letters", DataKey.generate())
    with scene.serving() as where:
        for wrong in (("letters", None), ("photos", 1)):
            attacker = Attacker(where, scene.pki["trainer"])
            nonce, key = attacker.ask("photos"), public()
            attacker.say(Attest(key, shown(nonce, key, *wrong)))
            attacker.denied("evidence")
    no_release(scene)


@pytest.mark.parametrize("bad", [bytes(protocol.PUBLIC_KEY_BYTES), b"\xff" * protocol.PUBLIC_KEY_BYTES])
def test_a_public_key_that_is_none(scene, bad):
    """All zeros: a point of small order, where X25519 would make a secret that everybody knows."""
    with scene.serving() as where:
        attacker = Attacker(where, scene.pki["trainer"])
        nonce = attacker.ask()
        attacker.say(Attest(bad, shown(nonce, bad)))
        reply = attacker.hear()
        assert isinstance(reply, Denied)
        fetch(where, scene.pki["trainer"], machine(), "photos")  # the vault goes on
    assert len(entries(scene.folder, Kind.KEY_RELEASED)) == 1


# ---- messages ----------------------------------------------------------------------------------


def test_evidence_flipped_anywhere(scene):
    with scene.serving() as where:
        for place in range(0, 1200, 97):
            attacker = Attacker(where, scene.pki["trainer"])
            nonce, key = attacker.ask(), public()
            raw = bytearray(shown(nonce, key))
            raw[place % len(raw)] ^= 0x10
            attacker.say(Attest(key, bytes(raw)))
            attacker.denied("evidence")
    no_release(scene)


def test_a_message_that_is_too_long_is_refused_by_its_claim(scene):
    with scene.serving() as where:
        attacker = Attacker(where, scene.pki["trainer"])
        attacker.channel.send_raw(frame.prefix(protocol.MAX_MESSAGE + 1, 0), deadline=attacker.until)
        attacker.denied("malformed")
        attacker = Attacker(where, scene.pki["trainer"])
        attacker.ask()
        attacker.channel.send_raw(frame.prefix(20, limits.MAX_PAYLOAD + 1), deadline=attacker.until)
        attacker.denied("malformed")
        attacker = Attacker(where, scene.pki["trainer"])
        attacker.ask()
        attacker.say(Attest(public(), bytes(protocol.MAX_EVIDENCE + 1)))
        attacker.denied("malformed")
    assert {r["code"] for r in scene.refusals()} == {"malformed"}


@pytest.mark.parametrize(
    "message",
    [
        Attest(bytes(protocol.PUBLIC_KEY_BYTES), b"x"),
        Ask(protocol.VERSION, "../../etc/passwd"),
        Ask(protocol.VERSION, "photos\n"),
        Ask(protocol.VERSION, "x" * 64),
        Ask(protocol.VERSION, "photos", 0),
        Challenge(protocol.VERSION, bytes(32), 60),
    ],
    ids=["evidence first", "path", "newline", "long", "version 0", "reflected"],
)
def test_messages_out_of_place(scene, message):
    with scene.serving() as where:
        attacker = Attacker(where, scene.pki["trainer"])
        attacker.say(message)
        attacker.denied("malformed")
    assert [r["code"] for r in scene.refusals()] == ["malformed"]


def test_another_version(scene):
    with scene.serving() as where:
        attacker = Attacker(where, scene.pki["trainer"])
        attacker.say(Ask(protocol.VERSION + 1, "photos"))
        attacker.denied("version")


def test_a_second_question_where_evidence_is_due(scene):
    with scene.serving() as where:
        attacker = Attacker(where, scene.pki["trainer"])
        attacker.ask()
        attacker.say(Ask(protocol.VERSION, "photos"))
        attacker.denied("malformed")


# ---- slow and silent ---------------------------------------------------------------------------


def test_evidence_that_comes_late(scene):
    def slow(nonce, public_key, what):
        time.sleep(1.5)
        return machine()(nonce, public_key, what)

    with scene.serving(nonce_s=1) as where:
        with pytest.raises(KeyRefused) as caught:
            fetch(where, scene.pki["trainer"], slow, "photos")
        assert caught.value.code == "expired"
    no_release(scene)


def trickle(attacker):
    for _ in range(100):
        attacker.channel.send_raw(b"\x80", deadline=attacker.until)
        time.sleep(0.05)


def test_who_trickles_is_cut_off_by_the_deadline_of_the_whole(scene):
    with scene.serving(nonce_s=1) as where:
        attacker = Attacker(where, scene.pki["trainer"])
        attacker.ask()
        began = time.monotonic()
        attacker.channel.send_raw(frame.prefix(5000, 0), deadline=attacker.until)
        with pytest.raises(WorkerLost):
            trickle(attacker)
        assert time.monotonic() - began < 4
        fetch(where, scene.pki["trainer"], machine(), "photos")


def test_silent_ones_hold_nobody_up(scene, monkeypatch):
    monkeypatch.setattr(exchange, "MESSAGE_S", 0.3)
    with scene.serving(max_connections=2) as where:
        silent = [Attacker(where, scene.pki["trainer"]) for _ in range(2)]
        strangers = [socket.create_connection((where.host, where.port)) for _ in range(10)]
        assert scene.fetched_when_free(where, "trainer").name == scene.key.name
        for each in strangers:
            each.close()
        for attacker in silent:
            attacker.channel.close()


def test_a_client_gives_up_on_a_silent_vault():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        began = time.monotonic()
        with pytest.raises((DeadlinePassed, ProtocolError)):
            fetch(f"127.0.0.1:{port}", _any_tls(), machine(), "photos", seconds=0.5)
        assert time.monotonic() - began < 3


def _any_tls():
    import tempfile
    from pathlib import Path

    return make_pki(Path(tempfile.mkdtemp()), ("trainer",))["trainer"]
