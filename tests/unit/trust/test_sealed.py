"""Sealed files: every record comes back in any order; what was altered, cut, moved, exchanged is refused."""

import os
import pickle
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tempo.data import SealedDataset
from tempo.errors import DataError, OutsideError, TamperedError, UsageError
from tempo.trust.sealed import DataKey, Expected, OwnerKey, Recipient, SealedFile, SealedWriter
from tempo.trust.sealed.format import HEAD, Field
from tempo.trust.sealed.sources import Arrays
from tempo.trust.sealed.stream import SEGMENT, TAG, Segments

pytestmark = pytest.mark.security


@pytest.fixture
def key():
    return DataKey.generate()


def write(path, key, records, **options):
    with SealedWriter(path, key, kind="files", name=options.pop("name", "n"), **options) as out:
        for record in records:
            out.add(record)
    return path


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 7, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT]), max_size=6),
    more=st.lists(st.binary(max_size=200), max_size=20),
    seed=st.integers(0, 99),
)
def test_every_record_comes_back_in_any_order(tmp_path_factory, sizes, more, seed):
    key = DataKey.generate()
    records = [os.urandom(size) for size in sizes] + more
    path = write(tmp_path_factory.mktemp("s") / "f", key, records)
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(seed)).tolist()
    with SealedFile(path, key) as file:
        assert len(file) == len(records)
        assert all(file.record(i) == records[i] for i in order)
        file.verify()
        for outside in (-1, len(records)):
            with pytest.raises(IndexError):
                file.record(outside)


def test_nothing_of_the_plain_text_is_in_the_file(tmp_path, key):
    secret = b"the patient's name is" * 10
    data = write(tmp_path / "f", key, [secret], name="ward-7-of-the-clinic").read_bytes()
    assert secret[:8] not in data
    assert b"ward-7" not in data


def test_the_same_data_twice_are_different_bytes(tmp_path, key):
    one, two = (write(tmp_path / n, key, [b"x" * 1000]).read_bytes() for n in "ab")
    same = sum(a == b for a, b in zip(one[80:], two[80:], strict=True))
    assert same < 30  # about 1 in 256


