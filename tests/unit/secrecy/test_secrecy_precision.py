"""What leaves the master under `wire` and `arithmetic`: dtypes, permissions, keys; and what comes back.

The rows of these operands are even, or made uneven on purpose.
"""

import itertools

import pytest
import torch

from tempo import Config
from tempo.engine import Engine
from tempo.fleet import DeviceWorker, Fleet, FleetSettings, Worker
from tempo.integrity import Verifier
from tempo.lowering.linear import Linear
from tempo.ops import Arithmetic, Op
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.pieces import Desk
from tempo.secrecy.weights import Weights
from tempo.stats import Stats

F32, BF16 = torch.float32, torch.bfloat16
FP = Arithmetic.FP32


class Spy(Worker):
    """A device worker that writes down its jobs."""

    def __init__(self, name):
        self.name, self.inner, self.jobs = name, DeviceWorker("cpu", name=name), []
        self.released = []

    def connect(self):
        self.inner.connect()

    def run(self, job, ship, deadline):
        self.jobs.append((job, ship))
        return self.inner.run(job, ship, deadline)

    def release(self, ids, deadline):
        ids = list(ids)
        self.released.append(ids)
        self.inner.release(ids, deadline)

    def close(self):
        self.inner.close()

    bytes_sent = property(lambda self: self.inner.bytes_sent)
    bytes_received = property(lambda self: self.inner.bytes_received)


