"""The pool: memory comes back when the last user is gone, and not before."""

import dis
import gc
import mmap
import os
import signal
import sys
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tempo import memory
from tempo.memory import Pool, size_class

MIB = 1 << 20


def big(pool, megabytes=2):
    return pool.empty((megabytes * MIB // 4,), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int8])
def test_a_tensor_has_the_shape_and_type_asked_for(dtype):
    t = Pool().empty((3, 1000, 1000), dtype)
    assert (t.shape, t.dtype, t.is_contiguous()) == ((3, 1000, 1000), dtype, True)
    assert t.data_ptr() % 64 == 0
    assert t.fill_(3).sum(dtype=torch.float64) == 9_000_000


def test_the_same_memory_comes_back():
    pool = Pool()
    first = big(pool)
    where = first.data_ptr()
    del first
    assert big(pool).data_ptr() == where
    assert pool.mapped == 1


def test_a_steady_state_maps_nothing():
    pool = Pool()
    held = []
    for step in range(1000):
        held.append(big(pool).fill_(step))
        held = held[-3:]
        assert [int(t[0]) for t in held] == list(range(max(0, step - 2), step + 1))
    assert pool.mapped == 4


def test_two_tensors_never_share():
    pool = Pool()
    a, b = big(pool).fill_(1), big(pool).fill_(2)
    assert a.data_ptr() != b.data_ptr()
    assert float(a.sum()) == a.numel()


@pytest.mark.parametrize(
    "keep",
    [
        lambda t: t.view(-1, 2)[5:],
        lambda t: t.detach(),
        lambda t: t.numpy(),
        lambda t: memoryview(t.view(torch.uint8).numpy()),
    ],
    ids=["view", "detached", "array", "bytes"],
)
def test_memory_lives_as_long_as_anything_refers_to_it(keep):
    pool = Pool()
    t = big(pool).fill_(7)
    where = t.data_ptr()
    kept = keep(t)
    del t
    gc.collect()
    other = big(pool).fill_(0)
    assert other.data_ptr() != where
    del kept
    gc.collect()
    assert big(pool).data_ptr() == where


def test_a_saved_activation_is_not_overwritten():
    pool = Pool()
    w = torch.ones(1, requires_grad=True)
    t = big(pool).fill_(7)
    loss = (t * w).sum()
    del t
    big(pool).fill_(0)
    loss.backward()
    assert float(w.grad) == 7 * 2 * MIB // 4


def test_idle_memory_is_bounded_and_the_size_not_used_for_longest_goes():
    pool = Pool(idle=5 * MIB)
    a, b, c = big(pool, 2), big(pool, 3), big(pool, 2)
    del a, b
    assert pool.idle_bytes == 5 * MIB
    del c
    assert pool.idle_bytes <= 5 * MIB
    assert Pool(idle=0).empty((MIB,), torch.float32).numel() == MIB


def test_small_tensors_and_empty_ones_are_not_pooled():
    pool = Pool()
    assert pool.empty((0, 5), torch.float32).shape == (0, 5)
    assert pool.empty((), torch.float32).shape == ()
    assert pool.empty((8, 8), torch.float64).untyped_storage().resizable()
    assert pool.mapped == 0


def test_from_several_threads():
    pool, wrong = Pool(), []

    def work(mark):
        for _ in range(200):
            t = big(pool, 1).fill_(mark)
            if float(t.min()) != mark or float(t.max()) != mark:
                wrong.append(mark)

    threads = [threading.Thread(target=work, args=(float(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert pool.mapped <= 8
    assert pool.idle_bytes == pool.mapped * MIB


def test_giving_back_waits_for_no_lock():
    """A finalizer may run in the very frame that holds the lock."""
    pool = Pool()
    t = big(pool)
    with pool._lock:
        del t
    assert pool.idle_bytes == 2 * MIB


def test_a_forked_child_allocates_its_own():
    pool = Pool()
    big(pool)
    child = os.fork()
    if child == 0:
        try:
            ok = pool.mapped == 1 and big(pool).untyped_storage().resizable()
            os._exit(0 if ok else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


@given(st.integers(1, 1 << 40))
def test_size_classes_hold_what_they_are_for_and_waste_little(nbytes):
    size = size_class(nbytes)
    assert size >= nbytes
    assert size % mmap.PAGESIZE == 0
    assert size <= max(1.25 * nbytes, nbytes + mmap.PAGESIZE)
    assert size_class(size) == size


def _interrupt_after_call(number, run):
    """Run `run`, with an interrupt after the number-th call that memory.py makes in it, which is where
    CPython looks for signals. Whether there were that many."""
    seen, after_call = 0, False

    def trace(frame, event, arg):
        nonlocal seen, after_call
        if frame.f_code.co_filename != memory.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            due, name = after_call, dis.opname[frame.f_code.co_code[frame.f_lasti]]
            after_call = name.startswith("CALL")
            if due:
                seen += 1
                if seen == number:
                    raise KeyboardInterrupt
        elif event == "return":
            after_call = True  # in the frame that called
        elif event == "call":
            after_call = False
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interrupt_anywhere_leaves_the_pool_open():
    """Ctrl-C between taking the lock and what releases it: nobody would get memory from then on."""

    def use():
        pool._returned.append(mmap.mmap(-1, 2 * MIB))
        pool._settle()
        kept.append(big(pool))

    number, kept = 1, []
    pool = Pool(idle=4 * MIB)
    while _interrupt_after_call(number, use):
        number += 1
        where = []
        other = threading.Thread(target=lambda: where.append(big(pool)), daemon=True)
        other.start()
        other.join(10)
        assert where, f"locked for ever after call {number - 1}"
        assert not pool._busy
        del other
        where.clear()
        kept.clear()
        assert pool.idle_bytes <= 4 * MIB
        pool = Pool(idle=4 * MIB)
    assert number > 10


def test_a_system_without_huge_pages(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert big(Pool()).fill_(1).sum() == 2 * MIB // 4


def test_a_child_forked_while_the_pool_was_locked_waits_for_nobody():
    """The thread that held the lock does not exist in the child."""
    pool = Pool()
    t = big(pool)
    held, go = threading.Event(), threading.Event()

    def hold():
        with pool._lock:
            held.set()
            go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        del t
        os._exit(0)
    go.set()
    thread.join(10)
    assert os.waitpid(child, 0)[1] == 0
