"""The store: what is kept, what is refused, and that a key is nowhere in the clear."""

import base64
import logging
import os
import pickle
import sqlite3
import threading

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from vault_scene import entries, make_store, policy

from tempo.errors import TamperedError, UsageError
from tempo.trust.ledger import Kind
from tempo.trust.sealed import DataKey
from tempo.trust.vault import PassphraseRoot, Rate, Store
from tempo.trust.vault.rates import Rates
from tempo.trust.vault.root import ROOT_FILE
from tempo.trust.vault.store import about_key

pytestmark = pytest.mark.security

PASSPHRASE = b"correct horse battery staple"


@pytest.fixture
def store(tmp_path):
    with make_store(tmp_path / "vault") as made:
        yield made


def actions(folder):
    return [entry.fields["action"] for entry in entries(folder, Kind.KEY_CHANGED)]


def test_what_was_stored_comes_back(store, tmp_path):
    key, second = DataKey.generate(), DataKey.generate()
    store.add("photos", key)
    store.rotate("photos", second, expires=2**33)
    made = store.grant("photos", policy(), client="trainer", signer="engineer")
    store.revoke("photos", 1)
    store.close()
    with Store.open(tmp_path / "vault", store._root) as again:
        state = again.state()
        assert state.change == 4
        one, two = state.versions("photos")
        assert (one.revoked is not None, two.revoked, two.expires) == (True, None, 2**33)
        assert again.unwrap(one).unsafe_bytes() == key.unsafe_bytes()
        assert again.unwrap(two).unsafe_bytes() == second.unsafe_bytes()
        assert state.grants == (made,)
        assert state.policy(made.policy).text == policy()
    assert actions(tmp_path / "vault") == ["added", "rotated", "granted", "revoked"]
    changes = [entry.fields["change"] for entry in entries(tmp_path / "vault", Kind.KEY_CHANGED)]
    assert changes == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda s: s.add("photos", DataKey.generate()), "rotate"),
        (lambda s: s.add("../x", DataKey.generate()), "a name has"),
        (lambda s: s.add("x\n", DataKey.generate()), "a name has"),
        (lambda s: s.add("more", s.key), "holds this very key"),
        (lambda s: s.add("more", DataKey.generate(), expires=1), "expired already"),
        (lambda s: s.rotate("nowhere", DataKey.generate()), "there is no key"),
        (lambda s: s.grant("nowhere", policy()), "there is no key"),
        (lambda s: s.grant("photos", b""), "a policy has"),
        (lambda s: s.grant("photos", bytes(65_537)), "a policy has"),
        (lambda s: s.grant("photos", policy(), client="a b"), "a name has"),
        (lambda s: s.grant("photos", policy(), expires=1), "expired already"),
        (lambda s: s.revoke("photos", 7), "no version 7"),
        (lambda s: s.revoke_grant(7), "no grant 7"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(store, tmp_path, what, says):
    class Store_:
        key = DataKey.generate()

        def __getattr__(self, name):
            return getattr(store, name)

    scene = Store_()
    store.add("photos", scene.key)
    before = store.state()
    with pytest.raises(UsageError, match=says):
        what(scene)
    assert store.state() == before
    assert actions(tmp_path / "vault") == ["added"]


def test_a_second_vault_is_not_made_over_the_first(store, tmp_path):
    with pytest.raises(UsageError, match="exists"):
        make_store(tmp_path / "vault")
    with pytest.raises(UsageError, match="there is no vault"):
        Store.open(tmp_path, store._root)


def test_files_are_for_their_owner_alone(store, tmp_path):
    store.add("photos", DataKey.generate())
    for path in (tmp_path / "vault").rglob("*"):
        if path.is_file() and path.name != "log.pub":
            assert path.stat().st_mode & 0o077 == 0, path


# ---- the root key ------------------------------------------------------------------------------


def test_a_root_key_under_a_passphrase(tmp_path):
    path = tmp_path / ROOT_FILE
    wrapped = PassphraseRoot.create(path, PASSPHRASE).wrap(b"a secret", b"about it")
    assert path.stat().st_mode & 0o077 == 0
    assert PassphraseRoot.open(path, PASSPHRASE).unwrap(wrapped, b"about it") == b"a secret"
    with pytest.raises(UsageError, match="does not open"):
        PassphraseRoot.open(path, PASSPHRASE + b"s")
    with pytest.raises(UsageError, match="exists"):
        PassphraseRoot.create(path, PASSPHRASE)
    with pytest.raises(UsageError, match="12 characters"):
        PassphraseRoot.create(tmp_path / "other", b"short")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f | {"cost": f["cost"] | {"iterations": 2}}, "does not open"),
        (lambda f: f | {"cost": f["cost"] | {"memory_kib": 1 << 40}}, "holds no root key"),
        (lambda f: f | {"salt": base64.b64encode(bytes(16)).decode()}, "does not open"),
        (lambda f: f | {"sealed": base64.b64encode(bytes(48)).decode()}, "does not open"),
        (lambda f: f | {"kind": "pkcs11"}, "holds no root key"),
        (lambda f: f | {"more": 1}, "holds no root key"),
        (lambda f: {}, "holds no root key"),
    ],
)
def test_an_altered_root_file(tmp_path, change, says):
    path = tmp_path / ROOT_FILE
    PassphraseRoot.create(path, PASSPHRASE)
    path.write_bytes(msgspec.json.encode(change(msgspec.json.decode(path.read_bytes()))))
    with pytest.raises(UsageError, match=says):
        PassphraseRoot.open(path, PASSPHRASE)


