"""Batches of a sealed file: the bytes and refusals of single reads; in shuffled blocks each record once."""

import os
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, default_collate

from tempo.data import SealedBatchSampler, SealedDataset, SealedSampler
from tempo.errors import TamperedError, UsageError
from tempo.trust.sealed import DataKey, SealedFile, SealedWriter
from tempo.trust.sealed.format import Field
from tempo.trust.sealed.index import Index
from tempo.trust.sealed.sources import Arrays
from tempo.trust.sealed.stream import SEGMENT, TAG, Segments

pytestmark = pytest.mark.security

SIZES = st.sampled_from([0, 1, 7, 3000, SEGMENT // 2, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT + 5])
KEPT = st.sampled_from([0, 2 * SEGMENT, 1 << 30])


def write(path, key, records):
    with SealedWriter(path, key, kind="files", name="n") as out:
        for record in records:
            out.add(record)
    return path


def seal(path, key, arrays):
    source = Arrays(arrays)
    with SealedWriter(path, key, kind=source.kind, name="d", fields=source.fields) as out:
        source.fill(out)
    return path


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(SIZES, min_size=1, max_size=12), keep=KEPT, data=st.data())
def test_a_batch_of_ragged_records_is_what_single_reads_are(tmp_path_factory, sizes, keep, data):
    key, records = DataKey.generate(), [os.urandom(size) for size in sizes]
    numbers = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=20))
    with SealedFile(write(tmp_path_factory.mktemp("s") / "f", key, records), key, keep=keep) as file:
        for _ in range(2):
            batch = file.records(numbers)
            assert batch == [records[i] for i in numbers]
            assert batch == [file.record(i) for i in numbers]
        for each in batch:  # nobody's bytes are another's
            each[:] = bytes(len(each))
        assert file.records(numbers) == [records[i] for i in numbers]
        for outside in (-1, len(records), 2**62):
            with pytest.raises(IndexError, match=str(outside)):
                file.records([0, outside])


@settings(deadline=None, max_examples=40)
@given(size=SIZES, count=st.integers(1, 60), keep=KEPT, data=st.data())
def test_rows_are_what_single_reads_are(tmp_path_factory, size, count, keep, data):
    key = DataKey.generate()
    rows = np.frombuffer(os.urandom(size * count), np.uint8).reshape(count, size)
    first = data.draw(st.integers(0, count - 1))
    near = list(range(first, data.draw(st.integers(first, count))))
    numbers = data.draw(st.one_of(st.just(near), st.lists(st.integers(0, count - 1), max_size=40)))
    path = tmp_path_factory.mktemp("s") / "f"
    with SealedWriter(path, key, kind="files", name="n") as out:
        out.add(b"before")
        out.add_rows(rows)
    with SealedFile(path, key, keep=keep) as file:
        assert file.record(0) == b"before"
        wanted = [number + 1 for number in numbers]
        for _ in range(2):
            found = file.rows(wanted, size)
            assert found.shape == (len(numbers), size)
            assert np.array_equal(found, rows[numbers].reshape(len(numbers), size))
            assert [bytes(row) for row in found] == [bytes(file.record(number)) for number in wanted]
            found[:] = 0
        for outside in (-1, count + 1):
            with pytest.raises(IndexError):
                file.rows([1, outside], size)
        with pytest.raises(UsageError, match="not all of"):
            file.rows([1, *wanted], size + 1)


@settings(deadline=None, max_examples=25)
@given(
    dtypes=st.lists(st.sampled_from(["u1", "<i2", "<f4", ">f4", "<i8", "?"]), min_size=1, max_size=4),
    shapes=st.lists(st.sampled_from([(), (3,), (2, 5), (0,), (90, 100)]), min_size=4, max_size=4),
    numbers=st.lists(st.integers(-30, 29), min_size=1, max_size=40),
    keep=KEPT,
)
def test_batches_of_arrays_are_their_items(tmp_path_factory, dtypes, shapes, numbers, keep):
    draw = np.random.default_rng(len(numbers))
    arrays = {
        f"a{i}": draw.integers(0, 100, (30, *shape)).astype(dtype)
        for i, (dtype, shape) in enumerate(zip(dtypes, shapes, strict=False))
    }
    folder, key = tmp_path_factory.mktemp("s"), DataKey.generate()
    source = Arrays(arrays)
    with SealedWriter(folder / "one", key, kind=source.kind, name="d", fields=source.fields) as out:
        for record in source.records():
            out.add(*record)
    with SealedFile(folder / "one", key) as one, SealedFile(seal(folder / "d", key, arrays), key) as many:
        assert one.manifest == many.manifest
        assert one.read(0, one.records_length) == many.read(0, many.records_length)
        assert [one.record(i) for i in range(30)] == [many.record(i) for i in range(30)]
    data = SealedDataset(folder / "d", key, keep=keep)
    native = [torch.from_numpy(a.astype(a.dtype.newbyteorder("="))) for a in arrays.values()]
    expected = [tuple(t[i] for t in native) for i in numbers]
    single, batch = [data[i] for i in numbers], data.__getitems__(numbers)
    for items in (single, batch):
        for item, right in zip(items, expected, strict=True):
            parts = item if len(arrays) > 1 else (item,)
            for part, value in zip(parts, right, strict=True):
                assert part.dtype == value.dtype
                assert torch.equal(part, value)
                assert part.data_ptr() % part.element_size() == 0
    whole, right = data[numbers], default_collate(single)
    for one, two in zip(*((whole, right) if len(arrays) > 1 else ([whole], [right])), strict=True):
        assert torch.equal(one, two)
    for outside in (30, -31):
        with pytest.raises(IndexError):
            data.__getitems__([0, outside])


