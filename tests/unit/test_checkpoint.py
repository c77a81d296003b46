"""Checkpoints: all state comes back exactly, nothing is half written or half read, older ones are refused."""

import random
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tempo
from tempo.checkpoint import read, write
from tempo.checkpoint.tree import pack, unpack
from tempo.errors import OutsideError, TamperedError, UnsupportedError, UsageError
from tempo.fleet import Standing
from tempo.trust.ledger import Ledger, Signer
from tempo.trust.sealed import DataKey, Expected, OwnerKey, SealedWriter

pytestmark = pytest.mark.security

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(-9, 9), inner)
        | st.dictionaries(st.text(), st.integers(0, 9)).map(Counter)
    ),
    max_leaves=20,
)


@given(PLAIN)
def test_plain_data_comes_back_with_its_types(value):
    import msgspec

    tensors = []
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(pack(value, tensors)))
    again = unpack(wire, tensors)
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize("value", [object(), lambda: 0, {1, 2}, {(1, 2): 3}, {"a": [nn.Linear(1, 1)]}])
def test_what_would_need_pickle_is_refused_by_its_path(value):
    with pytest.raises(UnsupportedError, match="state"):
        pack(value, [])


@pytest.mark.parametrize("packed", [["T", 3], ["X", []], [], ["D", [1]], ["L"], {"a": 1}])
def test_what_no_checkpoint_held_is_refused(packed):
    with pytest.raises(TamperedError):
        unpack(packed, [])


def make(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5])
    return model, optimizer, schedule


def step(model, optimizer, schedule):
    x, y = torch.randn(16, 8), torch.randint(0, 3, (16,))
    loss = F.cross_entropy(model(x), y) * (1 + 0.1 * random.random()) * float(np.random.rand() + 0.5)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    return loss.item()


@pytest.fixture
def key():
    return DataKey.generate()


def save(path, key, parts, number=3, **options):
    model, optimizer, schedule = parts
    named = {"model": model, "optimizer": optimizer, "schedule": schedule}
    write(path, key, name=path.name, step=number, parts=named, session={"counts": {}}, **options)


def load(path, key, parts, **options):
    model, optimizer, schedule = parts
    return read(path, key, parts={"model": model, "optimizer": optimizer, "schedule": schedule}, **options)


def test_a_run_goes_on_bit_for_bit(tmp_path, key):
    """Model, moments, schedule, and all three generators."""
    whole = make()
    random.seed(1)
    np.random.seed(1)
    for _ in range(3):
        step(*whole)
    save(tmp_path / "c", key, whole, extra={"epoch": 1, "order": torch.arange(5)})
    expected = [step(*whole) for _ in range(4)]
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    again = make(seed=7)
    found = load(tmp_path / "c", key, again)
    assert found.step == 3
    assert found.extra["epoch"] == 1
    assert torch.equal(found.extra["order"], torch.arange(5))
    assert [step(*again) for _ in range(4)] == expected
    for a, b in zip(whole[0].state_dict().values(), again[0].state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8, torch.float16]
)
def test_tensors_of_every_dtype_and_shape(tmp_path, key, dtype):
    tensors = [torch.ones(3, 2).to(dtype), torch.zeros((), dtype=dtype), torch.zeros(0, 4, dtype=dtype)]
    tensors.append(torch.arange(6).reshape(2, 3).to(dtype).T)
    write(tmp_path / "c", key, name="c", step=0, parts={}, session={}, extra=tensors)
    again = read(tmp_path / "c", key, parts={}).extra
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(tensors, again, strict=True))


def test_a_generator_is_a_part(tmp_path, key):
    generator = torch.Generator().manual_seed(5)
    write(tmp_path / "c", key, name="c", step=0, parts={"g": generator}, session={})
    expected = torch.rand(3, generator=generator)
    other = torch.Generator()
    read(tmp_path / "c", key, parts={"g": other})
    assert torch.equal(torch.rand(3, generator=other), expected)


def test_sealed_to_an_owner(tmp_path):
    owner = OwnerKey.generate()
    write(tmp_path / "c", owner.recipient, name="c", step=1, parts={}, session={}, extra=1)
    assert read(tmp_path / "c", owner, parts={}).extra == 1


def test_no_weight_is_in_the_clear(tmp_path, key):
    parts = make()
    save(tmp_path / "c", key, parts)
    data = (tmp_path / "c").read_bytes()
    for p in parts[0].parameters():
        assert p.detach().numpy().tobytes()[:16] not in data


# What is refused, with nothing changed.