def test_a_frozen_segment():
    """The construction with fixed key, salt and header, put together by hand."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256, Hash
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    digest = Hash(SHA256())
    digest.update(b"header")
    derived = HKDF(SHA256(), 32, bytes(32), b"tempo sealed file 1" + digest.finalize()).derive(
        bytes(range(32))
    )
    expected = AESGCM(derived).encrypt(bytes(7) + b"\x00\x00\x00\x05\x01", b"plain", None)
    out = bytearray(5 + TAG)
    Segments(DataKey(bytes(range(32))), bytes(32), b"header").seal_into(
        5, memoryview(b"plain"), memoryview(out), last=True
    )
    assert bytes(out) == expected
    assert bytes(out).hex() == "37c246de5e01fd9722cb533ea4505d2f731c7a4292"


# Keys.


def test_the_wrong_key_is_named(tmp_path, key):
    path = write(tmp_path / "f", key, [b"x"])
    other = DataKey.generate()
    with pytest.raises(UsageError, match=f"{key.name}.*{other.name}"):
        SealedFile(path, other)


def test_sealed_to_the_owner_only_the_owner_opens(tmp_path):
    owner, other = OwnerKey.generate(), OwnerKey.generate()
    path = write(tmp_path / "f", owner.recipient, [b"model"])
    with SealedFile(path, owner) as file:
        assert file.record(0) == b"model"
    with pytest.raises(UsageError):
        SealedFile(path, other)


def test_keys_go_to_files_that_others_cannot_read(tmp_path, key):
    owner = OwnerKey.generate()
    key.save(tmp_path / "data")
    owner.save(tmp_path / "owner")
    owner.recipient.save(tmp_path / "public")
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o600
    assert DataKey.load(tmp_path / "data").name == key.name
    assert OwnerKey.load(tmp_path / "owner").name == owner.name
    assert Recipient.load(tmp_path / "public").name == owner.recipient.name
    with pytest.raises(UsageError, match="never overwritten"):
        key.save(tmp_path / "data")
    with pytest.raises(UsageError, match="expected 'tempo-data-key-1'"):
        DataKey.load(tmp_path / "owner")


@pytest.mark.parametrize("made", [DataKey.generate, OwnerKey.generate])
def test_keys_are_not_printed_or_pickled(made):
    secret = made()
    assert "hidden" in repr(secret)
    with pytest.raises(TypeError):
        pickle.dumps(secret)


@pytest.mark.parametrize("text", ["", "x", "tempo-data-key-1 !!", "tempo-data-key-1 AAAA", "a b c"])
def test_a_file_that_is_no_key(tmp_path, text):
    (tmp_path / "k").write_text(text)
    with pytest.raises(UsageError):
        DataKey.load(tmp_path / "k")


# Attacks on the file.


@pytest.fixture
def sealed(tmp_path, key):
    """Five segments."""
    return write(tmp_path / "f", key, [bytes([i]) * 30_000 for i in range(10)])


def refused(path, key, **expected):
    """All of the file is refused, when it is opened or when it is read."""
    with pytest.raises((TamperedError, UsageError)), SealedFile(path, key, Expected(**expected)) as file:
        file.verify()


def test_attack_any_bit(sealed, key):
    data = sealed.read_bytes()
    places = [*range(HEAD + 60), *range(HEAD + 60, len(data), 1777), *range(len(data) - 60, len(data))]
    for at in places:
        bent = bytearray(data)
        bent[at] ^= 1 << (at % 8)
        sealed.write_bytes(bent)
        refused(sealed, key)


def test_attack_cut_anywhere(sealed, key):
    data = sealed.read_bytes()
    start = len(data) % (SEGMENT + TAG)
    cuts = [*range(0, 140), *range(140, len(data), 3001)]
    cuts += [start + i * (SEGMENT + TAG) for i in range(len(data) // (SEGMENT + TAG))]
    for length in cuts:
        sealed.write_bytes(data[:length])
        refused(sealed, key)


def _start(data):
    return HEAD + int.from_bytes(data[10:14], "big")


def test_attack_cut_at_a_segment(sealed, key):
    data = sealed.read_bytes()
    start = _start(data)
    for segments in range(5):
        sealed.write_bytes(data[: start + segments * (SEGMENT + TAG)])
        refused(sealed, key)


def test_attack_segments_swapped_doubled_or_dropped(sealed, key):
    data = sealed.read_bytes()
    start, whole = _start(data), SEGMENT + TAG
    parts = [data[start + i * whole : start + (i + 1) * whole] for i in range(5)]
    for order in ([1, 0, 2, 3, 4], [0, 0, 1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 2, 4]):
        sealed.write_bytes(data[:start] + b"".join(parts[i] for i in order))
        refused(sealed, key)


def test_attack_a_segment_of_another_file_under_the_same_key(sealed, tmp_path, key):
    other = write(tmp_path / "g", key, [bytes([i]) * 30_000 for i in range(10)]).read_bytes()
    data = bytearray(sealed.read_bytes())
    start = _start(data)
    data[start : start + SEGMENT + TAG] = other[start : start + SEGMENT + TAG]
    sealed.write_bytes(data)
    refused(sealed, key)


def test_attack_the_header_of_another_file(sealed, tmp_path, key):
    other = write(tmp_path / "g", key, [b"x"]).read_bytes()
    data = sealed.read_bytes()
    sealed.write_bytes(other[: _start(other)] + data[_start(data) :])
    refused(sealed, key)


def test_attack_something_appended(sealed, key):
    data = sealed.read_bytes()
    for more in (b"x", bytes(TAG), bytes(SEGMENT + TAG)):
        sealed.write_bytes(data + more)
        refused(sealed, key)


def test_attack_an_older_version_in_its_place(tmp_path, key):
    path = write(tmp_path / "old", key, [b"weights"], name="model", sequence=3)
    SealedFile(path, key, Expected("model", 3)).close()
    with pytest.raises(TamperedError, match="version 3.*version 4.*older"):
        SealedFile(path, key, Expected("model", 4))


def test_attack_another_data_set_in_its_place(tmp_path, key):
    path = write(tmp_path / "f", key, [b"x"], name="public")
    with pytest.raises(TamperedError, match="'public', expected 'private'"):
        SealedFile(path, key, Expected("private"))


def test_a_header_that_claims_gigabytes_takes_no_memory(sealed, key):
    data = bytearray(sealed.read_bytes())
    data[10:14] = b"\xff\xff\xff\xff"
    sealed.write_bytes(data)
    with pytest.raises(TamperedError, match="at most"):
        SealedFile(sealed, key)


def test_what_is_no_sealed_file(tmp_path, key):
    (tmp_path / "f").write_bytes(b"PK\x03\x04 some zip file")
    with pytest.raises(UsageError, match="no sealed file"):
        SealedFile(tmp_path / "f", key)
    with pytest.raises(DataError):
        SealedFile(tmp_path / "none", key)


# Writing.


def test_an_error_leaves_nothing_behind(tmp_path, key):
    def records():
        yield b"x" * 200_000
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(tmp_path / "f", key, records())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_not_overwritten_unless_told(tmp_path, key):
    write(tmp_path / "f", key, [b"one"])
    with pytest.raises(UsageError, match="exists"):
        write(tmp_path / "f", key, [b"two"])
    write(tmp_path / "f", key, [b"two"], replace=True)
    assert SealedFile(tmp_path / "f", key).record(0) == b"two"


def test_a_second_writer_is_refused(tmp_path, key):
    with SealedWriter(tmp_path / "f", key, kind="files", name="n") as out:
        with pytest.raises(UsageError, match="another writer"):
            write(tmp_path / "f", key, [b"two"])
        out.add(b"one")
    assert SealedFile(tmp_path / "f", key).record(0) == b"one"


def test_what_a_killed_writer_left_is_overwritten(tmp_path, key):
    (tmp_path / ".f.new").write_bytes(b"half" * 100_000)
    write(tmp_path / "f", key, [b"one"])
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert SealedFile(tmp_path / "f", key).record(0) == b"one"


def test_no_folder_is_said(tmp_path, key):
    with pytest.raises(OutsideError, match="no folder"):
        write(tmp_path / "none" / "f", key, [])


def test_a_full_disk_leaves_the_old_file(tmp_path, key, monkeypatch):
    write(tmp_path / "f", key, [b"one"])

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutsideError, match="No space left"):
        write(tmp_path / "f", key, [b"two"], replace=True)
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert SealedFile(tmp_path / "f", key).record(0) == b"one"


# As a data set.


@pytest.fixture
def dataset(tmp_path, key):
    x = np.random.default_rng(0).normal(size=(500, 3, 4)).astype(np.float32)
    y = np.arange(500)
    arrays = Arrays({"x": x, "y": y})
    with SealedWriter(tmp_path / "d", key, kind=arrays.kind, name="d", fields=arrays.fields) as out:
        for record in arrays.records():
            out.add(*record)
    return SealedDataset(tmp_path / "d", key), torch.from_numpy(x), torch.from_numpy(y)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_reads_it(dataset, workers):
    data, x, y = dataset
    loader = DataLoader(
        data,
        batch_size=32,
        shuffle=True,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    seen = 0
    for xs, ys in loader:
        assert torch.equal(xs, x[ys])
        seen += len(ys)
    assert seen == 500


def test_indices_as_of_any_sequence(dataset):
    data, x, _ = dataset
    assert torch.equal(data[-1][0], x[-1])
    assert [int(y) for _, y in data.__getitems__([5, 3, 5])] == [5, 3, 5]
    with pytest.raises(IndexError):
        data[500]


def test_a_spawned_worker_gets_no_key(dataset):
    with pytest.raises(TypeError, match="never leaves"):
        pickle.dumps(dataset[0])


def test_arrays_that_make_no_records():
    for arrays in (
        {},
        {"a": np.zeros(3), "b": np.zeros(4)},
        {"a": np.array(1.0)},
        {"a": np.array([object()])},
    ):
        with pytest.raises(UsageError):
            Arrays(arrays)


def test_threads_with_a_file_each(sealed, key):
    found = []

    def read():
        with SealedFile(sealed, key) as file:
            found.append([file.record(i)[0] for i in range(10)])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(range(10))] * 4


def test_a_field_needs_no_shape():
    assert Field("a") == Field("a", "", ())
