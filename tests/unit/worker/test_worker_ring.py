"""A worker that multiplies shares: what it keeps, what it counts, what it refuses, what it records."""

import time

import pytest
import torch
from test_worker_recording import recorded  # noqa: F401
from test_worker_server import MEMORY, Master, W, X, part

from tempo.errors import DataError, ProtocolError
from tempo.fleet import DeviceWorker, JobRefused, OperandsEvicted
from tempo.ops import KEY_BYTES, PRIMES, Op, RingJob, RingOperand, Seed, expand, ring_compute
from tempo.wire import Compute, Evicted, Hello, Part, Refused, Release, Result, Ring, RingPart, encode, limits
from tempo.worker import Executor, TooLarge
from tempo.worker import executor as executor_module
from tempo.worker.recording import Record

P, ROWS = len(PRIMES), (2, 4)
SHAPES = {"x": (6, 3), "w": (2, 4, 3), "dy": (6, 4)}
NUMBERS = {"x": 1, "w": 2, "dy": 3}
KEYS = {name: bytes([number]) * KEY_BYTES for name, number in NUMBERS.items()}
SENT = {name: torch.randint(0, 256, (P, *shape), dtype=torch.uint8) for name, shape in SHAPES.items()}
#: What the worker has: the first half from a seed, the second as it was sent.
HERE = {name: torch.stack([expand(KEYS[name], SHAPES[name]), SENT[name]]) for name in SHAPES}
JOBS = {"product": ("x", "w"), "grad_x": ("dy", "w"), "grad_w": ("dy", "x")}


def share(name, *, sent=True, keep=False):
    return RingPart(NUMBERS[name], SHAPES[name], (KEYS[name], None) if sent else (), keep)


def request(number, op, *, sent=(True, True), keep=False):
    names = JOBS[op]
    parts = (share(name, sent=here, keep=keep and here) for name, here in zip(names, sent, strict=True))
    return Ring(number, op, *parts, ROWS), [SENT[n] for n, here in zip(names, sent, strict=True) if here]


def expected(op):
    left, right = JOBS[op]
    return ring_compute(Op(op), HERE[left], HERE[right], ROWS).flatten()


@pytest.fixture
def master():
    master = Master()
    master.ask(Hello(limits.VERSION))
    yield master
    master.end()


def compute(master, message, *tensors):
    reply, length = master.ask(message, *tensors)
    assert reply == Result(message.job)
    result = torch.empty(length, dtype=torch.uint8)
    master.channel.fill(result, deadline=time.monotonic() + 5)
    return result


def test_a_training_step_with_kept_shares(master):
    message, tensors = request(1, "product", keep=True)
    assert torch.equal(compute(master, message, *tensors), expected("product"))
    message, tensors = request(2, "grad_x", sent=(True, False), keep=True)
    assert torch.equal(compute(master, message, *tensors), expected("grad_x"))
    message, tensors = request(3, "grad_w", sent=(False, False))
    assert torch.equal(compute(master, message), expected("grad_w"))
    # Kept with their seeds expanded, and counted so.
    assert master.executor.store.bytes == sum(here.nbytes for here in HERE.values())
    master.channel.send(Release((1, 2, 3)), deadline=time.monotonic() + 5)
    compute(master, *_flat(request(4, "product")))
    assert master.executor.store.bytes == 0


def _flat(made):
    return made[0], *made[1]


def test_one_share_of_each_is_a_plain_product(master):
    left, right = (RingPart(NUMBERS[n], SHAPES[n], (None,), False) for n in ("x", "w"))
    result = compute(master, Ring(1, "product", left, right, ROWS), SENT["x"], SENT["w"])
    assert torch.equal(result, ring_compute(Op.PRODUCT, HERE["x"][1:], HERE["w"][1:], ROWS).flatten())


def test_bytes_that_are_no_residues_count_modulo_the_prime(master):
    x = torch.full((P, 6, 3), 255, dtype=torch.uint8)
    reduced = torch.stack([row.fill_(255 % p) for row, p in zip(x.clone(), PRIMES, strict=True)])
    left, right = (RingPart(NUMBERS[n], SHAPES[n], (None,), False) for n in ("x", "w"))
    message = Ring(1, "product", left, right, ROWS)
    assert torch.equal(compute(master, message, x, SENT["w"]), compute(master, message, reduced, SENT["w"]))