def test_pieces_of_a_record_in_any_form(tmp_path):
    key, numbers = DataKey.generate(), np.arange(12, dtype=np.uint8).reshape(3, 4)
    pieces = [
        b"a",
        bytearray(b"bc"),
        numbers.data,
        memoryview(np.arange(3, dtype="<u2")),
        memoryview(b"xyz")[1:],
    ]
    with SealedWriter(tmp_path / "f", key, kind="files", name="n") as out:
        out.add(*pieces)
        out.add_rows(np.zeros((4, 0), np.float32))
        out.add_rows(numbers.T)  # each row as it reads, not as it lies
        with pytest.raises(UsageError, match="first axis"):
            out.add_rows(np.array(1.0))
    with SealedFile(tmp_path / "f", key) as file:
        assert file.record(0) == b"".join(bytes(piece) for piece in pieces)
        expected = [b""] * 4 + [bytes([i, i + 4, i + 8]) for i in range(4)]
        assert file.records(range(1, 9)) == expected


def test_bfloat16_and_a_transform_in_batches(tmp_path):
    key, bits = DataKey.generate(), np.arange(40, dtype="<i2").reshape(10, 4)
    with SealedWriter(
        tmp_path / "d", key, kind="arrays", name="d", fields=[Field("x", "bfloat16", (4,))]
    ) as out:
        out.add_rows(bits)
    data = SealedDataset(tmp_path / "d", key)
    right = torch.from_numpy(bits).view(torch.bfloat16)
    assert torch.equal(data[[3, 1, 3]], right[[3, 1, 3]])
    assert all(torch.equal(item, right[i]) for i, item in enumerate(data.__getitems__(range(10))))
    assert torch.equal(data[4], right[4])
    doubled = SealedDataset(tmp_path / "d", key, transform=lambda x: x * 2)
    assert torch.equal(doubled[[3, 1]], right[[3, 1]] * 2)
    assert torch.equal(torch.stack(doubled.__getitems__([3, 1])), right[[3, 1]] * 2)


def bent(path, segment):
    """One bit of a segment, in place: files that are open see it."""
    data = bytearray(path.read_bytes())
    start = 14 + int.from_bytes(data[10:14], "big")
    data[start + segment * (SEGMENT + TAG) + 100] ^= 1
    with path.open("r+b") as file:
        file.write(data)


@pytest.mark.parametrize("keep", [0, 4 << 20])
@pytest.mark.parametrize("size", [3072, SEGMENT + 1])
def test_attack_a_bent_segment_in_a_batch_hands_nothing_out(tmp_path, size, keep):
    key, count = DataKey.generate(), 12 * SEGMENT // size
    x = np.random.default_rng(0).integers(0, 256, (count, size), np.uint8)
    path = seal(tmp_path / "d", key, {"x": x})
    data, file = SealedDataset(path, key, keep=keep), SealedFile(path, key, keep=keep)
    bent(path, 5)
    hit = 5 * SEGMENT // size + 1
    order = np.random.default_rng(1).permutation(count).tolist()
    for _ in range(2):  # the second time, nothing of the first is taken for opened
        for read in (data.__getitems__, data.__getitem__, file.records, partial(file.rows, length=size)):
            for numbers in (order, [0, hit], list(range(count)), [hit]):
                with pytest.raises(TamperedError, match="segment 5 was altered"):
                    read(numbers)
    assert torch.equal(data[[0, count - 1, 1]], torch.from_numpy(x[[0, count - 1, 1]]))
    bent(path, 5)
    assert torch.equal(data[order], torch.from_numpy(x[order]))