def test_attack_altered_anywhere_changes_nothing(tmp_path, key):
    save(tmp_path / "c", key, make())
    data = (tmp_path / "c").read_bytes()
    target = make(seed=3)
    before = [t.clone() for t in target[0].state_dict().values()]
    drawn = torch.get_rng_state()
    for at in range(14, len(data), 977):
        bent = bytearray(data)
        bent[at] ^= 1
        (tmp_path / "c").write_bytes(bent)
        with pytest.raises((TamperedError, UsageError)):
            load(tmp_path / "c", key, target)
    assert all(torch.equal(a, b) for a, b in zip(before, target[0].state_dict().values(), strict=True))
    assert torch.equal(drawn, torch.get_rng_state())


def test_attack_an_older_checkpoint_in_its_place(tmp_path, key):
    save(tmp_path / "c", key, make(), number=3)
    with pytest.raises(TamperedError, match="version 3.*version 4"):
        load(tmp_path / "c", key, make(), expected=Expected("c", 4))


def test_other_parts_are_named(tmp_path, key):
    save(tmp_path / "c", key, make())
    with pytest.raises(UsageError, match=r"model, optimizer, schedule.*given are net"):
        read(tmp_path / "c", key, parts={"net": make()[0]})


def test_data_is_no_checkpoint(tmp_path, key):
    with SealedWriter(tmp_path / "c", key, kind="files", name="c") as out:
        out.add(b"x")
    with pytest.raises(UsageError, match="no checkpoint"):
        read(tmp_path / "c", key, parts={})


def test_what_has_no_state_is_refused_before_anything_is_written(tmp_path, key):
    with pytest.raises(UsageError, match="model is a int"):
        write(tmp_path / "c", key, name="c", step=0, parts={"model": 3}, session={})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_older_one(tmp_path, key, monkeypatch):
    import os

    save(tmp_path / "c", key, make(), number=1)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutsideError):
        save(tmp_path / "c", key, make(), number=2)
    monkeypatch.undo()
    assert load(tmp_path / "c", key, make()).step == 1


# A session's own.


def test_a_session_goes_on_with_its_counters_and_its_grudges(tmp_path, key):
    path = tmp_path / "run"
    with tempo.Session("cpu") as session:
        model = session.protect(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 10)))
        F.cross_entropy(model(torch.randn(80, 64)), torch.randint(0, 10, (80,))).backward()
        session._fleet._runners[0].quarantine()
        session.checkpoint(path, key, step=7, model=model)
        before = session.report()
        session.resume(path, key, model=model)
        assert session.report().checks == before.checks  # its own: they are counted already
    with tempo.Session("cpu") as session:
        model = session.protect(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 10)))
        assert session.resume(path, key, model=model).step == 7
        assert session.report().checks == before.checks > 0
        session.resume(path, key, model=model)
        assert session.report().checks == before.checks
        standing = session._fleet.standing["cpu-0"]
        assert standing.relapses == 1
        assert 30 < standing.quarantine_s <= 60


def test_without_a_file_a_run_begins(tmp_path, key):
    with tempo.Session("cpu") as session:
        assert session.resume(tmp_path / "none", key, model=nn.Linear(2, 2)) is None


def test_the_audit_log_knows_the_newest(tmp_path, key):
    signer = Signer.generate("example.org/run")
    model = nn.Linear(2, 2)
    with Ledger.create(tmp_path / "log", signer) as ledger, tempo.Session("cpu", ledger=ledger) as session:
        session.checkpoint(tmp_path / "run", key, step=1, model=model)
        old = (tmp_path / "run").read_bytes()
        session.checkpoint(tmp_path / "run", key, step=2, model=model)
    (tmp_path / "run").write_bytes(old)
    with Ledger.open(tmp_path / "log", signer) as ledger, tempo.Session("cpu", ledger=ledger) as session:
        with pytest.raises(TamperedError, match="older state"):
            session.resume(tmp_path / "run", key, model=model)
        (tmp_path / "run").unlink()
        with pytest.raises(TamperedError, match="is gone"):
            session.resume(tmp_path / "run", key, model=model)


def test_standing_is_only_ever_raised():
    with tempo.Session("cpu") as session:
        fleet = session._fleet
        fleet.restore({"cpu-0": Standing(3, 100.0), "unknown": Standing(1, 1.0)})
        fleet.restore({"cpu-0": Standing(1, 5.0)})
        assert fleet.standing["cpu-0"].relapses == 3
        assert fleet.standing["cpu-0"].quarantine_s > 50


def test_ordered_dicts_come_back_as_dicts():
    assert unpack(pack(OrderedDict(a=1), []), []) == {"a": 1}