def test_the_request_ahead_may_refer_to_what_the_one_before_ships(master):
    for message, tensors in (request(1, "product", keep=True), request(2, "product", sent=(False, False))):
        master.channel.send(message, tensors, deadline=time.monotonic() + 5)
    for number in (1, 2):
        assert master.answer()[0] == Result(number)
        out = torch.empty(expected("product").numel(), dtype=torch.uint8)
        master.channel.fill(out, deadline=time.monotonic() + 5)
        assert torch.equal(out, expected("product"))


def test_a_missing_share_is_named_and_nothing_is_stored(master):
    message, tensors = request(1, "product", sent=(True, False), keep=True)
    assert master.ask(message, *tensors) == (Evicted(1, (2,)), 0)
    assert len(master.executor.store) == 0


@pytest.mark.security
def test_one_share_and_two_are_malformed(master):
    one = RingPart(NUMBERS["w"], SHAPES["w"], (None,), False)
    reply, _ = master.ask(Ring(1, "product", share("x"), one, ROWS), SENT["x"], SENT["w"])
    assert reply == Refused("malformed", 1)
    # Kept ones too.
    compute(master, *_flat(request(2, "product", keep=True)))
    kept = share("x", sent=False)
    assert master.ask(Ring(3, "product", kept, one, ROWS), SENT["w"])[0] == Refused("malformed", 3)
    assert torch.equal(
        compute(master, request(4, "product", sent=(False, False))[0]),
        expected("product"),
    )


@pytest.mark.security
def test_a_kept_operand_is_not_read_as_another_kind_or_shape(master):
    compute(master, *_flat(request(1, "product", keep=True)))
    longer = RingPart(1, (600, 3), (), False)
    right = share("w", sent=False)
    assert master.ask(Ring(2, "product", longer, right, (300, 300)))[0] == Refused("malformed", 2)
    floats = Compute(3, "product", Part(1, (6, 3), "f32", False, False), part(9, W), ROWS, "fp32")
    assert master.ask(floats, W)[0] == Refused("malformed", 3)
    master.compute(Compute(4, "product", part(1, X, keep=True), part(9, W), ROWS, "fp32"), X, W)
    reply, _ = master.ask(Ring(5, "product", share("x", sent=False), right, ROWS))
    assert reply == Refused("malformed", 5)


@pytest.mark.security
def test_operands_that_do_not_fit_are_refused(master):
    message, tensors = request(1, "product")
    wrong = Ring(1, "product", message.left, message.right, (3, 4))
    assert master.ask(wrong, *tensors)[0] == Refused("malformed", 1)
    same = Ring(2, "grad_w", message.left, message.left, (6,))
    assert master.ask(same, tensors[0], tensors[0])[0] == Refused("malformed", 2)
    assert torch.equal(compute(master, *_flat(request(3, "product"))), expected("product"))


