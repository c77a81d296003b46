"""Two requests in flight on one connection: order, what they share, memory, and hostile masters."""

import threading
import time

import pytest
import torch
from test_worker_server import Master, W, X, part

from tempo.memory import Pool
from tempo.ops import compute
from tempo.wire import Bye, Compute, Evicted, Hello, Refused, Release, Result, limits
from tempo.worker import Executor, TooLarge
from tempo.worker.ahead import Ahead
from tempo.worker.executor import Gone

ROWS = (2, 4)
Y = compute(Compute(0, "product", part(1, X), part(2, W), ROWS, "fp32").operation, X, W, ROWS)


def soon():
    return time.monotonic() + 5


@pytest.fixture
def master():
    master = Master()
    master.ask(Hello(limits.VERSION))
    yield master
    master.end()


def send(master, message, *tensors):
    master.channel.send(message, tensors, deadline=soon())


def result(master, number):
    reply, length = master.answer()
    assert reply == Result(number)
    out = torch.empty(length // 4)
    master.channel.fill(out, deadline=soon())
    return out


def product(number, x, w, *, keep=False, sent=(True, True)):
    left, right = part(x, X, keep=keep, sent=sent[0]), part(w, W, keep=keep, sent=sent[1])
    return Compute(number, "product", left, right, ROWS, "fp32")


def test_answers_come_in_the_order_of_the_requests(master):
    for number in range(12):
        send(master, product(number, 2 * number, 2 * number + 1), X, W)
    for number in range(12):
        assert torch.equal(result(master, number), Y.reshape(-1))


def test_a_request_may_refer_to_what_the_one_before_ships(master):
    send(master, product(1, 1, 2, keep=True), X, W)
    send(master, product(2, 1, 2, sent=(False, False)))
    send(master, Release((1, 2)))
    send(master, product(3, 1, 2, sent=(False, False)))
    assert torch.equal(result(master, 1), Y.reshape(-1))
    assert torch.equal(result(master, 2), Y.reshape(-1))
    assert master.answer()[0] == Evicted(3, (1, 2))
    assert master.executor.store.bytes == 0


def test_what_an_open_request_needs_is_released_after_it(master):
    """Releases overtake requests that wait; they must not take their operands away."""
    executor = master.executor
    go, inside = threading.Event(), threading.Event()
    run = executor.run

    def held(request, *given):
        inside.set()
        go.wait(5)
        return run(request, *given)

    send(master, product(0, 1, 2, keep=True), X, W)
    result(master, 0)
    executor.run = held
    send(master, product(1, 1, 2, sent=(False, False)))
    send(master, Release((1, 2)))
    inside.wait(5)
    send(master, product(2, 1, 4, keep=True), X, W)  # ships 1 anew while the old one is in use
    time.sleep(0.05)
    go.set()
    assert torch.equal(result(master, 1), Y.reshape(-1))
    assert torch.equal(result(master, 2), Y.reshape(-1))
    send(master, product(3, 1, 4, sent=(False, False)))
    assert torch.equal(result(master, 3), Y.reshape(-1))
    assert executor.store.bytes == X.nbytes + W.nbytes


@pytest.mark.security
def test_a_failed_job_leaves_nothing_for_the_next(master, monkeypatch):
    monkeypatch.setattr("tempo.worker.executor.compute", lambda *a: (_ for _ in ()).throw(RuntimeError()))
    send(master, product(1, 1, 2, keep=True), X, W)
    send(master, product(2, 1, 2, sent=(False, False)))
    assert master.answer()[0] == Refused("failed", 1)
    assert master.answer()[0] == Evicted(2, (1, 2))
    assert master.executor.store.bytes == 0


@pytest.mark.security
def test_a_request_under_another_shape_than_the_one_on_its_way_is_refused():
    executor = Executor("cpu", 1 << 20)
    assert executor.admit(product(1, 1, 2, keep=True)) == ()
    wide = torch.zeros(6, 5)
    other = Compute(2, "product", part(1, wide, sent=False), part(3, torch.zeros(2, 4, 5)), ROWS, "fp32")
    with pytest.raises(ValueError, match="on its way"):
        executor.admit(other)


@pytest.mark.security
def test_what_ends_the_connection_is_told_after_the_answers_before_it(master):
    send(master, product(1, 1, 2), X, W)
    send(master, Hello(1))
    assert torch.equal(result(master, 1), Y.reshape(-1))
    assert master.answer()[0] == Refused("malformed")


def test_bye_after_requests_lets_them_be_answered(master):
    send(master, product(1, 1, 2), X, W)
    send(master, Bye())
    assert torch.equal(result(master, 1), Y.reshape(-1))
    master.thread.join(5)
    assert not master.thread.is_alive()


@pytest.mark.security
def test_memory_of_the_one_ahead_is_counted_beside_the_one_under_way():
    first, second = product(1, 1, 2, keep=True), product(2, 3, 4)
    need = X.nbytes + W.nbytes + Y.nbytes
    executor = Executor("cpu", 2 * need - 1)
    assert executor.admit(first) == ()
    with pytest.raises(TooLarge):
        executor.admit(second)
    executor.run(first, {1: X, 2: W})
    assert executor.admit(second) == ()  # what the first kept goes; its result is still to be sent
    assert executor.store.bytes + sum(executor._reserved.values()) < 2 * need
    executor.done(first)
    assert sum(executor._reserved.values()) == need


@pytest.mark.security
def test_the_one_ahead_evicts_nothing_that_the_one_under_way_needs():
    need = X.nbytes + W.nbytes + Y.nbytes
    executor = Executor("cpu", 2 * need + Y.nbytes)
    for request in (product(0, 1, 2, keep=True), product(1, 1, 2, sent=(False, False))):
        assert executor.admit(request) == ()
        if request.sent:
            executor.run(request, {1: X, 2: W})
            executor.done(request)
    assert executor.admit(product(2, 3, 4)) == ()
    with pytest.raises(TooLarge):
        executor.admit(product(3, 5, 6))
    assert torch.equal(executor.run(request, {}), Y)


def test_operands_that_never_came_are_named():
    executor = Executor("cpu", 1 << 20)
    first, second = product(1, 1, 2, keep=True), product(2, 1, 2, sent=(False, False))
    assert executor.admit(first) == executor.admit(second) == ()
    executor.done(first)  # not run: its bytes did not arrive in memory, say
    with pytest.raises(Gone) as gone:
        executor.run(second, {})
    assert gone.value.ids == (1, 2)
    executor.done(second)
    assert (executor.store.bytes, executor._reserved, dict(executor._pins), executor._coming) == (
        0,
        {},
        {},
        {},
    )


@pytest.mark.security
def test_a_master_that_sends_without_reading_gets_two_requests_into_memory():
    """The rest waits in its socket: what the worker holds does not grow with what is sent."""
    x, w = torch.randn(512, 64), torch.randn(1, 2048, 64)  # results of 4 MB: the worker cannot write many
    master = Master(memory=64 << 20)
    master.ask(Hello(limits.VERSION))
    admitted = []
    admit = master.executor.admit
    master.executor.admit = lambda request: (admitted.append(request.job), admit(request))[1]

    def flood():
        for number in range(200):
            request = Compute(number, "product", part(1, x), part(2, w), (512,), "fp32")
            try:
                master.channel.send(request, (x, w), deadline=time.monotonic() + 1)
            except Exception:
                return

    thread = threading.Thread(target=flood)
    thread.start()
    time.sleep(1.0)
    assert len(master.executor._reserved) <= 2
    assert len(admitted) < 20
    master.channel.close()
    thread.join(10)
    master.end()


@pytest.mark.security
def test_idle_blocks_and_the_store_stay_within_the_memory_together(master):
    ahead = Ahead(master.channel, executor := Executor("cpu", 80 << 20))
    assert ahead._pool._limit == 10 << 20
    assert executor.store.max_bytes + ahead._pool._limit == 80 << 20
    Ahead(master.channel, executor)
    assert executor.store.max_bytes == 70 << 20, "the next connection takes the same share, not another"


@pytest.mark.security
def test_copies_in_another_arithmetic_are_counted_until_the_job_was_run():
    """Rounding to bfloat16 copies both operands: six bytes an element beside the four of float32."""
    sizes = X.nbytes + W.nbytes
    need = sizes + Y.nbytes + 6 * sizes // 4
    rounded = Compute(1, "product", part(1, X), part(2, W), ROWS, "bf16")
    with pytest.raises(TooLarge):
        Executor("cpu", need - 1).admit(rounded)
    # Two such jobs are not computed at once: the second adds no copies of its own.
    executor = Executor("cpu", need + sizes + Y.nbytes)
    other = Compute(2, "product", part(3, X), part(4, W), ROWS, "bf16")
    assert executor.admit(rounded) == executor.admit(other) == ()
    executor.run(rounded, {1: X, 2: W})
    executor.run(other, {3: X, 4: W})
    executor.done(rounded)
    executor.done(other)
    assert (executor._reserved, executor._temporary) == ({}, {})


def test_results_and_operands_come_from_memory_that_was_used_before(monkeypatch):
    """A steady stream of requests maps no pages: touching new ones costs as much as a narrow product."""
    pools, shapes = [], []

    def pool(idle):
        pools.append(Pool(idle))
        return pools[-1]

    def spy(self, shape, dtype):
        shapes.append(tuple(shape))
        return take(self, shape, dtype)

    take = Pool.empty
    monkeypatch.setattr("tempo.worker.ahead.Pool", pool)
    monkeypatch.setattr(Pool, "empty", spy)
    master = Master(memory=1 << 30)
    master.ask(Hello(limits.VERSION))
    x, w = torch.ones(1024, 256), torch.ones(1, 1024, 256)
    mapped = []
    for number in range(8):
        send(master, Compute(number, "product", part(1, x), part(2, w), (1024,), "fp32"), x, w)
        assert result(master, number).eq(256).all()
        mapped.append(pools[0].mapped)
    assert shapes.count((1024, 1024)) == 8
    assert mapped[3] == mapped[-1] > 0
    master.end()