def test_wrapped_secrets_open_in_their_place_alone():
    root = PassphraseRoot(AESGCM.generate_key(256))
    wrapped = root.wrap(bytes(32), about_key("photos", 1))
    assert root.wrap(bytes(32), about_key("photos", 1)) != wrapped
    for about in (about_key("photos", 2), about_key("letters", 1), about_key("photos\0", 1)):
        with pytest.raises(TamperedError):
            root.unwrap(wrapped, about)
    for bad in (b"", wrapped[:-1], bytes(len(wrapped))):
        with pytest.raises(TamperedError):
            root.unwrap(bad, about_key("photos", 1))
    with pytest.raises(TamperedError):
        PassphraseRoot(AESGCM.generate_key(256)).unwrap(wrapped, about_key("photos", 1))


def test_another_root_key_opens_nothing(store, tmp_path):
    store.close()
    with pytest.raises(TamperedError, match="root key"):
        Store.open(tmp_path / "vault", PassphraseRoot(AESGCM.generate_key(256)))


# ---- two at once -------------------------------------------------------------------------------


def test_a_change_waits_for_whoever_holds_the_log(store, tmp_path):
    """What a running server does for a command: the command is done when the log has its change."""
    journal = store.journal()
    with Store.open(tmp_path / "vault", store._root) as other:
        done = threading.Event()
        thread = threading.Thread(target=lambda: (other.add("photos", DataKey.generate()), done.set()))
        thread.start()
        assert not done.wait(0.3)
        assert actions(tmp_path / "vault") == []
        assert [k.name for k in store.state().keys] == ["photos"]  # seen by the other process meanwhile
        journal.drain()
        assert done.wait(10)
        thread.join()
    assert actions(tmp_path / "vault") == ["added"]
    journal.close()


def test_writers_at_once_lose_nothing(store, tmp_path):
    others = [Store.open(tmp_path / "vault", store._root) for _ in range(4)]

    def work(number):
        for i in range(5):
            others[number].add(f"key-{number}-{i}", DataKey.generate())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for other in others:
        other.close()
    assert len(store.state().keys) == 20
    changes = [entry.fields["change"] for entry in entries(tmp_path / "vault", Kind.KEY_CHANGED)]
    assert changes == list(range(1, 21))