@pytest.mark.security
def test_a_seed_takes_no_memory_that_was_not_granted(master):
    """64 bytes that would expand to gigabytes, and to somewhat more than is there."""
    for rows in (1 << 28, MEMORY // P // 2):
        big = RingPart(1, (rows, 1), (KEYS["x"], KEYS["x"]), True)
        one = RingPart(2, (1, 1, 1), (KEYS["w"], KEYS["w"]), True)
        assert master.ask(Ring(1, "product", big, one, (rows,))) == (Refused("memory", 1), 0)
    assert master.executor.store.bytes == 0
    assert torch.equal(compute(master, *_flat(request(2, "product"))), expected("product"))


@pytest.mark.security
def test_a_full_store_evicts_shares_by_what_they_take():
    halves = (KEYS["x"], KEYS["x"])  # nothing but seeds: 64 bytes each, 2 * 5 * 4096 there
    size = 2 * P * 4096
    master = Master(memory=8 * size)
    master.ask(Hello(limits.VERSION))
    for number in range(1, 12):
        left = RingPart(number, (64, 64), halves, True)
        right = RingPart(100 + number, (1, 1, 64), halves, False)
        compute(master, Ring(number, "product", left, right, (64,)))
        assert master.executor.store.bytes <= master.executor.store.max_bytes
        assert master.executor.store.bytes == size * len(master.executor.store)
    assert 1 < len(master.executor.store) < 11
    gone = Ring(20, "grad_w", RingPart(1, (64, 64), (), False), RingPart(2, (64, 64), (), False), (64,))
    assert master.ask(gone)[0] == Evicted(20, (1, 2))
    master.end()


@pytest.mark.parametrize("room", [0, -1])
def test_room_is_for_expanded_shares_their_result_and_what_products_take(room):
    """To the byte: with one less the job is refused."""
    message, _ = request(1, "product", keep=True)
    needed = sum(HERE[name].nbytes for name in ("x", "w")) + expected("product").numel()
    besides = executor_module.ring_temporary_bytes(
        Op.PRODUCT, SHAPES["x"], SHAPES["w"], ROWS, 2, device=torch.device("cpu")
    )
    executor = Executor("cpu", needed + besides + room)
    if room < 0:
        with pytest.raises(TooLarge):
            executor.admit(message)
        return
    assert executor.admit(message) == ()
    shipped = {NUMBERS[name]: HERE[name] for name in ("x", "w")}
    assert torch.equal(executor.run(message, shipped).flatten(), expected("product"))
    executor.done(message)
    assert executor.store.bytes == needed - expected("product").numel()


# ---- a device of this process --------------------------------------------------------------------


def operand(name, *, here=True, keep=True):
    return RingOperand(NUMBERS[name], SHAPES[name], (Seed(KEYS[name]), SENT[name]) if here else (), keep)


def test_a_device_of_this_process_does_the_same():
    worker, soon = DeviceWorker("cpu"), time.monotonic() + 60
    job = RingJob(Op.PRODUCT, operand("x"), operand("w"), ROWS)
    first = worker.run(job, frozenset({1, 2}), soon).open_for_check()
    kept = RingJob(Op.PRODUCT, operand("x", here=False), operand("w", here=False), ROWS)
    again = worker.run(kept, frozenset(), soon).open_for_check()
    assert torch.equal(first.flatten(), expected("product"))
    assert torch.equal(first, again)
    assert worker.bytes_sent == 2 * KEY_BYTES + SENT["x"].nbytes + SENT["w"].nbytes - 2 * KEY_BYTES
    worker.release([1], soon)
    with pytest.raises(OperandsEvicted):
        worker.run(kept, frozenset(), soon)
    worker.close()


def test_a_device_that_is_too_small_says_so():
    worker = DeviceWorker("cpu", memory=1000)
    with pytest.raises(JobRefused, match="memory"):
        worker.run(RingJob(Op.PRODUCT, operand("x"), operand("w"), ROWS), frozenset({1, 2}), time.monotonic())
    worker.close()


# ---- recordings ----------------------------------------------------------------------------------


@pytest.mark.security
def test_shares_are_recorded_as_they_came_and_as_they_are_used(recorded):  # noqa: F811
    running = recorded()
    client, _ = running.client()
    client.handshake(time.monotonic() + 5)
    job = RingJob(Op.PRODUCT, operand("x"), operand("w"), ROWS)
    result = client.run(job, frozenset({1, 2}), time.monotonic() + 5).open_for_check()
    client.run(job, frozenset({2}), time.monotonic() + 5)
    client.close()
    records = running.end()
    first, second = (record for record in records if isinstance(record.message, Ring))
    for name in ("x", "w"):
        assert torch.equal(first.operands[NUMBERS[name]], HERE[name])
        seed, sent = first.shares[NUMBERS[name]]
        assert seed.key == KEYS[name]
        assert torch.equal(sent, SENT[name])
    assert set(second.operands) == set(second.shares) == {2}
    answers = [record for record in records if isinstance(record.message, Result)]
    assert answers[0].payload == bytes(result.numpy().tobytes()) == answers[1].payload
    assert answers[0].operands == answers[0].shares == {}
    assert torch.equal(answers[0].result_of(first.message), result)
    with pytest.raises(ProtocolError, match="not the whole result"):
        first.result_of(first.message)


@pytest.mark.security
def test_a_recording_cannot_make_its_reader_take_gigabytes():
    big = RingPart(1, ((1 << 31) - 1, 1), (KEYS["x"],), False)
    header = encode(Ring(1, "product", big, big, (1,)))
    with pytest.raises(DataError, match="seeds that stand for"):
        Record("a", "arrived", 0.0, b"", header, b"", True).operands
