"""Over the years: another passphrase, files under retired keys, and from an old key to the newest."""

import pytest
from vault_scene import entries, make_store

from tempo.errors import DataError, OutsideError, TamperedError, UsageError
from tempo.trust.ledger import Kind
from tempo.trust.sealed import DataKey, OwnerKey, SealedFile, SealedWriter, reseal
from tempo.trust.vault import PassphraseRoot, Store, root
from tempo.trust.vault.root import ROOT_FILE
from tempo.trust.vault.upkeep import reseal_in, sealed_under

pytestmark = pytest.mark.security

OLD, NEW = b"correct horse battery staple", b"purple elephants dance at noon"
RECORDS = [b"first", b"", bytes(200_000), b"last"]


@pytest.fixture
def store(tmp_path):
    with make_store(tmp_path / "vault") as made:
        yield made


@pytest.fixture
def cheap(monkeypatch):
    monkeypatch.setattr(root, "COST", root._Cost(iterations=1, lanes=1, memory_kib=8192))


def sealed_file(path, key, name="photos", sequence=3):
    with SealedWriter(path, key, kind="files", name=name, sequence=sequence) as out:
        for record in RECORDS:
            out.add(record)
    return path


def records(path, key):
    with SealedFile(path, key) as file:
        return file.manifest, [bytes(file.record(n)) for n in range(len(file))]


def ignore(done: int) -> None:
    pass


def test_another_passphrase_for_the_same_root_key(tmp_path, cheap):
    path = tmp_path / ROOT_FILE
    wrapped = PassphraseRoot.create(path, OLD).wrap(b"secret", b"about")
    copy = path.read_bytes()
    PassphraseRoot.change(path, OLD, NEW)
    assert PassphraseRoot.open(path, NEW).unwrap(wrapped, b"about") == b"secret"
    with pytest.raises(UsageError, match="does not open"):
        PassphraseRoot.open(path, OLD)
    assert path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(copy)  # as the documents say: an old copy still opens with the old passphrase
    assert PassphraseRoot.open(path, OLD).unwrap(wrapped, b"about") == b"secret"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [(NEW, b"something else altogether", "does not open"), (OLD, b"short", "12 char"), (OLD, OLD, "old one")],
)
def test_a_change_that_is_refused_leaves_the_file_as_it_was(tmp_path, cheap, old, new, says):
    path = tmp_path / ROOT_FILE
    PassphraseRoot.create(path, OLD)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=says):
        PassphraseRoot.change(path, old, new)
    assert path.read_bytes() == before


def test_a_disk_that_fails_leaves_the_file_as_it_was(tmp_path, cheap, monkeypatch):
    path = tmp_path / ROOT_FILE
    PassphraseRoot.create(path, OLD)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempo.trust.ledger.ledger.os.fsync", full)
    with pytest.raises(OutsideError, match="No space"):
        PassphraseRoot.change(path, OLD, NEW)
    assert path.read_bytes() == before
    assert PassphraseRoot.open(path, OLD)


def test_which_file_stands_under_which_key(store, tmp_path):
    one, two, stranger = (DataKey.generate() for _ in range(3))
    owner = OwnerKey.generate()
    store.add("photos", one)
    store.rotate("photos", two)
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    sealed_file(folder / "a.tempo", one)
    sealed_file(folder / "b.tempo", two)
    sealed_file(folder / "c.tempo", stranger)
    sealed_file(folder / "deep" / "d.tempo", owner.recipient)
    (folder / "notes.txt").write_text("not sealed")
    (folder / "empty").touch()
    found = sealed_under(store.state(), [folder])
    assert [f.path.name for f in found] == ["a.tempo", "b.tempo", "c.tempo", "d.tempo"]
    assert [f.key and (f.key.name, f.key.version) for f in found] == [
        ("photos", 1),
        ("photos", 2),
        None,
        None,
    ]
    assert [f.key_id for f in found] == [one.name, two.name, stranger.name, owner.name]
    assert [f.wrapped for f in found] == [False, False, False, True]
    with pytest.raises(UsageError, match="there is no"):
        sealed_under(store.state(), [tmp_path / "nowhere"])
    assert sealed_under(store.state(), [folder / "notes.txt"]) == []
    raw = (folder / "a.tempo").read_bytes()
    for bad in (raw[:20], raw[:10] + b"\xff\xff\xff\xff" + raw[14:]):
        (folder / "a.tempo").write_bytes(bad)
        with pytest.raises(TamperedError, match="header"):
            sealed_under(store.state(), [folder])


