"""The messages: frozen bytes, strict decoding, limits."""

import contextlib
from dataclasses import replace

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tempo.errors import ProtocolError, UsageError
from tempo.ops import Arithmetic, Job, Op, Operand
from tempo.wire import (
    DTYPES,
    Bye,
    Compute,
    Evicted,
    Hello,
    Part,
    Refused,
    Release,
    Result,
    Welcome,
    decode_reply,
    decode_request,
    encode,
    limits,
    request_message,
)

X = Part(id=7, shape=(2, 3), dtype="f32", sent=True, keep=True)
W = Part(id=300, shape=(1, 4, 3), dtype="f32", sent=False, keep=False)

# The format of version 3, byte for byte. A change here is a new version of the protocol.
REQUESTS = [
    (Hello(version=3), "82a26973a568656c6c6fa776657273696f6e03"),
    (
        Compute(job=5, op="product", left=X, right=W, rows=(2,), arithmetic="fp32"),
        "87a26973a7636f6d70757465a36a6f6205a26f70a770726f64756374a46c65667485a2696407a5736861706592"
        "0203a56474797065a3663332a473656e74c3a46b656570c3a5726967687485a26964cd012ca573686170659301"
        "0403a56474797065a3663332a473656e74c2a46b656570c2a4726f77739102"
        "aa61726974686d65746963a466703332",
    ),
    (Release(ids=(1, 70000)), "82a26973a772656c65617365a36964739201ce00011170"),
    (Bye(), "81a26973a3627965"),
]
REPLIES = [
    (
        Welcome(version=3, dtypes=("f32", "f64", "bf16")),
        "83a26973a777656c636f6d65a776657273696f6e03a664747970657393a3663332a3663634a462663136",
    ),
    (Result(job=5), "82a26973a6726573756c74a36a6f6205"),
    (Evicted(job=5, ids=(7,)), "83a26973a765766963746564a36a6f6205a36964739107"),
    (Refused(code="memory", job=5), "83a26973a772656675736564a4636f6465a66d656d6f7279a36a6f6205"),
    (Refused(code="version"), "83a26973a772656675736564a4636f6465a776657273696f6ea36a6f62c0"),
]


@pytest.mark.parametrize(("message", "vector"), REQUESTS + REPLIES, ids=lambda v: type(v).__name__)
def test_frozen_vectors(message, vector):
    assert encode(message).hex() == vector
    decode = decode_request if (message, vector) in REQUESTS else decode_reply
    assert decode(bytes.fromhex(vector)) == message


@pytest.mark.security
def test_requests_and_replies_are_not_mistaken_for_each_other():
    for message, _ in REQUESTS:
        with pytest.raises(ProtocolError):
            decode_reply(encode(message))
    for message, _ in REPLIES:
        with pytest.raises(ProtocolError):
            decode_request(encode(message))


def _header(**fields):
    return msgspec.msgpack.encode(fields)


PART = {"id": 1, "shape": [1, 1], "dtype": "f32", "sent": True, "keep": False}
COMPUTE = {
    "is": "compute",
    "job": 1,
    "op": "product",
    "left": PART,
    "right": PART,
    "rows": [1],
    "arithmetic": "fp32",
}


@pytest.mark.security
@pytest.mark.parametrize(
    "fields",
    [
        {"is": "hello", "version": 1, "extra": 0},
        {"is": "hello"},
        {"is": "hello", "version": "1"},
        {"is": "hello", "version": -1},
        {"is": "release", "ids": [-1]},
        {"is": "release", "ids": [1 << 63]},
        {"is": "release", "ids": [True]},
        {"is": "release", "ids": list(range(limits.MAX_IDS + 1))},
        {**COMPUTE, "op": "exec"},
        {**COMPUTE, "rows": [0] * (limits.MAX_GROUPS + 1)},
        {**COMPUTE, "rows": [1.0]},
        {**COMPUTE, "arithmetic": "fp8"},
        {**COMPUTE, "left": {**PART, "dtype": "f16"}},
        {name: value for name, value in COMPUTE.items() if name != "arithmetic"},
        {**COMPUTE, "left": {**PART, "shape": [1] * 4}},
        {**COMPUTE, "left": {**PART, "shape": [limits.MAX_SIZE + 1, 1]}},
        {**COMPUTE, "left": {**PART, "dtype": "object"}},
        {**COMPUTE, "left": {**PART, "tensor": b"x"}},
        {"is": "nonsense"},
        {},
    ],
)
def test_what_breaks_a_rule_is_no_message(fields):
    decode_request(_header(**COMPUTE))  # the rule is what fails, not the frame of the test
    with pytest.raises(ProtocolError) as caught:
        decode_request(_header(**fields))
    assert "nonsense" not in str(caught.value)  # a peer's words go nowhere


@pytest.mark.security
@pytest.mark.parametrize(
    "fields",
    [
        {"is": "welcome", "version": 2, "dtypes": ["f32", "f8"]},
        {"is": "welcome", "version": 2, "dtypes": ["f32"] * 4},
        {"is": "welcome", "version": 2, "dtypes": ["f32"], "arithmetic": "tf32"},
        {"is": "welcome", "version": 1, "float32": "fp32", "float64": "fp64"},
        {"is": "result", "job": 1, "shape": [1]},
        {"is": "result", "job": None},
        {"is": "evicted", "job": 1, "ids": []},
        {"is": "evicted", "job": 1, "ids": [1, 2, 3]},
        {"is": "refused", "code": "\x1b[2J", "job": None},
        {"is": "refused", "code": "memory", "why": "text"},
    ],
)
def test_a_reply_that_breaks_a_rule_is_no_message(fields):
    with pytest.raises(ProtocolError):
        decode_reply(_header(**fields))


