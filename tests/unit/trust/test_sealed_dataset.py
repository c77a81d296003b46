"""SealedDataset in workers, forked and spawned; what is kept, pooled and aligned."""

import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tempo.data import SealedDataset
from tempo.data.dataset import Memory
from tempo.errors import TamperedError, UsageError
from tempo.trust.sealed import DataKey, SealedFile, SealedWriter
from tempo.trust.sealed.plain import BATCH
from tempo.trust.sealed.sources import Arrays
from tempo.trust.sealed.stream import SEGMENT, TAG, Segments

pytestmark = pytest.mark.security


def seal(path, key, arrays):
    source = Arrays(arrays)
    with SealedWriter(path, key, kind=source.kind, name="d", fields=source.fields) as out:
        for record in source.records():
            out.add(*record)
    return path


def just(key):
    return key


@pytest.fixture
def sealed(tmp_path):
    key = DataKey.generate()
    key.save(tmp_path / "key")
    x = np.random.default_rng(0).normal(size=(300, 20, 20)).astype(np.float32)
    return seal(tmp_path / "d", key, {"x": x, "y": np.arange(300)}), tmp_path / "key", torch.from_numpy(x)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_either_kind(sealed, context):
    path, key, x = sealed
    data = SealedDataset(path, partial(DataKey.load, key))
    loader = DataLoader(data, batch_size=32, shuffle=True, num_workers=2, multiprocessing_context=context)
    seen = []
    for xs, ys in loader:
        assert torch.equal(xs, x[ys])
        seen += ys.tolist()
    assert sorted(seen) == list(range(300))


def test_the_pickle_for_a_spawned_worker_holds_no_key(sealed):
    path, key_file, x = sealed
    key = DataKey.load(key_file)
    shipped = pickle.dumps(SealedDataset(path, partial(DataKey.load, key_file), keep=0))
    raw = key.unsafe_bytes()
    assert raw not in shipped
    assert not any(raw[i : i + 8] in shipped for i in range(24))
    assert torch.equal(pickle.loads(shipped)[7][0], x[7])
    with pytest.raises(TypeError, match="never leaves"):
        pickle.dumps(SealedDataset(path, partial(just, key)))
    with pytest.raises(TypeError, match="never leaves"):
        pickle.dumps(SealedDataset(path, key))


def opened(monkeypatch):
    """Numbers of the segments that are opened from now on."""
    numbers, plain = [], Segments.open_into

    def counting(self, number, *given, **options):
        numbers.append(number)
        plain(self, number, *given, **options)

    monkeypatch.setattr(Segments, "open_into", counting)
    return numbers


def test_a_kept_file_is_opened_once_and_no_more_is_kept_than_told(sealed, monkeypatch):
    path, key, x = sealed
    order = np.random.default_rng(1).permutation(300).tolist()
    numbers = opened(monkeypatch)
    data = SealedDataset(path, DataKey.load(key), keep=1 << 30)
    for _ in range(2):
        assert all(torch.equal(data[i][0], x[i]) for i in order)
    assert len(numbers) <= len(set(numbers)) + 2  # the end is read before it is known what is there
    numbers.clear()
    data = SealedDataset(path, DataKey.load(key), keep=SEGMENT)
    assert all(torch.equal(data[i][0], x[i]) for i in order)
    assert len(numbers) > 200
    assert data.keep == data._file._plain._memory.nbytes == SEGMENT
    with pytest.raises(UsageError, match="none or more"):
        SealedDataset(path, DataKey.load(key), keep=-1)


def test_every_offset_and_length_with_any_segments_kept(tmp_path):
    key, plain = DataKey.generate(), os.urandom(11 * SEGMENT + 77)
    with SealedWriter(tmp_path / "f", key, kind="files", name="n") as out:
        out.add(plain)
    draw = np.random.default_rng(2)
    with SealedFile(tmp_path / "f", key, keep=3 * SEGMENT) as file:
        for _ in range(300):
            edge = int(draw.integers(0, 12)) * SEGMENT
            start = min(max(0, edge + int(draw.integers(-2, 3))), len(plain))
            length = min(int(draw.choice([0, 1, 5, SEGMENT, 2 * SEGMENT, 7 * SEGMENT])), len(plain) - start)
            length = max(0, min(length + int(draw.integers(-1, 2)), len(plain) - start))
            assert file.read(start, length) == plain[start : start + length]


