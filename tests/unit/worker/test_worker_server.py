"""A worker's side of one connection, against a master that may be hostile."""

import socket
import threading
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tempo.ops import Arithmetic, Op, compute
from tempo.wire import (
    DTYPES,
    Bye,
    Channel,
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
    nbytes,
)
from tempo.wire.frame import prefix
from tempo.worker import Executor, serve
from tempo.worker import executor as executor_module

MEMORY = 1 << 20


class Master:
    """A hand-driven master at the other end of a served connection."""

    def __init__(self, memory=MEMORY):
        self.raw, theirs = socket.socketpair()
        self.executor = Executor("cpu", memory)
        self.channel = Channel(self.raw, decode_reply)
        self.failure = None
        self.thread = threading.Thread(target=self._serve, args=(theirs,))
        self.thread.start()

    def _serve(self, theirs):
        try:
            serve(Channel(theirs, decode_request), self.executor)
        except BaseException as error:  # noqa: BLE001
            self.failure = error

    def ask(self, message, *tensors):
        self.channel.send(message, tensors, deadline=time.monotonic() + 5)
        return self.answer()

    def answer(self):
        reply, length = self.channel.receive(time.monotonic() + 5)
        return reply, length

    def compute(self, message, *tensors):
        """The result as a flat tensor."""
        reply, length = self.ask(message, *tensors)
        assert reply == Result(message.job)
        dtype = message.result_dtype
        result = torch.empty(length // dtype.itemsize, dtype=dtype)
        self.channel.fill(result, deadline=time.monotonic() + 5)
        return result

    def end(self):
        self.channel.close()
        self.thread.join(5)
        assert not self.thread.is_alive()
        assert self.failure is None


@pytest.fixture
def stranger():
    master = Master()
    yield master
    master.end()


@pytest.fixture
def master(stranger):
    assert stranger.ask(Hello(limits.VERSION)) == (Welcome(limits.VERSION, tuple(DTYPES)), 0)
    return stranger


def part(number, tensor, *, sent=True, keep=False):
    (name,) = (name for name, dtype in DTYPES.items() if dtype == tensor.dtype)
    return Part(number, tuple(tensor.shape), name, sent, keep)


X, W, DY = torch.randn(6, 3), torch.randn(2, 4, 3), torch.randn(6, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_training_step_with_kept_operands(master, dtype):
    x, w, dy = X.to(dtype), W.to(dtype), DY.to(dtype)
    rows = (2, 4)
    y = master.compute(
        Compute(1, "product", part(1, x, keep=True), part(2, w, keep=True), rows, "fp32"), x, w
    )
    kept = part(1, x, sent=False), part(2, w, sent=False)
    dx = master.compute(Compute(2, "grad_x", part(3, dy, keep=True), kept[1], rows, "fp32"), dy)
    dw = master.compute(Compute(3, "grad_w", part(3, dy, sent=False), kept[0], rows, "fp32"))
    for got, (op, left, right) in zip(
        (y, dx, dw), (("product", x, w), ("grad_x", dy, w), ("grad_w", dy, x)), strict=True
    ):
        request = Compute(1, op, part(1, left), part(2, right), rows, "fp32")
        assert torch.equal(got, compute(request.operation, left, right, rows).reshape(-1))
    assert master.executor.store.bytes == x.nbytes + w.nbytes + dy.nbytes
    master.channel.send(Release((1, 2, 3, 99)), deadline=time.monotonic() + 5)
    master.compute(Compute(4, "product", part(1, x), part(2, w), rows, "fp32"), x, w)
    assert master.executor.store.bytes == 0


def test_a_missing_operand_is_named_and_nothing_is_stored(master):
    request = Compute(1, "product", part(1, X, keep=True), part(2, W, sent=False), (3, 3), "fp32")
    assert master.ask(request, X) == (Evicted(1, (2,)), 0)
    assert len(master.executor.store) == 0


def test_a_full_store_evicts_but_never_what_the_job_uses():
    w = torch.randn(1, 64, 64)
    master = Master(memory=6 * w.nbytes)  # an eighth of it is for idle blocks: five and a quarter are left
    master.ask(Hello(limits.VERSION))
    x = torch.randn(64, 64)
    master.compute(Compute(0, "product", part(0, x), part(100, w, keep=True), (64,), "fp32"), x, w)
    for number in range(1, 20):
        kept = part(100, w, sent=False)
        master.compute(Compute(number, "product", part(number, x, keep=True), kept, (64,), "fp32"), x)
        assert master.executor.store.bytes <= 4 * w.nbytes  # beside the result
    gone = Compute(20, "grad_w", part(1, x, sent=False), part(2, x, sent=False), (64,), "fp32")
    assert master.ask(gone)[0] == Evicted(20, (1, 2))
    master.end()


def test_a_job_that_does_not_fit_is_refused_and_the_connection_stays(master):
    big = torch.zeros(MEMORY // 4, 1)
    one = torch.zeros(1, 1, 1)
    request = Compute(1, "product", part(1, big), part(2, one), (big.shape[0],), "fp32")
    assert master.ask(request, big, one) == (Refused("memory", 1), 0)
    master.compute(Compute(2, "product", part(1, X), part(2, W), (3, 3), "fp32"), X, W)


@pytest.mark.security
@pytest.mark.parametrize(
    "request_",
    [
        Compute(1, "product", part(1, X), part(2, W), (3, 4), "fp32"),
        Compute(1, "product", part(1, X), part(2, W), (), "fp32"),
        Compute(1, "grad_x", part(1, X), part(2, W), (3, 3), "fp32"),
        Compute(1, "grad_w", part(1, X), part(2, W), (3, 3), "fp32"),
        Compute(1, "product", part(1, X), part(1, W), (3, 3), "fp32"),
    ],
)
def test_operands_that_do_not_fit_are_refused(master, request_):
    tensors = [torch.zeros(p.shape) for p in request_.sent]
    assert master.ask(request_, *tensors)[0] == Refused("malformed", 1)


@pytest.mark.security
def test_a_kept_operand_is_not_read_under_another_shape(master):
    master.compute(Compute(1, "product", part(1, X, keep=True), part(2, W), (3, 3), "fp32"), X, W)
    longer = Part(1, (600, 3), "f32", False, False)
    reply, _ = master.ask(Compute(2, "product", longer, part(2, W), (300, 300), "fp32"), W)
    assert reply == Refused("malformed", 2)
    other = Part(1, (6, 3), "f64", False, False)
    reply, _ = master.ask(Compute(3, "product", other, part(2, W.double()), (3, 3), "fp32"), W.double())
    assert reply == Refused("malformed", 3)


@pytest.mark.security
def test_a_result_that_is_larger_than_its_operands_is_bounded(master):
    x, w = Part(1, (1 << 30, 0), "f32", True, False), Part(2, (1, 1 << 30, 0), "f32", True, False)
    assert master.ask(Compute(1, "product", x, w, (1 << 30,), "fp32"))[0] == Refused("memory", 1)


def test_another_version_is_refused_by_name(stranger):
    assert stranger.ask(Hello(limits.VERSION + 1)) == (Refused("version"), 0)


@pytest.mark.security
@pytest.mark.parametrize(
    "message", [Bye(), Release((1,)), Compute(1, "product", part(1, X), part(2, W), (6,), "fp32")]
)
def test_nothing_goes_before_hello(stranger, message):
    assert stranger.ask(message)[0] == Refused("malformed")


@pytest.mark.security
def test_a_payload_that_is_not_what_its_header_says_ends_the_connection(master):
    header = encode(Compute(1, "product", part(1, X), part(2, W), (3, 3), "fp32"))
    master.channel.send_raw(prefix(len(header), 1 << 20) + header, deadline=time.monotonic() + 5)
    assert master.answer()[0] == Refused("malformed")


PARTS = st.builds(
    Part,
    id=st.integers(0, 3),
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple),
    dtype=st.sampled_from(["f32", "f64"]),
    sent=st.booleans(),
    keep=st.booleans(),
)
COMPUTES = st.builds(
    Compute,
    job=st.integers(0, 9),
    op=st.sampled_from(["product", "grad_x", "grad_w"]),
    left=PARTS,
    right=PARTS,
    rows=st.lists(st.integers(0, 5), max_size=3).map(tuple),
    arithmetic=st.sampled_from(["fp32", "tf32", "bf16"]),
)


@pytest.mark.security
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(COMPUTES)
def test_any_request_gets_one_answer_and_the_connection_stays(master, request_):
    tensors = [torch.zeros(p.shape, dtype=DTYPES[p.dtype]) for p in request_.sent]
    reply, length = master.ask(request_, *tensors)
    assert reply.job == request_.job
    if isinstance(reply, Result):
        shape = compute_shape(request_)
        assert length == nbytes(shape, request_.result_dtype)
        master.channel.drain(deadline=time.monotonic() + 5)
    assert master.executor.store.bytes <= MEMORY


def compute_shape(request):
    from tempo.ops import result_shape

    return result_shape(request.operation, request.left.shape, request.right.shape, request.rows)


@pytest.mark.security
@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=200), st.booleans(), st.booleans())
def test_random_bytes_end_the_connection_and_nothing_else(data, greet, framed):
    master = Master()
    if greet:
        master.ask(Hello(limits.VERSION))
    master.channel.send_raw(prefix(len(data), 0) + data if framed else data, deadline=time.monotonic() + 5)
    master.end()