class House:
    def __init__(self, **options):
        config = Config(**options)
        key, ids, self.stats, self.spy = SessionKey(), itertools.count(1), Stats(), Spy("spy")
        scheme = config.make_scheme()
        self.fleet = Fleet([self.spy], FleetSettings())
        release = self.fleet.release
        verifier = Verifier(key, config.repetitions)
        desk = Desk(key, scheme, verifier, self.stats, ids, itertools.count(1), release, config.precision)
        self.weights = Weights(key, scheme, ids, release, config.weight_uses, desk.pool)
        self.engine = Engine(desk, self.fleet, self.weights, key_shift=config.key_shift, local_fallback=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.fleet.close()

    @torch.no_grad()
    def step(self, x, w, dy, *, again=False):
        """Relative errors of y, dx, dw; the worst row of y and dx against the row itself."""
        lowering = Linear(tuple(x.shape), tuple(w.shape))
        y, ticket = self.engine.forward(lowering, x, w, train_w=True)
        for _ in range(1 + again):
            dx, dw = self.engine.backward(ticket, lowering, x, w, dy, want_x=True, want_w=True)
        assert self.stats.count("checks_failed") == 0
        assert ticket.reason is None
        x, w, dy = x.double(), w.double(), dy.double()
        exact = x @ w.mT, dy @ w, dy.mT @ x
        for result in (y, dx, dw):
            assert result.dtype == F32
        return [
            float(((a - b).norm(dim=-1) / b.norm(dim=-1).clamp_min(1e-9)).max())
            for a, b in zip((y, dx, dw), exact)
        ]

    def sent(self):
        """(op, dtypes of both operands, arithmetic) of each job."""
        return [(j.op, j.left.dtype, j.right.dtype, j.arithmetic) for j, _ in self.spy.jobs]


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, W, DY = randn(256, 80, seed=1), randn(96, 80, seed=2), randn(256, 96, seed=3)
#: Every other row is a thousand times smaller.
SIZES = torch.tensor([1.0, 1e-3]).repeat(128)[:, None]


@pytest.mark.parametrize("key_shift", [True, False])
def test_by_default_nothing_is_rounded(key_shift):
    with House(key_shift=key_shift) as house:
        assert max(house.step(X, W, DY)) < 1e-5
        assert {(left, right, a) for _, left, right, a in house.sent()} == {(F32, F32, FP)}
        assert house.stats.count("sent_full") == house.stats.count("sent_rounded") == 0


@pytest.mark.parametrize("scheme", ["mixing", "monomial", "unsafe_none"])
@pytest.mark.parametrize("key_shift", [True, False])
def test_even_rows_go_in_bfloat16(scheme, key_shift):
    with House(wire="bf16", scheme=scheme, key_shift=key_shift) as house:
        errors = house.step(X, W, DY)
        assert {(left, right, a) for _, left, right, a in house.sent()} == {(BF16, BF16, FP)}
        assert all(1e-4 < error < 0.03 for error in errors), errors
        assert house.stats.count("sent_full") == 0


@pytest.mark.parametrize("arithmetic", [Arithmetic.TF32, Arithmetic.BF16])
def test_even_rows_may_be_rounded(arithmetic):
    with House(arithmetic=arithmetic.value) as house:
        errors = house.step(X, W, DY)
        assert {(left, right, a) for _, left, right, a in house.sent()} == {(F32, F32, arithmetic)}
        assert max(errors) < (0.03 if arithmetic is Arithmetic.BF16 else 1e-5)


def test_uneven_rows_of_x_go_in_float32():
    """And W with them. dY is even and goes in bfloat16."""
    with House(wire="bf16") as house:
        y, dx, dw = house.step(X * SIZES, W, DY)
        assert house.sent() == [
            (Op.PRODUCT, F32, F32, FP),
            (Op.GRAD_W, BF16, F32, FP),
            (Op.GRAD_X, BF16, F32, FP),
        ]
        assert y < 1e-3, "the small rows are as precise as the large ones"
        assert (house.stats.count("sent_full"), house.stats.count("sent_rounded")) == (1, 1)


def test_uneven_rows_of_dy_go_in_float32_beside_the_kept_x():
    with House(wire="bf16") as house:
        _, dx, _ = house.step(X, W, DY * SIZES)
        assert house.sent() == [
            (Op.PRODUCT, BF16, BF16, FP),
            (Op.GRAD_W, F32, BF16, FP),
            (Op.GRAD_X, F32, BF16, FP),
        ]
        assert dx < 0.01
        assert house.stats.count("encoded_x") == house.stats.count("encoded_w") == 1, "the key shift holds"


def test_without_the_rule_small_rows_would_drown(monkeypatch):
    """Why there is one: the same step with every row called even."""
    monkeypatch.setattr("tempo.secrecy.form.EVEN", 1e9)
    with House(wire="bf16") as house:
        y, dx, _ = house.step(X * SIZES, W, DY * SIZES)
    assert min(y, dx) > 0.3


@pytest.mark.parametrize("uneven", ["x", "dy", "both"])
def test_a_worker_may_round_a_product_only_if_both_sides_are_even(uneven):
    x = X * SIZES if uneven != "dy" else X
    dy = DY * SIZES if uneven != "x" else DY
    with House(arithmetic="bf16") as house:
        house.step(x, W, dy)
        may = {op: arithmetic for op, _, _, arithmetic in house.sent()}
    assert may[Op.GRAD_W] is FP
    assert may[Op.PRODUCT] is (Arithmetic.BF16 if uneven == "dy" else FP)
    assert may[Op.GRAD_X] is (Arithmetic.BF16 if uneven == "x" else FP)


def test_float64_is_never_narrowed():
    for options in ({"wire": "bf16"}, {"arithmetic": "tf32"}, {"arithmetic": "bf16"}):
        with House(**options) as house, torch.no_grad():
            x, w = X.double(), W.double()
            y, _ = house.engine.forward(Linear(tuple(x.shape), tuple(w.shape)), x, w, train_w=False)
            assert house.sent() == [(Op.PRODUCT, torch.float64, torch.float64, FP)]
            torch.testing.assert_close(y, x @ w.mT, rtol=0, atol=1e-9)


@pytest.mark.security
def test_one_w_per_epoch_and_dtype():
    """Micro-batches share W', the uneven ones one of their own. A changed weight ends both epochs, and
    workers are told to drop what they hold of either."""
    weight = torch.nn.Parameter(W.clone())
    with House(wire="bf16", weight_uses=4, unsafe_many_uses=True) as house:
        for x in (X, X * SIZES, X, X * SIZES):
            house.step(x, weight, DY)
        products = [(j, ship) for j, ship in house.spy.jobs if j.op is Op.PRODUCT]
        ids = [j.right.id for j, _ in products]
        assert ids[0] == ids[2] != ids[1] == ids[3]
        assert [j.right.id in ship for j, ship in products] == [True, True, False, False]
        assert [j.right.dtype for j, _ in products] == [BF16, F32, BF16, F32]
        assert house.stats.count("encoded_w") == 2
        with torch.no_grad():
            weight.mul_(0.5)
        house.step(X, weight, DY)
        assert house.stats.count("encoded_w") == 3
        house.step(X, weight, DY)
        assert set(ids[:2]) <= {one for released in house.spy.released for one in released}


@pytest.mark.security
def test_another_dtype_of_the_same_weight_is_another_epoch_under_another_key():
    weight = torch.nn.Parameter(W)
    lowering = Linear(tuple(X.shape), tuple(W.shape))
    with House(weight_uses=2, unsafe_many_uses=True) as house, torch.no_grad():
        one, fresh = house.weights.of(weight, lowering, W[None], F32)
        two, other = house.weights.of(weight, lowering, W[None], BF16)
        assert (fresh, other) == (True, True)
        assert one.key is not two.key
        assert one.operand.id != two.operand.id
        a, b = one.operand.tensor, two.operand.tensor.float()
        cosine = (a * b).sum() / a.norm() / b.norm()
        assert abs(float(cosine)) < 0.2, "one is no rounding of the other"
        assert house.weights.of(weight, lowering, W[None], F32) == (one, False)
        assert house.weights.of(weight, lowering, W[None], BF16) == (two, False)


def test_a_second_backward_and_an_eviction_are_sealed_in_the_same_numbers():
    with House(wire="bf16") as house:
        house.step(X, W, DY, again=True)
        assert {(left, right) for _, left, right, _ in house.sent()} == {(BF16, BF16)}
        operands = [j.left.id for j, _ in house.spy.jobs if j.op is Op.GRAD_X]
        assert len(set(operands)) == 2


@pytest.mark.security
def test_the_check_is_made_on_the_values_as_sent():
    """Operands are rounded before the check takes its projections: dW of a kept X passes with float32's
    tolerance, which projections of unrounded values would not."""
    with House(wire="bf16") as house:
        for seed in range(3):
            house.step(X, W, randn(256, 96, seed=10 + seed))
        assert house.stats.count("checks") == 9
        assert house.stats.count("checks_failed") == 0
