"""The operand store keeps its bound whatever it is asked."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tempo.worker import OperandStore


def filled(*sizes, max_bytes=100, max_count=10):
    store = OperandStore(max_bytes, max_count)
    for number, size in enumerate(sizes):
        assert store.make_room(size, 1, ())
        store.put(number, torch.zeros(size, dtype=torch.uint8))
    return store


def test_the_least_recently_used_goes_first():
    store = filled(40, 40)
    assert store.get(0) is not None
    assert store.make_room(30, 1, ())
    assert (0 in store, 1 in store) == (True, False)


def test_operands_in_use_are_never_evicted():
    store = filled(40, 40)
    assert not store.make_room(70, 1, {0})
    assert 0 in store
    assert store.make_room(60, 1, {0})


def test_replacing_and_releasing_give_bytes_back():
    store = filled(40, 40)
    store.put(1, torch.zeros(10, dtype=torch.uint8))
    assert (store.bytes, len(store)) == (50, 2)
    store.release((1, 99))
    assert (store.bytes, len(store), store.get(1)) == (40, 1, None)


def test_empty_operands_are_bounded_by_count():
    store = filled(0, 0, 0, max_count=3)
    assert store.make_room(0, 1, ())
    assert len(store) == 2


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 120), st.sets(st.integers(0, 7)))))
def test_the_bound_holds_at_every_moment(steps):
    store = OperandStore(100, 4)
    for operand, size, in_use in steps:
        used = {one for one in in_use if one in store}
        fits = store.make_room(size, 1, used)
        assert all(one in store for one in used)
        if fits:
            store.put(operand, torch.zeros(size, dtype=torch.uint8))
        assert store.bytes <= 100
        assert len(store) <= 4
        assert store.bytes == sum(store.get(one).nbytes for one in range(8) if one in store)