# ---- dtypes and arithmetic -------------------------------------------------------------------------


def test_a_training_step_in_bfloat16(master):
    """Results of rows come back in bfloat16, dW in float32; kept operands keep their dtype."""
    x, w, dy = X.bfloat16(), W.bfloat16(), DY.bfloat16()
    rows, kept = (3, 3), (part(1, x, sent=False), part(2, w, sent=False))
    first = Compute(1, "product", part(1, x, keep=True), part(2, w, keep=True), rows, "fp32")
    y = master.compute(first, x, w)
    dx = master.compute(Compute(2, "grad_x", part(3, dy, keep=True), kept[1], rows, "fp32"), dy)
    dw = master.compute(Compute(3, "grad_w", part(3, dy, sent=False), kept[0], rows, "fp32"))
    for result, op, left, right in ((y, "product", x, w), (dx, "grad_x", dy, w), (dw, "grad_w", dy, x)):
        expected = compute(Op(op), left, right, rows)
        assert result.dtype == expected.dtype
        assert torch.equal(result, expected.flatten())
    # dY in float32 beside the X and W that were kept in bfloat16.
    dw = master.compute(Compute(4, "grad_w", part(4, DY), kept[0], rows, "fp32"), DY)
    assert torch.equal(dw, compute(Op.GRAD_W, DY, x, rows).flatten())