def test_an_index_that_does_not_fit_is_refused(tmp_path):
    for entries in ([5, 3], [5, 11], [2**63, 5], [2**64 - 1, 5]):
        raw = b"".join(entry.to_bytes(8, "big") for entry in entries)
        index = Index(lambda start, length, raw=raw: memoryview(bytearray(raw))[:length], 10, 2)
        for read in (lambda: index.one(1), lambda: index.many(np.array([1]))):  # noqa: B023
            with pytest.raises(TamperedError, match="does not fit"):
                read()


def test_an_index_of_many_blocks_in_batches(tmp_path):
    count = 30_000
    data = SealedDataset(seal(tmp_path / "d", key := DataKey.generate(), {"n": np.arange(count)}), key)
    order = np.random.default_rng(0).permutation(count).tolist()
    assert data[order].tolist() == order
    assert data[list(range(8000, 17_000))].tolist() == list(range(8000, 17_000))


# Shuffled by blocks.


@pytest.fixture
def large(tmp_path):
    key = DataKey.generate()
    key.save(tmp_path / "key")
    x = np.random.default_rng(0).integers(0, 256, (2003, 3072), np.uint8)
    return seal(tmp_path / "d", key, {"x": x, "y": np.arange(2003)}), tmp_path / "key", torch.from_numpy(x)


def test_every_record_once_seeded_and_anew_in_each_pass(large):
    path, key, _ = large
    data = SealedDataset(path, DataKey.load(key), keep=2 << 20)
    sampler = SealedSampler(data, generator=torch.Generator().manual_seed(3))
    assert (first := list(sampler)) != (second := list(sampler))
    assert sorted(first) == sorted(second) == list(range(2003))
    assert len(sampler) == 2003
    again = SealedSampler(data, generator=torch.Generator().manual_seed(3))
    again.set_epoch(1)
    assert list(again) == second
    assert list(SealedSampler(data, generator=torch.Generator().manual_seed(4))) != first
    with pytest.raises(UsageError):
        SealedSampler(data, window=-1)


def test_a_window_as_large_as_the_file_shuffles_everything(large):
    path, key, _ = large
    data = SealedDataset(path, DataKey.load(key))
    places = torch.zeros(2003)
    for seed in range(60):
        order = list(SealedSampler(data, window=1 << 30, generator=torch.Generator().manual_seed(seed)))
        places[order] += torch.arange(2003.0)
    # The mean place of a record is 1001, with a deviation of 2003 / sqrt(12 * 60) = 75.
    assert ((places / 60 - 1001).abs() < 6 * 75).all()


def test_shuffled_blocks_open_each_segment_about_once(large, monkeypatch):
    path, key, x = large
    data = SealedDataset(path, DataKey.load(key), keep=2 << 20)
    numbers, plain = [], Segments.open_into

    def counting(self, number, *given, **options):
        numbers.append(number)
        plain(self, number, *given, **options)

    monkeypatch.setattr(Segments, "open_into", counting)
    seed = torch.Generator().manual_seed(0)  # one order in forty opens 1.4 times as many
    for xs, ys in DataLoader(data, batch_size=64, sampler=SealedSampler(data, generator=seed)):
        assert torch.equal(xs, x[ys])
    assert (segments := len(set(numbers))) >= 2003 * 3072 // SEGMENT
    assert len(numbers) < 1.4 * segments
    numbers.clear()
    list(DataLoader(data, batch_size=64, shuffle=True))
    assert len(numbers) > 3 * segments  # what it is there to avoid


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_for_workers_hold_every_record_once(large, workers, drop):
    path, key, _ = large
    data = SealedDataset(path, DataKey.load(key), keep=2 << 20)
    sampler = SealedBatchSampler(data, 64, workers=workers, drop_last=drop)
    batches = list(sampler)
    assert len(batches) == len(sampler) == (31 if drop else 32)
    assert all(len(batch) == 64 for batch in batches[:31])
    seen = [number for batch in batches for number in batch]
    assert len(seen) == len(set(seen))
    assert drop or sorted(seen) == list(range(2003))
    sampler.set_epoch(0)
    assert list(sampler) == batches
    for size, count in ((0, 1), (1, -1)):
        with pytest.raises(UsageError):
            SealedBatchSampler(data, size, workers=count)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_get_shuffled_batches_whole(large, context):
    path, key, x = large
    data = SealedDataset(path, partial(DataKey.load, key), keep=2 << 20)
    sampler = SealedBatchSampler(data, 64, workers=2)
    seen = []
    for how in ({"batch_sampler": sampler}, {"sampler": sampler, "batch_size": None}):
        loader = DataLoader(data, num_workers=2, multiprocessing_context=context, **how)
        for xs, ys in loader:
            assert torch.equal(xs, x[ys])
            seen += ys.tolist()
        if context == "spawn":
            break
    assert sorted(set(seen)) == list(range(2003))
