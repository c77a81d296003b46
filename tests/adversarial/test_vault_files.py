"""Who attacks a vault through its files, its disk or its libraries."""

import os
import shutil
import sqlite3
import time

import pytest
from vault_scene import Scene, entries, machine, make_pki

from tempo.errors import OutsideError, TamperedError, TempoError
from tempo.trust.ledger import Kind
from tempo.trust.sealed import DataKey
from tempo.trust.vault import KeyRefused, Server, Store, fetch

pytestmark = pytest.mark.security


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def scene(tmp_path, pki):
    made = Scene(tmp_path / "vault", pki)
    yield made
    made.store.close()


def no_release(scene):
    assert not entries(scene.folder, Kind.KEY_RELEASED)


# ---- files -------------------------------------------------------------------------------------


def alter(scene, *statements):
    """What somebody does who can write to the database, but has no root key."""
    path = scene.folder / "vault.db"
    with sqlite3.connect(path) as db:
        for statement in statements:
            assert db.execute(statement).rowcount
    db.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE keys SET revoked = NULL",
        "UPDATE keys SET expires = 4000000000",
        "UPDATE keys SET wrapped = (SELECT wrapped FROM keys WHERE name = 'letters') WHERE name = 'photos'",
        "UPDATE grants SET revoked = NULL",
        "UPDATE grants SET client = NULL",
        "UPDATE grants SET key = 'letters'",
        "INSERT INTO grants SELECT 99, 'letters', policy, NULL, created, NULL, NULL FROM grants LIMIT 1",
        "UPDATE policies SET text = x'00'",
        "DELETE FROM grants",
        "UPDATE meta SET value = x'0000000000000001' WHERE name = 'change'",
        "UPDATE meta SET value = zeroblob(32) WHERE name = 'seal'",
    ],
)
def test_an_altered_database_is_not_served(scene, statement):
    scene.store.add("letters", DataKey.generate())
    scene.store.grant("photos", b"another policy", client="other", expires=int(time.time()) + 99)
    scene.store.revoke("photos")
    scene.store.revoke_grant(scene.grant.number)
    alter(scene, statement)
    with pytest.raises(TamperedError):
        scene.store.state()
    with pytest.raises(TamperedError):
        Store.open(scene.folder, scene.store._root)


def test_a_database_altered_under_a_running_vault_stops_it(scene):
    with pytest.raises(TamperedError):
        serve_altered(scene)
    no_release(scene)


def serve_altered(scene):
    with scene.serving() as where:
        alter(scene, "UPDATE keys SET expires = 4000000000")
        failed(where, scene)


def failed(where, scene):
    """The vault says so, or is gone already."""
    with pytest.raises(TempoError) as caught:
        fetch(where, scene.pki["trainer"], machine(), "photos")
    assert not isinstance(caught.value, KeyRefused) or caught.value.code == "failed"


def test_an_older_database_is_told_by_the_log(scene, tmp_path):
    """A revocation cannot be undone with yesterday's backup of the database."""
    scene.store.close()
    old = tmp_path / "old"
    shutil.copytree(scene.folder, old)
    root = scene.store._root
    with Store.open(scene.folder, root) as store:
        store.revoke("photos")
    for path in scene.folder.glob("vault.db*"):
        path.unlink()
    for path in old.glob("vault.db*"):
        shutil.copy(path, scene.folder)
    with (
        Store.open(scene.folder, root) as store,
        pytest.raises(TamperedError, match="taken back"),
    ):
        Server(store, None, scene.settings())
    with Store.open(scene.folder, root) as store, pytest.raises(TamperedError, match="taken back"):
        store.add("more", DataKey.generate())


def test_a_record_that_is_kept_from_the_log(scene, monkeypatch):
    """Killed between commit and log, and then somebody removes or alters what the log was to get."""
    from tempo.trust.vault.store import Store as Class

    with monkeypatch.context() as patch:
        patch.setattr(Class, "_settle", lambda self, change: None)
        scene.store.revoke("photos")
    scene.store.close()
    root = scene.store._root
    with sqlite3.connect(scene.folder / "vault.db") as db:
        (line, mac) = db.execute("SELECT line, mac FROM events").fetchone()
        db.execute("DELETE FROM events")
    db.close()
    with Store.open(scene.folder, root) as store:
        with pytest.raises(TamperedError, match="not all there"):
            store.journal()
        with sqlite3.connect(scene.folder / "vault.db") as db:
            db.execute("INSERT INTO events VALUES (3, ?, ?)", (line.replace(b"photos", b"nobody"), mac))
        db.close()
        with pytest.raises(TamperedError, match="record of change 3"):
            store.journal()
        with sqlite3.connect(scene.folder / "vault.db") as db:
            db.execute("UPDATE events SET line = ?", (line,))
        db.close()
        store.journal().close()
    assert entries(scene.folder)[-1].fields["action"] == "revoked"


# ---- the log -----------------------------------------------------------------------------------


def test_no_key_leaves_where_the_log_cannot_be_written(scene, monkeypatch):
    with pytest.raises(OutsideError, match="audit log"):
        serve_on_a_full_disk(scene, monkeypatch)
    no_release(scene)


def serve_on_a_full_disk(scene, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    with scene.serving() as where, monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        failed(where, scene)


def test_a_library_that_falls_over_evidence_does_not_stop_the_vault(scene):
    class Fragile:
        def check_policy(self, policy):
            pass

        def appraise(self, policy, evidence, **bound):
            raise ZeroDivisionError("evidence \x1b[31m of a stranger")

    with scene.serving(Fragile()) as where:
        for _ in range(2):
            with pytest.raises(KeyRefused) as caught:
                fetch(where, scene.pki["trainer"], machine(), "photos")
            assert (caught.value.code, caught.value.step) == ("evidence", "vault appraisal")
    assert [r["found"] for r in scene.refusals()] == ["ZeroDivisionError"] * 2
