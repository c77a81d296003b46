"""Fetching a key: the whole exchange between the production server and the production client."""

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from vault_scene import OTHER, Scene, entries, machine, make_pki, policy

from tempo.errors import UsageError
from tempo.trust.ledger import Kind
from tempo.trust.sealed import DataKey
from tempo.trust.vault import KeyRefused, Rate, fetch
from tempo.trust.vault.exchange import Exchange
from tempo.wire import Endpoint, TlsRefused, Why

pytestmark = pytest.mark.security


class Clock:
    def __init__(self):
        self.now = datetime(2026, 11, 23, 12, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def scene(tmp_path, pki):
    made = Scene(tmp_path / "vault", pki)
    yield made
    made.store.close()


def refused(code, *arguments, **options):
    with pytest.raises(KeyRefused) as caught:
        fetch(*arguments, **options)
    assert caught.value.code == code
    return caught.value


def test_the_right_machine_gets_the_key(scene):
    with scene.serving() as where:
        found = fetch(str(where), scene.pki["trainer"], machine(), "photos")
    assert found.unsafe_bytes() == scene.key.unsafe_bytes()
    (released,) = entries(scene.folder, Kind.KEY_RELEASED)
    assert released.fields["client"] == "trainer"
    assert (released.fields["key"], released.fields["version"]) == ("photos", 1)
    assert released.fields["key_id"] == scene.key.name
    assert released.fields["grant"] == scene.grant.number
    assert released.fields["machine_kind"] == "unsafe-simulated"
    assert scene.refusals() == []


def test_another_machine_is_refused_and_told_the_step(scene):
    with scene.serving() as where:
        error = refused("evidence", where, scene.pki["trainer"], machine(OTHER), "photos")
    assert error.step == "policy 4 code"
    (refusal,) = scene.refusals()
    assert refusal["step"] == "policy 4 code"
    assert OTHER.hex() in refusal["found"]
    assert refusal["client"] == "trainer"
    assert not entries(scene.folder, Kind.KEY_RELEASED)


def test_one_of_several_grants_is_enough(scene):
    scene.store.grant("photos", policy(OTHER))
    with scene.serving() as where:
        for measurement in (OTHER, bytes(range(48))):
            fetch(where, scene.pki["trainer"], machine(measurement), "photos")
        refused("evidence", where, scene.pki["trainer"], machine(bytes([7]) * 48), "photos")


def test_unknown_keys_and_keys_without_a_grant_look_the_same(scene):
    scene.store.add("letters", DataKey.generate())
    with scene.serving() as where:
        one = refused("grant", where, scene.pki["trainer"], machine(), "letters")
        two = refused("grant", where, scene.pki["trainer"], machine(), "nowhere")
    assert str(one).replace("letters", "") == str(two).replace("nowhere", "")


def test_a_grant_for_one_client_serves_no_other(scene):
    scene.store.revoke_grant(scene.grant.number)
    scene.store.grant("photos", policy(), client="other")
    with scene.serving() as where:
        refused("grant", where, scene.pki["trainer"], machine(), "photos")
        fetch(where, scene.pki["other"], machine(), "photos")


def test_versions(scene):
    second = DataKey.generate()
    with scene.serving() as where:
        scene.store.rotate("photos", second)
        ask = (where, scene.pki["trainer"], machine(), "photos")
        assert fetch(*ask).name == second.name
        assert fetch(*ask, 1).name == scene.key.name
        assert fetch(*ask, 2).name == second.name
        refused("key", *ask, 3)
        scene.store.revoke("photos", 2)
        refused("key", *ask)  # the newest is revoked: no older one takes its place
        refused("key", *ask, 2)
        assert fetch(*ask, 1).name == scene.key.name
        scene.store.revoke("photos")
        refused("key", *ask, 1)
    assert [r["found"] for r in scene.refusals()][1:] == ["revoked"] * 3


def test_keys_and_grants_expire(tmp_path, pki):
    clock = Clock()
    scene = Scene(tmp_path / "vault", pki, clock=clock)
    soon = int(clock.now.timestamp()) + 60
    later = soon + 60
    scene.store.add("letters", DataKey.generate(), expires=soon)
    scene.store.grant("letters", policy())
    scene.store.revoke_grant(scene.grant.number)
    scene.store.grant("photos", policy(), expires=later)
    with scene.serving() as where:
        for name in ("photos", "letters"):
            fetch(where, pki["trainer"], machine(), name)
        clock.now += timedelta(seconds=60)
        refused("key", where, pki["trainer"], machine(), "letters")
        fetch(where, pki["trainer"], machine(), "photos")
        clock.now += timedelta(seconds=60)
        refused("grant", where, pki["trainer"], machine(), "photos")
    with pytest.raises(UsageError, match="expired already"):
        scene.store.add("more", DataKey.generate(), expires=soon)
    scene.store.close()


def test_a_policy_that_expired_admits_nobody(tmp_path, pki):
    clock = Clock()
    scene = Scene(tmp_path / "vault", pki, clock=clock)
    scene.store.revoke_grant(scene.grant.number)
    scene.store.grant("photos", policy(head="expires = 2026-11-23T12:00:30Z"))
    with scene.serving() as where:
        fetch(where, pki["trainer"], machine(), "photos")
        clock.now += timedelta(seconds=31)
        error = refused("evidence", where, pki["trainer"], machine(), "photos")
    assert error.step == "policy 1 validity"
    scene.store.close()


@pytest.mark.parametrize("what", ["key", "grant"])
def test_a_revocation_while_evidence_is_judged_is_obeyed(scene, what):
    """The key is looked at again in the moment of its release."""
    from tempo.trust.vault import Machines

    class Slow:
        check_policy = Machines().check_policy

        def appraise(self, *arguments, **options):
            verdict = Machines().appraise(*arguments, **options)
            scene.store.revoke("photos") if what == "key" else scene.store.revoke_grant(scene.grant.number)
            return verdict

    with scene.serving(Slow()) as where:
        refused(what, where, scene.pki["trainer"], machine(), "photos")
    assert not entries(scene.folder, Kind.KEY_RELEASED)


def test_rates(scene):
    with scene.serving(client_rate=Rate(0.001, 3), rate=Rate(0.001, 4)) as where:
        for _ in range(3):
            fetch(where, scene.pki["trainer"], machine(), "photos")
        for _ in range(5):
            refused("rate", where, scene.pki["trainer"], machine(), "photos")
        fetch(where, scene.pki["other"], machine(), "photos")  # another client has its own
        refused("rate", where, scene.pki["other"], machine(), "photos")  # but there is an overall one
    codes = [(r["client"], r["code"]) for r in scene.refusals()]
    assert codes == [("trainer", "rate"), ("other", "rate")]  # the first of each row: nobody fills the disk


def test_connections_are_limited(scene):
    inside, go = threading.Event(), threading.Event()

    def slow(nonce, public_key, context):
        inside.set()
        assert go.wait(30)
        return machine()(nonce, public_key, context)

    found = []
    with scene.serving(max_connections=1) as where:
        first = threading.Thread(
            target=lambda: found.append(fetch(where, scene.pki["trainer"], slow, "photos"))
        )
        first.start()
        assert inside.wait(30)
        refused("busy", where, scene.pki["other"], machine(), "photos")
        go.set()
        first.join(30)
        assert len(found) == 1
        # The place is free again once the first connection is gone.
        assert scene.fetched_when_free(where, "other").name == scene.key.name


def test_only_a_master_asks_and_only_a_vault_answers(scene, pki):
    with scene.serving() as where:
        # A worker's certificate, and the vault's own, are for servers: OpenSSL refuses them in the handshake.
        for name in ("gpu", "vault"):
            with pytest.raises(TlsRefused) as caught:
                fetch(where, scene.pki[name], machine(), "photos")
            assert caught.value.by_peer
    # A worker that poses as the vault.
    scene.pki = {**pki, "vault": pki["gpu"]}
    with scene.serving() as where:
        with pytest.raises(TlsRefused) as caught:
            fetch(where, pki["trainer"], machine(), "photos")
        assert caught.value.why is Why.WRONG_ROLE
        assert not caught.value.by_peer
    assert not entries(scene.folder, Kind.KEY_RELEASED)


def test_a_wrong_name_is_refused_before_the_network():
    with pytest.raises(UsageError, match="a name has"):
        fetch("127.0.0.1:1", None, machine(), "../etc/passwd")


def test_who_has_an_answer_finds_its_place_free(scene, monkeypatch):
    """A server that gets no processor once it has answered: the place was free before the master knew."""
    exchange = Exchange.serve

    def slow(self, *given):
        done = exchange(self, *given)
        time.sleep(0.5)
        return done

    monkeypatch.setattr(Exchange, "serve", slow)
    with scene.serving(max_connections=1) as where:
        for _ in range(3):
            assert fetch(where, scene.pki["trainer"], machine(), "photos").name == scene.key.name
        refused("evidence", where, scene.pki["trainer"], machine(OTHER), "photos")
        assert fetch(where, scene.pki["trainer"], machine(), "photos").name == scene.key.name


def test_files_at_fault_are_said_before_the_vault_is_dialled(pki, tmp_path, monkeypatch):
    """Else the connection would stay open."""
    monkeypatch.setattr(Endpoint, "connect", lambda *_: pytest.fail("it was dialled"))
    with pytest.raises(UsageError, match="none cannot be read"):
        fetch("127.0.0.1:1", replace(pki["trainer"], crl=tmp_path / "none"), machine(), "photos")