@pytest.mark.parametrize("state", ["active", "revoked"])
def test_from_an_old_key_to_the_newest(store, tmp_path, state):
    old, new = DataKey.generate(), DataKey.generate()
    store.add("photos", old)
    store.rotate("photos", new)
    if state == "revoked":
        store.revoke("photos", 1)
    path, out = sealed_file(tmp_path / "a.tempo", old), tmp_path / "b.tempo"
    steps: list[int] = []
    key, to = reseal_in(store, path, out, None, steps.append)
    assert (key.name, key.version, to) == ("photos", 1, new.name)
    assert records(out, new) == records(path, old)
    assert records(out, new)[0].sequence == 3
    assert steps == [1, 2, 3, 4]
    with pytest.raises(UsageError, match="sealed under the key"):
        records(out, old)
    fields = entries(tmp_path / "vault", Kind.KEY_CHANGED)[-1].fields
    assert (fields["action"], fields["key_id"], fields["to_key_id"]) == ("resealed", old.name, new.name)
    assert not any(key.unsafe_bytes() in out.read_bytes() for key in (old, new))
    with Store.open(tmp_path / "vault", store._root) as again:  # the chain of changes holds
        again.journal().close()
        again.add("letters", DataKey.generate())


def test_to_the_owner(store, tmp_path):
    key, owner = DataKey.generate(), OwnerKey.generate()
    store.add("photos", key)
    path, out = sealed_file(tmp_path / "a.tempo", key), tmp_path / "b.tempo"
    assert reseal_in(store, path, out, owner.recipient, ignore)[1] == owner.name
    assert records(out, owner) == records(path, key)
    assert entries(tmp_path / "vault", Kind.KEY_CHANGED)[-1].fields["to_recipient"] is True


def test_the_log_has_it_before_the_file_is_there(store, tmp_path, monkeypatch):
    key, owner = DataKey.generate(), OwnerKey.generate()
    store.add("photos", key)
    path, out = sealed_file(tmp_path / "a.tempo", key), tmp_path / "b.tempo"
    note, there = Store.note, []

    def fails(self, *arguments, **fields):
        note(self, *arguments, **fields)
        there.append(out.exists())
        raise OutsideError("the log is full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "note", fails)
        with pytest.raises(OutsideError, match="full"):
            reseal_in(store, path, out, owner.recipient, ignore)
    assert there == [False]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.tempo", "vault"], "nothing is left of it"
    assert entries(tmp_path / "vault", Kind.KEY_CHANGED)[-1].fields["action"] == "resealed"


def test_what_is_not_resealed(store, tmp_path):
    old = DataKey.generate()
    store.add("photos", old)
    path, out = sealed_file(tmp_path / "a.tempo", old), tmp_path / "b.tempo"

    def refused(match, kind=UsageError):
        with pytest.raises(kind, match=match):
            reseal_in(store, path, out, None, ignore)
        assert not out.exists()

    refused("no newer version")
    store.rotate("photos", DataKey.generate())
    store.revoke("photos", 2)
    refused("newest version of photos is revoked")
    store.rotate("photos", DataKey.generate())
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes(raw)
    refused("segment", TamperedError)
    sealed_file(tmp_path / "c.tempo", DataKey.generate()).replace(path)
    refused("does not hold")
    out.write_text("mine")
    sealed_file(tmp_path / "c.tempo", old).replace(path)
    with pytest.raises(UsageError, match="exists already"):
        reseal_in(store, path, out, None, ignore)
    assert out.read_text() == "mine"
    assert "resealed" not in [e.fields["action"] for e in entries(tmp_path / "vault", Kind.KEY_CHANGED)]


def test_a_copy_that_does_not_open_is_not_left(tmp_path, monkeypatch):
    old, new = DataKey.generate(), DataKey.generate()
    path, out = sealed_file(tmp_path / "a.tempo", old), tmp_path / "b.tempo"
    whole = SealedWriter.finish

    def spoiled(self, *more):
        whole(self, *more)
        raw = bytearray(out.read_bytes())
        raw[200] ^= 1  # in the first segment: what the end of the file says is not enough
        out.write_bytes(raw)

    monkeypatch.setattr(SealedWriter, "finish", spoiled)
    with pytest.raises((TamperedError, DataError)):
        reseal.reseal(path, old, out, new, ignore)
    assert not out.exists()
    with pytest.raises(UsageError, match="already"):
        reseal.reseal(path, old, out, old, ignore)


def test_a_note_waits_its_turn_among_the_changes(store, tmp_path):
    store.add("photos", DataKey.generate())
    store.note("passphrase_changed")
    store.rotate("photos", DataKey.generate())
    found = [e.fields for e in entries(tmp_path / "vault", Kind.KEY_CHANGED)]
    assert [(f["change"], f["action"]) for f in found] == [
        (1, "added"),
        (2, "passphrase_changed"),
        (3, "rotated"),
    ]
    assert store.state().change == 3