def test_a_bent_segment_within_a_batch_is_named_and_its_neighbours_still_open(tmp_path):
    key, plain = DataKey.generate(), os.urandom(4 * BATCH * SEGMENT)
    path = tmp_path / "f"
    with SealedWriter(path, key, kind="files", name="n") as out:
        out.add(plain)
    data = bytearray(path.read_bytes())
    start = 14 + int.from_bytes(data[10:14], "big")
    data[start + (BATCH + 1) * (SEGMENT + TAG)] ^= 1
    path.write_bytes(data)
    with SealedFile(path, key) as file:
        for read in (lambda: file.record(0), file.verify):
            with pytest.raises(TamperedError, match=f"segment {BATCH + 1} was altered"):
                read()
        assert file.read(0, (BATCH + 1) * SEGMENT) == plain[: (BATCH + 1) * SEGMENT]
        after = (BATCH + 2) * SEGMENT
        assert file.read(after, SEGMENT) == plain[after : after + SEGMENT]


def test_large_records_come_from_memory_that_comes_back(tmp_path):
    x = np.random.default_rng(3).normal(size=(6, 1 << 19)).astype(np.float32)
    path, key = tmp_path / "d", DataKey.generate()
    data = SealedDataset(seal(path, key, {"x": x}), key)
    places = set()
    for i in range(6):
        item = data[i]
        assert torch.equal(item, torch.from_numpy(x[i]))
        places.add(item.data_ptr())
        del item
    assert len(places) == 1
    held = [data[i] for i in range(6)]
    assert all(torch.equal(item, torch.from_numpy(row)) for item, row in zip(held, x, strict=True))


def test_memory_of_a_forked_child_is_its_own():
    memory = Memory()
    first = memory.allocate(2 << 20)
    first[:3] = b"abc"
    child = os.fork()
    if not child:
        mine = memory.allocate(2 << 20)
        mine[:3] = b"xyz"
        os._exit(0 if bytes(first[:3]) == b"abc" and bytes(mine[:3]) == b"xyz" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert first[:3] == b"abc"


def test_fields_that_are_not_aligned(tmp_path):
    a = np.arange(10, dtype=np.uint8)
    b = np.arange(10, dtype=np.int64) << 40
    data = SealedDataset(seal(tmp_path / "d", key := DataKey.generate(), {"a": a, "b": b}), key)
    for i in range(10):
        one, two = data[i]
        assert (int(one), int(two)) == (i, i << 40)
        assert two.data_ptr() % 8 == 0


def test_an_index_of_many_blocks(tmp_path):
    """More entries than are decoded at once; each record is its own number."""
    count = 20_000
    data = SealedDataset(seal(tmp_path / "d", key := DataKey.generate(), {"n": np.arange(count)}), key)
    for i in (0, 8191, 8192, 8193, 16_383, 16_384, count - 1, 5):
        assert int(data[i]) == i
    assert Path(tmp_path / "d").stat().st_size > 16 * count


@pytest.mark.parametrize("numbers", [[1.7], [True, False], [False, True], [0, 2**63], [-(2**64)]])
def test_what_is_no_number_of_a_record_is_not_taken_for_one(tmp_path, numbers):
    key = DataKey.generate()
    data = SealedDataset(seal(tmp_path / "d", key, {"x": np.arange(40.0)}), key)
    with SealedFile(tmp_path / "d", key) as file:
        for read in (file.records, partial(file.rows, length=8), data.__getitem__):
            with pytest.raises((IndexError, UsageError)):
                read(numbers)
        assert file.records([np.int64(1)]) == file.records(np.array([1], np.uint8)) == [file.record(1)]
        assert file.records([]) == file.records(np.empty(0)) == []
