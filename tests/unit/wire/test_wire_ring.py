"""The request for a product of shares: frozen bytes, strict decoding, and what the sender refuses."""

import contextlib

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tempo.errors import ProtocolError, UsageError
from tempo.ops import KEY_BYTES, PRIMES, Op, RingJob, RingOperand, Seed, expand
from tempo.wire import (
    Ring,
    RingPart,
    decode_reply,
    decode_request,
    encode,
    limits,
    payload,
    request_message,
)

P = len(PRIMES)
KEY = bytes(range(KEY_BYTES))
MESSAGE = Ring(
    job=5,
    op="grad_w",
    left=RingPart(id=7, shape=(2, 3), halves=(KEY, None), keep=True),
    right=RingPart(id=300, shape=(2, 4), halves=(), keep=False),
    rows=(2,),
)
# The format of version 3, byte for byte. A change here is a new version of the protocol.
VECTOR = (
    "86a26973a472696e67a36a6f6205a26f70a6677261645f77a46c65667484a2696407a57368617065920203a668616c76"
    "657392c420000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fc0a46b656570c3a5726967"
    "687484a26964cd012ca57368617065920204a668616c76657390a46b656570c2a4726f77739102"
)


def test_frozen_vector():
    assert encode(MESSAGE).hex() == VECTOR
    assert decode_request(bytes.fromhex(VECTOR)) == MESSAGE


@pytest.mark.security
def test_it_is_no_reply():
    with pytest.raises(ProtocolError):
        decode_reply(encode(MESSAGE))


def test_what_it_takes():
    """One half of six residues for each prime is sent, and two are held."""
    assert MESSAGE.payload == 6 * P
    assert MESSAGE.room == 2 * 6 * P
    assert MESSAGE.result == ((P, 1, 3, 4), torch.uint8)
    assert [part.sent for part in MESSAGE.parts] == [True, False]
    assert MESSAGE.left.memory == ((2, P, 2, 3), torch.uint8)


PART = {"id": 1, "shape": [1, 1], "halves": [KEY, None], "keep": False}
RING = {"is": "ring", "job": 1, "op": "grad_w", "left": PART, "right": PART, "rows": [1]}


@pytest.mark.security
@pytest.mark.parametrize(
    "fields",
    [
        {**RING, "op": "exec"},
        {**RING, "arithmetic": "fp32"},
        {**RING, "rows": [0] * (limits.MAX_GROUPS + 1)},
        {**RING, "left": {**PART, "halves": [KEY, KEY, None]}},
        {**RING, "left": {**PART, "halves": [KEY[:-1]]}},
        {**RING, "left": {**PART, "halves": [KEY + b"0"]}},
        {**RING, "left": {**PART, "halves": ["a" * KEY_BYTES]}},
        {**RING, "left": {**PART, "halves": [True]}},
        {**RING, "left": {**PART, "halves": None}},
        {**RING, "left": {**PART, "shape": [1] * 4}},
        {**RING, "left": {**PART, "shape": [limits.MAX_SIZE + 1, 1]}},
        {**RING, "left": {**PART, "dtype": "f32"}},
        {**RING, "left": {name: value for name, value in PART.items() if name != "halves"}},
    ],
)
def test_what_breaks_a_rule_is_no_message(fields):
    decode_request(msgspec.msgpack.encode(RING))  # the rule is what fails, not the frame of the test
    with pytest.raises(ProtocolError):
        decode_request(msgspec.msgpack.encode(fields))


@pytest.mark.security
@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 40),
)
def test_mutated_headers_decode_or_are_refused(changes, cut):
    mutated = bytearray(bytes.fromhex(VECTOR))
    for place, value in changes:
        mutated[place % len(mutated)] = value
    with contextlib.suppress(ProtocolError):
        decode_request(mutated[: len(mutated) - cut])


@pytest.mark.security
def test_a_message_shows_no_seed():
    for shown in (repr(MESSAGE), str(MESSAGE.left)):
        assert "\\x01\\x02" not in shown
        assert "halves=2" in shown


def residues(*shape):
    return torch.randint(0, 229, (P, *shape), dtype=torch.uint8)


def job(halves=2, rows=(2,), shape=(2, 3)):
    x = RingOperand(1, shape, (Seed(KEY), residues(*shape))[2 - halves :], True)
    return RingJob(Op.PRODUCT, x, RingOperand(2, (1, 4, 3), (residues(1, 4, 3), Seed(KEY))[:halves]), rows)


@given(st.sampled_from([1, 2]), st.sets(st.sampled_from([1, 2])))
def test_a_job_arrives_as_it_was_meant(halves, ship):
    """The worker, of the message and the payload alone, makes the shares that the master meant."""
    sent = job(halves)
    message = decode_request(encode(request_message(sent, 3, frozenset(ship))))
    tensors = payload(sent, frozenset(ship))
    assert message.payload == sum(tensor.nbytes for tensor in tensors)
    assert (message.operation, message.rows, message.job) == (sent.op, sent.rows, 3)
    for part, operand in zip(message.parts, sent.operands, strict=True):
        assert (part.id, part.shape, part.keep) == (operand.id, operand.shape, operand.keep)
        assert part.sent == (operand.id in ship)
        if part.sent:
            shape, dtype = part.memory
            there = torch.full(shape, 255, dtype=dtype)
            for place in part.places(there):
                place.copy_(tensors.pop(0))
            part.complete(there)
            assert torch.equal(there, operand.expanded())
    assert not tensors


def test_a_seed_is_expanded_where_it_belongs():
    there = torch.zeros(2, P, 2, 3, dtype=torch.uint8)
    (place,) = MESSAGE.left.places(there)
    place.fill_(7)
    MESSAGE.left.complete(there)
    assert torch.equal(there[0], expand(KEY, (2, 3)))
    assert bool((there[1] == 7).all())


def test_an_operand_on_both_sides_is_shipped_once():
    x = RingOperand(1, (2, 3), (residues(2, 3),))
    message = request_message(RingJob(Op.GRAD_W, x, x, (2,)), 1, frozenset({1}))
    assert [part.sent for part in message.parts] == [True, False]
    assert len(payload(RingJob(Op.GRAD_W, x, x, (2,)), frozenset({1}))) == 1


def test_jobs_that_cannot_cross_are_the_callers_fault():
    with pytest.raises(UsageError, match="sum of the rows"):
        request_message(job(rows=(3,)), 1, frozenset({1, 2}))
    gone = RingJob(Op.GRAD_W, RingOperand(1, (2, 3), ()), RingOperand(2, (2, 3), ()), (2,))
    with pytest.raises(UsageError, match="no tensor"):
        request_message(gone, 1, frozenset({1}))
    request_message(gone, 1, frozenset())


def test_a_job_over_the_limits_is_refused_before_it_is_sent():
    shape = (1 << 20, 1 << 10)
    big = RingOperand(1, shape, (torch.zeros(1, dtype=torch.uint8).expand(P, *shape),))
    weight = RingOperand(2, (1, 1, 1 << 10), (residues(1, 1, 1 << 10),))
    with pytest.raises(UsageError, match="split it"):
        request_message(RingJob(Op.PRODUCT, big, weight, (1 << 20,)), 1, frozenset({1, 2}))
