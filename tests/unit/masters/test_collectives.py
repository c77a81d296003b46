"""Collectives on a ring of queues: as on one machine, for all sizes, and the same bits everywhere."""

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tempo.errors import ProtocolError
from tempo.masters import collectives as module
from tempo.masters.collectives import Collectives
from tempo.masters.place import Place

SIZES = st.integers(2, 5)
COUNTS = st.integers(0, 23)


class Wire:
    """A Link over queues: pieces are copied when they are sent, as by a socket."""

    def __init__(self, rank, queues):
        self.place = Place("run", rank, len(queues), 10.0)
        self._out, self._come = queues[rank], queues[rank - 1]
        self.bytes_sent = 0

    def send(self, piece, tensor):
        self.bytes_sent += tensor.nbytes
        self._out.put((piece, tensor.clone()))
        done = Future()
        done.set_result(None)
        return done

    def receive(self, piece, tensor):
        found, value = self._come.get(timeout=3)
        if found != piece or value.shape != tensor.shape:
            raise ProtocolError("another piece")
        tensor.copy_(value)


def on_all(n, do):
    """do(collectives, rank) on n masters at once; their results, and bytes sent."""
    wires = [Wire(rank, queues) for queues in [[queue.Queue() for _ in range(n)]] for rank in range(n)]
    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(lambda wire: do(Collectives(wire), wire.place.rank), wires)), wires


def add(x, y):
    x.add_(y)


@settings(max_examples=60, deadline=None)
@given(SIZES, COUNTS, st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bfloat16]))
def test_a_sum_is_the_sum_and_the_same_everywhere(n, count, dtype):
    generator = torch.Generator().manual_seed(count)
    own = [torch.randn(count, generator=generator).mul(9).to(dtype) for _ in range(n)]

    def do(collectives, rank):
        mine = own[rank].clone()
        collectives.reduce(mine, add)
        return mine

    found, wires = on_all(n, do)
    for other in found[1:]:
        assert torch.equal(found[0], other)
    wanted = torch.stack(own).double().sum(0)
    size = torch.stack(own).double().abs().sum(0)
    allowed = n * size * (0.0 if dtype is torch.int64 else torch.finfo(dtype).eps)
    assert ((found[0].double() - wanted).abs() <= allowed).all()
    most = 2 * (n - 1) * -(-count // n) * own[0].element_size()
    assert all(wire.bytes_sent <= most for wire in wires)


@settings(max_examples=30, deadline=None)
@given(SIZES, COUNTS)
def test_a_gathering_has_each_part_in_its_place(n, count):
    def do(collectives, rank):
        parts = [torch.full((count,), -1.0) for _ in range(n)]
        collectives.gather(parts, torch.full((count,), float(rank)))
        return parts

    for parts in on_all(n, do)[0]:
        assert [part.tolist() for part in parts] == [[float(rank)] * count for rank in range(n)]


@settings(max_examples=40, deadline=None)
@given(SIZES, COUNTS, st.data())
def test_a_broadcast_is_the_root_s(n, count, data):
    root = data.draw(st.integers(0, n - 1))

    def do(collectives, rank):
        mine = torch.full((count,), float(rank))
        collectives.broadcast(mine, root)
        return mine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", 12)  # three elements a piece
        for found in on_all(n, do)[0]:
            assert found.tolist() == [float(root)] * count


def test_masters_that_do_different_things_end_with_an_error():
    def do(collectives, rank):
        mine = torch.ones(4)
        try:
            collectives.broadcast(mine, 0) if rank else collectives.reduce(mine, add)
        except (ProtocolError, queue.Empty) as error:  # who notices second hears nothing more
            return str(error)
        return ""

    found, _ = on_all(2, do)
    assert any("another piece" in each for each in found)
    assert threading.active_count() < 20