@pytest.mark.parametrize("arithmetic", ["fp32", "tf32", "bf16"])
def test_a_request_says_how_to_compute(master, arithmetic):
    request = Compute(1, "product", part(1, X), part(2, W), (3, 3), arithmetic)
    expected = compute(Op.PRODUCT, X, W, (3, 3), Arithmetic(arithmetic))
    assert torch.equal(master.compute(request, X, W), expected.flatten())


@pytest.mark.security
@pytest.mark.parametrize(
    ("left", "right", "arithmetic"),
    [
        (X.double(), W.double(), "tf32"),
        (X.bfloat16(), W.bfloat16(), "bf16"),
        (X.bfloat16(), W, "tf32"),
        (X.bfloat16(), W.double(), "fp32"),
        (X, W.double(), "fp32"),
    ],
)
def test_dtypes_that_do_not_go_together_are_malformed(master, left, right, arithmetic):
    request = Compute(1, "product", part(1, left, keep=True), part(2, right), (3, 3), arithmetic)
    assert master.ask(request, left, right)[0] == Refused("malformed", 1)
    assert len(master.executor.store) == 0


@pytest.mark.security
def test_a_kept_operand_is_not_read_in_another_dtype(master):
    x = torch.zeros(6, 3, dtype=torch.bfloat16)
    master.compute(Compute(1, "product", part(1, x, keep=True), part(2, W), (3, 3), "fp32"), x, W)
    wrong = Part(1, (6, 3), "f32", sent=False, keep=False)
    assert master.ask(Compute(2, "product", wrong, part(2, W), (3, 3), "fp32"), W)[0] == Refused(
        "malformed", 2
    )


def test_a_worker_says_what_its_device_multiplies_and_refuses_the_rest(monkeypatch):
    monkeypatch.setattr(executor_module, "_multiplies", lambda device, dtype: dtype == torch.float32)
    master = Master()
    assert master.ask(Hello(limits.VERSION))[0] == Welcome(limits.VERSION, ("f32",))
    x, w = X.bfloat16(), W.bfloat16()
    for left, right in ((x, w), (x, W), (X.double(), W.double())):
        request = Compute(1, "product", part(1, left, keep=True), part(2, right), (3, 3), "fp32")
        assert master.ask(request, left, right)[0] == Refused("unsupported", 1)
    assert len(master.executor.store) == 0
    master.compute(Compute(2, "product", part(1, X), part(2, W), (3, 3), "fp32"), X, W)
    master.end()