# ---- nowhere in the clear ----------------------------------------------------------------------


def forms(raw):
    """A key as it may have been written by mistake."""
    return (raw, raw.hex().encode(), raw.hex().upper().encode(), base64.b64encode(raw), repr(raw).encode())


def test_a_key_is_nowhere_in_the_clear(tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    folder = tmp_path / "vault"
    folder.mkdir()
    root = PassphraseRoot.create(folder / ROOT_FILE, PASSPHRASE)
    store = Store.create(folder, "example.org/vault", root)
    keys = [DataKey(os.urandom(32)) for _ in range(3)]
    store.add("photos", keys[0])
    store.rotate("photos", keys[1])
    said = []
    for call in (
        lambda: store.add("photos", keys[2]),
        lambda: store.add("more", keys[0]),
        lambda: store.add("more", keys[2], expires=1),
        lambda: store.unwrap(msgspec.structs.replace(store.state().keys[0], version=9)),
        lambda: pickle.dumps(store),
        lambda: pickle.dumps(keys[0]),
    ):
        with pytest.raises((UsageError, TamperedError, TypeError)) as caught:
            call()
        said += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
    said += [repr(store), repr(root), repr(keys[0]), str(store.state())]
    state_key = root.unwrap(store._db.meta("state_key"), b"tempo vault state key 1")
    log_key = root.unwrap(store._db.meta("log_key"), b"tempo vault log key 1")
    assert (folder / "vault.db-wal").stat().st_size > 0  # there is one to search
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    store.close()
    files |= {
        path.with_name("after-" + path.name): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    out = capsys.readouterr()
    texts = [*files.values(), "\n".join([*said, out.out, out.err, caplog.text]).encode()]
    secrets = [*(k.unsafe_bytes() for k in keys), state_key, log_key, PASSPHRASE]
    for secret in secrets:
        for form in forms(secret):
            assert not any(form in text for text in texts)
    # The search finds what is there: the wrapped form of the same key.
    wrapped = store_row(folder)
    assert any(wrapped in text for text in files.values())


def store_row(folder):
    with sqlite3.connect(folder / "vault.db") as db:
        (wrapped,) = db.execute("SELECT wrapped FROM keys WHERE version = 1").fetchone()
    db.close()
    return wrapped


# ---- rates -------------------------------------------------------------------------------------


def test_buckets_fill_with_time():
    now = [0.0]
    rates = Rates(Rate(60, 2), Rate(6000, 100), lambda: now[0])
    assert [rates.admit("a") for _ in range(4)] == [(True, 0), (True, 0), (False, 0), (False, 1)]
    assert rates.admit("b") == (True, 0)
    now[0] = 0.99
    assert rates.admit("a") == (False, 2)
    now[0] = 1.0
    assert rates.admit("a") == (True, 3)
    assert rates.admit("a") == (False, 0)
    now[0] = 1000.0  # never more than the burst
    assert [rates.admit("a")[0] for _ in range(3)] == [True, True, False]


def test_a_greedy_client_does_not_empty_the_bucket_of_all():
    now = [0.0]
    rates = Rates(Rate(60, 1), Rate(60, 2), lambda: now[0])
    assert rates.admit("greedy")[0]
    assert not any(rates.admit("greedy")[0] for _ in range(100))
    assert rates.admit("modest")[0]


def test_clients_that_are_remembered_are_limited():
    from tempo.trust.vault.rates import MAX_CLIENTS

    rates = Rates(Rate(1, 1), Rate(10**9, 10**6), lambda: 0.0)
    for number in range(MAX_CLIENTS + 10):
        rates.admit(str(number))
    assert len(rates._clients) == MAX_CLIENTS


def test_a_rate_is_positive():
    for bad in ((0, 1), (1, 0), (-1, 1), (float("nan"), 1)):
        with pytest.raises(UsageError):
            Rate(*bad)