@pytest.mark.security
@given(st.binary(max_size=400))
def test_random_headers_decode_or_are_refused(header):
    for decode in (decode_request, decode_reply):
        with contextlib.suppress(ProtocolError):
            decode(header)


@pytest.mark.security
@given(
    st.sampled_from([bytes.fromhex(v) for _, v in REQUESTS + REPLIES]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 40),
)
def test_mutated_headers_decode_or_are_refused(header, changes, cut):
    mutated = bytearray(header)
    for place, value in changes:
        mutated[place % len(mutated)] = value
    for decode in (decode_request, decode_reply):
        with contextlib.suppress(ProtocolError):
            decode(mutated[: len(mutated) - cut])


@pytest.mark.security
def test_deep_nesting_is_refused():
    for header in (b"\x91" * 200_000, b"\x81\xa2is" * 100_000, b"\x82\xa2is\xa3bye\xa1x" + b"\x91" * 100_000):
        with pytest.raises(ProtocolError):
            decode_request(header)


def _job(dtype=torch.float32, right_dtype=None, tensor=True, rows=(2,)):
    x, w = torch.zeros(2, 3, dtype=dtype), torch.zeros(1, 4, 3, dtype=right_dtype or dtype)
    return Job(
        Op.PRODUCT,
        Operand(1, (2, 3), x.dtype, x if tensor else None, True),
        Operand(2, (1, 4, 3), w.dtype, w),
        rows,
    )


def test_request_message_ships_what_it_is_told_to():
    message = request_message(_job(), 9, frozenset({2}))
    assert [part.sent for part in message.parts] == [False, True]
    assert message.payload == 4 * 12
    assert (message.left.keep, message.right.keep) == (True, False)


def test_an_operand_on_both_sides_is_shipped_once():
    x = Operand(1, (2, 3), torch.float64, torch.zeros(2, 3, dtype=torch.float64))
    message = request_message(Job(Op.GRAD_W, x, x, (2,)), 1, frozenset({1}))
    assert [part.sent for part in message.parts] == [True, False]


@pytest.mark.parametrize(
    ("job", "why"),
    [
        (_job(torch.float16), "float32, float64 or bfloat16"),
        (_job(torch.bfloat16, torch.float64), "share a dtype"),
        (replace(_job(torch.float64), arithmetic=Arithmetic.TF32), "tf32 is for float32"),
        (replace(_job(torch.bfloat16), arithmetic=Arithmetic.BF16), "bf16 is for float32"),
        (replace(_job(torch.bfloat16, torch.float32), arithmetic=Arithmetic.BF16), "bf16 is for float32"),
        (_job(torch.float32, torch.float64), "share a dtype"),
        (_job(tensor=False), "no tensor"),
        (_job(rows=(3,)), "sum of the rows"),
    ],
)
def test_jobs_that_cannot_cross_are_the_callers_fault(job, why):
    with pytest.raises(UsageError, match=why):
        request_message(job, 1, frozenset({1, 2}))


def test_a_job_over_the_limits_is_refused_before_it_is_sent():
    big = Operand(1, (1 << 20, 1 << 11), torch.float32, torch.zeros(1).expand(1 << 20, 1 << 11))
    weight = Operand(2, (1, 1, 1 << 11), torch.float32, torch.zeros(1, 1, 1 << 11))
    with pytest.raises(UsageError, match="split it"):
        request_message(Job(Op.PRODUCT, big, weight, (1 << 20,)), 1, frozenset({1, 2}))


SIZES = st.integers(0, 6)
PAIRS = st.sampled_from(
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16),
    ]
)


@given(
    st.sampled_from(Op),
    SIZES,
    SIZES,
    SIZES,
    PAIRS,
    st.sampled_from(Arithmetic),
    st.sets(st.sampled_from([1, 2])),
)
def test_a_job_arrives_as_it_was_meant(op, t, k, n, dtypes, arithmetic, ship):
    """Encode, decode, and the worker reads the same operation, sizes, dtypes and arithmetic."""
    arithmetic = arithmetic if dtypes == (torch.float32, torch.float32) else Arithmetic.FP32
    shapes = {
        Op.PRODUCT: ((t, k), (1, n, k)),
        Op.GRAD_X: ((t, n), (1, n, k)),
        Op.GRAD_W: ((t, n), (t, k)),
    }[op]
    tensors = [torch.zeros(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes)]
    pair = [Operand(i + 1, tuple(t.shape), t.dtype, t, bool(i)) for i, t in enumerate(tensors)]
    job = Job(op, *pair, (t,), arithmetic)
    message = decode_request(encode(request_message(job, 3, frozenset(ship))))
    assert (message.operation, message.rows, message.allowed) == (op, (t,), arithmetic)
    assert message.result_dtype == job.result_dtype
    assert message.payload == sum(o.nbytes for o in pair if o.id in ship)
    for part, operand in zip(message.parts, pair):
        assert (part.id, part.shape, part.keep) == (operand.id, operand.shape, operand.keep)
        assert (DTYPES[part.dtype], part.nbytes) == (operand.dtype, operand.nbytes)
