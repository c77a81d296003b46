"""What leaves the master in a training step, seen by a spy that keeps every operand it is sent.

Rows 10, 11, 20 and 21 of SECRECY.md: no key hides two operands, no zero row is encoded, no operand is
sent twice under different keys that could be compared, and nothing unfit leaves at all.
"""

import hashlib
import itertools
import time

import pytest
import torch

from tempo.engine import Engine
from tempo.errors import IntegrityError, NoWorkersLeft
from tempo.fleet import DeviceWorker, Fleet, FleetSettings, OperandsEvicted, Worker
from tempo.integrity import Verifier
from tempo.lowering.bmm import Bmm
from tempo.lowering.linear import Linear
from tempo.ops import Job, Op, Operand, Unverified
from tempo.secrecy.hardening import PLAIN
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.pieces import Desk, KeptRows
from tempo.secrecy.scheme import scheme_from
from tempo.secrecy.weights import Weights
from tempo.stats import Stats


def key_of(seed):
    key = SessionKey()
    key._secret = hashlib.sha256(repr(seed).encode()).digest()
    return key


class Spy(Worker):
    """Computes honestly and keeps a copy of every operand that reached it, and of every job."""

    def __init__(self, name="spy", lie=None):
        self.name = name
        self._inner = DeviceWorker("cpu", name=name)
        self.tensors = {}  # operand id -> tensor as sent
        self.jobs = []  # (op, left id, right id)
        self.released = set()
        self.lie = lie

    def connect(self):
        self._inner.connect()

    def run(self, job, ship, deadline):
        for operand in job.operands:
            if operand.id in ship:
                assert operand.id not in self.tensors, "an operand was sent twice"
                self.tensors[operand.id] = operand.tensor.detach().clone()
        self.jobs.append((job.op, job.left.id, job.right.id))
        reply = self._inner.run(job, ship, deadline)
        return Unverified(self.lie(reply.open_for_check())) if self.lie else reply

    def release(self, ids, deadline):
        ids = list(ids)
        self.released.update(ids)
        self._inner.release(ids, deadline)

    def close(self):
        self._inner.close()

    bytes_sent = property(lambda self: self._inner.bytes_sent)
    bytes_received = property(lambda self: self._inner.bytes_received)

    def sent(self, op, side):
        """Operands of this op, in order."""
        return [self.tensors[job[1 + (side == "right")]] for job in self.jobs if job[0] is op]


class House:
    """An engine with one spy, or more."""

    def __init__(
        self,
        scheme="mixing",
        *,
        key_shift=True,
        spies=1,
        uses=256,
        lies=None,
        fallback=True,
        hardening=PLAIN,
    ):
        key, ids, self.stats = key_of(scheme), itertools.count(1), Stats()
        self.spies = [Spy(f"spy{i}", (lies or {}).get(i)) for i in range(spies)]
        self.spy = self.spies[0]
        self.fleet = Fleet(self.spies, FleetSettings())
        sizes = {"chunk": 8192, "smallest": 64, "rounds": 2, "row_rounds": 2, "block": 64}
        sch = scheme_from(scheme, spread=2**0.5, **sizes, hardening=hardening)
        desk = Desk(key, sch, Verifier(key, 2), self.stats, ids, itertools.count(1), self.fleet.release)
        self.weights = Weights(key, sch, ids, self.fleet.release, uses, desk.pool, self.stats)
        self.engine = Engine(desk, self.fleet, self.weights, key_shift=key_shift, local_fallback=fallback)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.fleet.close()

    @torch.no_grad()
    def forward(self, x, w, *, train_w=True):
        return self.engine.forward(Linear(tuple(x.shape), tuple(w.shape)), x, w, train_w=train_w)

    @torch.no_grad()
    def backward(self, ticket, x, w, dy, *, want_x=True, want_w=True):
        lowering = Linear(tuple(x.shape), tuple(w.shape))
        return self.engine.backward(ticket, lowering, x, w, dy, want_x=want_x, want_w=want_w)

    def tensors(self):
        return [t for spy in self.spies for t in spy.tensors.values()]


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def step(house, x, w, dy, **wants):
    y, ticket = house.forward(x, w)
    w = w.detach()
    dx, dw = house.backward(ticket, x, w, dy, **wants)
    for ours, exact in ((y, x @ w.mT), (dx, dy @ w), (dw, dy.mT @ x)):
        if ours is not None:
            torch.testing.assert_close(ours, exact, rtol=0, atol=1e-9 * (1 + float(exact.abs().max())))
    return ticket


X, W, DY = randn(256, 80, seed=1) + 2, randn(96, 80, seed=2), randn(256, 96, seed=3)


def parameter():
    return torch.nn.Parameter(randn(96, 80, seed=2))


def zeroed(t, rows):
    t = t.clone()
    t[rows] = 0
    return t


def no_zero_rows(t):
    """Rows that were zero would be zero, or as good as dependent, in the secret basis too."""
    assert float(t.norm(dim=-1).min()) > 1e-6 * float(t.norm(dim=-1).max())


# ---- keys --------------------------------------------------------------------------------------


@pytest.mark.security
def test_a_step_under_key_shift_sends_three_operands():
    with House() as house:
        step(house, X, parameter(), DY)
        assert len(house.spy.tensors) == 3
        assert [job[0] for job in house.spy.jobs] == [Op.PRODUCT, Op.GRAD_W, Op.GRAD_X]
        product, gradw, gradx = house.spy.jobs
        assert gradw[2] == product[1], "dW meets the X of forward"
        assert gradx[2] == product[2], "dX meets the W of forward"
        assert gradw[1] == gradx[1]
        for plain in (X, W, DY):
            assert not any(set(t.flatten().tolist()) & set(plain.flatten().tolist()) for t in house.tensors())


@pytest.mark.security
def test_without_key_shift_no_operand_meets_two_others():
    with House(key_shift=False) as house:
        step(house, X, parameter(), DY)
        assert len(house.spy.tensors) == 6
        used = [number for job in house.spy.jobs for number in job[1:]]
        assert len(used) == len(set(used)) == 6


@pytest.mark.security
@pytest.mark.parametrize("scheme", ["mixing", "monomial"])
def test_two_steps_share_no_ciphertext(scheme):
    with House(scheme) as house:
        w = parameter()
        step(house, X, w, DY)
        with torch.no_grad():
            w.add_(1e-9)
        step(house, X, w, DY)
        assert len(house.spy.tensors) == 6
        by_shape = {}
        for t in house.tensors():
            by_shape.setdefault(tuple(t.shape), []).append(t)
        for a, b in by_shape.values():
            assert not set(a.flatten().tolist()) & set(b.flatten().tolist())
            cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
            assert abs(cosine) < 6 / a.numel() ** 0.5 + 0.02


@pytest.mark.security
def test_a_second_backward_seals_under_fresh_keys():
    """Row 11: dY' of two backward passes under one key could be compared."""
    with House() as house:
        w = parameter()
        ticket = step(house, X, w, DY)
        before = dict(house.spy.tensors)
        house.backward(ticket, X, w, DY + 1e-9)
        fresh = [t for number, t in house.spy.tensors.items() if number not in before]
        assert sorted(tuple(t.shape) for t in fresh) == [(1, 96, 80), (256, 80), (256, 96), (256, 96)]
        for t in fresh:
            for old in before.values():
                if old.shape == t.shape:
                    assert (t - old).norm() > 0.5 * t.norm()


@pytest.mark.security
def test_every_piece_has_a_row_key_of_its_own():
    with House(spies=2) as house:
        x = X[:128].repeat(2, 1)  # both workers get equal rows
        y, _ = house.forward(x, parameter())
        a, b = (spy.sent(Op.PRODUCT, "left")[0] for spy in house.spies)
        assert a.shape == b.shape == (128, 80)
        assert (a - b).norm() > 0.5 * a.norm()
        torch.testing.assert_close(y[:128], y[128:], rtol=0, atol=1e-9)


@pytest.mark.security
def test_a_weight_is_sealed_once_an_epoch_and_anew_when_it_changes():
    with House(uses=3) as house:
        w = parameter()
        for _ in range(3):
            house.forward(X, w, train_w=False)
        right = {job[2] for job in house.spy.jobs}
        assert len(right) == 1
        house.forward(X, w, train_w=False)  # its uses are spent
        assert len({job[2] for job in house.spy.jobs}) == 2
        changes = [
            lambda: w.data.mul_(1.5),  # counted by nobody
            lambda: w.detach().numpy().__setitem__((0, 0), 5.0),
            lambda: torch.optim.SGD([w], lr=0.1).step(),
        ]
        w.grad = torch.ones_like(w)
        for i, change in enumerate(changes):
            change()
            y, _ = house.forward(X, w, train_w=False)
            torch.testing.assert_close(y, X @ w.detach().mT, rtol=0, atol=1e-8)
            assert len({job[2] for job in house.spy.jobs}) == 3 + i
        sealed = list({job[2]: house.spy.tensors[job[2]] for job in house.spy.jobs}.values())
        for a, b in itertools.combinations(sealed, 2):
            assert (a - b).norm() > 0.3 * a.norm()


@pytest.mark.security
def test_a_computed_weight_is_sealed_for_each_product():
    with House() as house:
        w = randn(96, 80)
        for _ in range(3):
            house.forward(X, w, train_w=False)
        assert len({job[2] for job in house.spy.jobs}) == 3


# ---- rows that give the basis away -------------------------------------------------------------


@pytest.mark.security
@pytest.mark.parametrize("scale", [0.0, 1e-20])
def test_zero_rows_of_x_are_not_sent(scale):
    x = X.clone()
    x[40:100] *= scale
    with House() as house:
        step(house, x, parameter(), DY)
        (sent,) = house.spy.sent(Op.PRODUCT, "left")
        assert sent.shape[0] == 196
        for t in house.tensors():
            no_zero_rows(t)


@pytest.mark.security
def test_zero_rows_of_dy_are_not_sent_and_x_is_sealed_afresh_on_the_rest():
    """Row 20: CLS pooling, masked tokens. X' of forward shares the row basis, so it must not meet them."""
    dy = zeroed(DY, slice(0, 120))
    with House() as house:
        step(house, X, parameter(), dy)
        product, gradw = house.spy.jobs[:2]
        assert gradw[0] is Op.GRAD_W
        assert gradw[2] != product[1], "X of forward is not used with a dY that lost rows"
        assert house.spy.tensors[gradw[1]].shape[0] == 136
        assert house.spy.tensors[gradw[2]].shape[0] == 136
        for t in house.tensors():
            no_zero_rows(t)


@pytest.mark.security
@pytest.mark.parametrize("key_shift", [True, False])
@pytest.mark.parametrize("spies", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_any_pattern_of_zero_rows(seed, spies, key_shift):
    g = torch.Generator().manual_seed(seed)
    share_x, share_dy = [(0.2, 0.5), (0.6, 0.1), (0.0, 0.7), (0.8, 0.8)][seed]
    x, dy = (
        zeroed(X, torch.rand(256, generator=g) < share_x),
        zeroed(DY, torch.rand(256, generator=g) < share_dy),
    )
    with House(spies=spies, key_shift=key_shift) as house:
        w = parameter()
        ticket = step(house, x, w, dy)
        house.backward(ticket, x, w, zeroed(dy, slice(0, 30)))
        for t in house.tensors():
            assert t.shape[-2] >= 64, "fewer rows than hide anything"
            no_zero_rows(t)
        # An X or dY is contracted over rows with one other operand: with its own.
        partners = {}
        for spy in house.spies:
            for op, left, right in spy.jobs:
                if op is Op.GRAD_W:
                    partners.setdefault(right, set()).add(left)
        assert all(len(lefts) == 1 for lefts in partners.values())


@pytest.mark.security
def test_a_gradient_of_zeros_sends_nothing():
    with House() as house:
        w = parameter()
        _, ticket = house.forward(X, w)
        before = len(house.spy.jobs)
        dx, dw = house.backward(ticket, X, w, torch.zeros_like(DY))
        assert len(house.spy.jobs) == before
        assert not dx.any()
        assert not dw.any()


@pytest.mark.security
def test_the_mean_row_is_taken_off_but_never_exactly():
    """Row 21: were X' centred exactly, its rows in the secret basis would satisfy an equation."""
    with House() as house:
        x = X + 100
        house.forward(x, parameter())
        (sent,) = house.spy.sent(Op.PRODUCT, "left")
        assert sent.norm() < 0.5 * x.norm()
        # No direction of X' is null: neither a combination of rows nor of features vanishes.
        singular = torch.linalg.svdvals(sent)
        assert singular[-1] > 1e-3 * singular[0]


# ---- what never leaves -------------------------------------------------------------------------


@pytest.mark.security
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("where", ["x", "w", "dy"])
def test_unfit_values_stay_home(bad, where):
    x, w, dy = X.clone(), parameter(), DY.clone()
    with House() as house:
        target = {"x": x, "w": w.data, "dy": dy}[where]
        target[3, 4] = bad
        y, ticket = house.forward(x, w)
        torch.testing.assert_close(y, x @ w.detach().mT, equal_nan=True, rtol=1e-9, atol=1e-9)
        sent_forward = len(house.spy.jobs)
        assert sent_forward == (1 if where == "dy" else 0)
        dx, dw = house.backward(ticket, x, w, dy)
        assert len(house.spy.jobs) == sent_forward
        torch.testing.assert_close(dx, dy @ w.detach(), equal_nan=True, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(dw, dy.mT @ x, equal_nan=True, rtol=1e-9, atol=1e-9)
        for t in house.tensors():
            assert bool(t.isfinite().all())


@pytest.mark.security
@pytest.mark.parametrize(("size_x", "size_w"), [(1e-32, 1.0), (1.0, 1e-32), (1e-16, 1e-16), (1e16, 1e16)])
def test_operands_near_the_ends_of_the_range_stay_home(size_x, size_w):
    x, w = X.float() * size_x, torch.nn.Parameter(W.float() * size_w)
    with House() as house:
        y, ticket = house.forward(x, w)
        assert house.spy.jobs == []
        assert "small" in ticket.reason or "large" in ticket.reason
        assert torch.equal(y, x @ w.detach().mT)


@pytest.mark.parametrize("scheme", ["mixing", "monomial"])
def test_tiny_float64_operands_do_not_make_an_honest_worker_a_liar(scheme):
    with House(scheme) as house:
        house.forward(X, torch.nn.Parameter(W * 1e-200))
        assert house.stats.count("checks_failed") == 0


@pytest.mark.security
@pytest.mark.parametrize("size", [1e-24, 1e20, 1e25])
def test_extreme_float32_operands_are_sent_whole_or_not_at_all(size):
    # Regression: the centre of large rows overflowed, and an honest worker was quarantined for it.
    x, w = X.float() * size, torch.nn.Parameter(W.float())
    with House() as house:
        y, ticket = house.forward(x, w)
        house.backward(ticket, x, w, DY.float())
        assert house.stats.count("checks_failed") == 0
        for t in house.tensors():
            assert bool(t.isfinite().all())
        exact = x.double() @ w.detach().double().mT
        assert (y.double() - exact).norm() < 1e-5 * exact.norm()


@pytest.mark.security
def test_too_few_rows_stay_home():
    with House() as house:
        w = parameter()
        step(house, X[:63], w, DY[:63])
        step(house, zeroed(X, slice(0, 200)), w, DY)
        assert [job[0] for job in house.spy.jobs if job[0] is not Op.GRAD_X] == []
        # dX of the rows that X had zero needs no X: those 200 rows may be sent.
        assert all(t.shape[-2] >= 64 for t in house.tensors())


# ---- a piece that fails ------------------------------------------------------------------------


@pytest.mark.security
def test_after_a_lie_the_same_bytes_go_elsewhere_and_the_result_is_right():
    """Retries resend identical bytes: two ciphertexts of one operand under one key would be compared."""
    with House(spies=2, lies={0: lambda t: t * 1.01}) as house:
        w = parameter()
        step(house, X, w, DY)
        assert house.stats.count("checks_failed") == 1
        common = house.spies[0].tensors.keys() & house.spies[1].tensors.keys()
        assert common
        for number in common:
            assert torch.equal(house.spies[0].tensors[number], house.spies[1].tensors[number])


@pytest.mark.security
@pytest.mark.parametrize("fallback", [True, False])
def test_with_liars_only_the_master_computes_or_says_so(fallback):
    with House(spies=2, lies={0: torch.zeros_like, 1: lambda t: -t}, fallback=fallback) as house:
        if fallback:
            y, _ = house.forward(X, parameter())
            torch.testing.assert_close(y, X @ W.mT, rtol=0, atol=1e-9)
        else:
            with pytest.raises((NoWorkersLeft, IntegrityError)):
                house.forward(X, parameter())


@pytest.mark.security
def test_a_worker_that_lies_in_backward_loses_x_and_it_is_sealed_afresh():
    def late(t):
        late.calls += 1
        return t if late.calls == 1 else t + 1

    late.calls = 0
    with House(spies=2, lies={0: late}) as house:
        w = parameter()
        y, ticket = house.forward(X, w)
        assert house.stats.count("checks_failed") == 0
        dx, dw = house.backward(ticket, X, w, DY)
        assert house.stats.count("checks_failed") >= 1
        torch.testing.assert_close(dx, DY @ W, rtol=0, atol=1e-8)
        torch.testing.assert_close(dw, DY.mT @ X, rtol=0, atol=1e-8)
        # The spies together hold dY of the lost rows under two keys, and no two alike.
        dys = [t for spy in house.spies for t in spy.sent(Op.GRAD_W, "left") + spy.sent(Op.GRAD_X, "left")]
        unique = {tuple(t.flatten()[:8].tolist()): t for t in dys}
        for a, b in itertools.combinations(unique.values(), 2):
            if a.shape == b.shape:
                assert (a - b).norm() > 0.3 * a.norm()


# ---- groups ------------------------------------------------------------------------------------


@pytest.mark.security
def test_groups_with_zero_rows_of_their_own():
    x, w = randn(3, 200, 80, seed=5), torch.nn.Parameter(randn(3, 80, 96, seed=6))
    x[1, :150] = 0  # 50 rows are left: too few
    x[2, 10:20] = 0
    with House() as house, torch.no_grad():
        lowering = Bmm(tuple(x.shape), tuple(w.shape))
        y, ticket = house.engine.forward(lowering, x, w, train_w=True)
        torch.testing.assert_close(y, x @ w, rtol=0, atol=1e-9)
        (sent,) = house.spy.sent(Op.PRODUCT, "left")
        assert sent.shape[0] == 200 + 190
        dy = randn(3, 200, 96, seed=7)
        dy[0, 100:] = 0
        dx, dw = house.engine.backward(ticket, lowering, x, w, dy, want_x=True, want_w=True)
        torch.testing.assert_close(dx, dy @ w.mT, rtol=0, atol=1e-9)
        torch.testing.assert_close(dw, x.mT @ dy, rtol=0, atol=1e-9)
        for t in house.tensors():
            no_zero_rows(t)


# ---- what could be printed ---------------------------------------------------------------------


def shows_no_content(text):
    return "tensor(" not in text


@pytest.mark.security
def test_what_backward_keeps_holds_no_operand():
    """A ticket lives in the autograd graph: X' is the worker's, the plain X is autograd's own."""
    with House() as house:
        _, ticket = house.forward(X, parameter())
        (kept,) = ticket.kept
        assert isinstance(kept, KeptRows)
        assert kept.x.operand.tensor is None
        assert shows_no_content(repr(ticket.weight))
        assert shows_no_content(repr(house.engine.desk))


def test_a_ticket_shows_no_content():
    with House() as house:
        _, ticket = house.forward(X, parameter())
        assert shows_no_content(repr(ticket))


@pytest.mark.security
def test_operands_are_released_when_their_last_user_dies():
    with House() as house:
        w = parameter()
        _, ticket = house.forward(X, w)
        kept = ticket.kept[0].x.operand.id
        del ticket
        house.forward(X, w, train_w=False)
        assert kept in house.spy.released


# ---- decoys ------------------------------------------------------------------------------------


@pytest.mark.security
@pytest.mark.parametrize("spies", [1, 2])
def test_a_few_zero_rows_of_dy_are_sent_as_decoys(spies):
    lost = [3, 64, 65, 130]
    dy = zeroed(DY, lost)
    w = parameter()
    with House(spies=spies) as house:
        y, ticket = house.forward(X, w)
        encoded = house.stats.count("encoded_x")
        dx, dw = house.backward(ticket, X, w.detach(), dy)
        assert house.stats.count("encoded_x") == encoded, "X was sealed again"
        torch.testing.assert_close(dx, dy @ w.detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(dw, dy.mT @ X, rtol=1e-9, atol=1e-9)
        assert bool((dx[lost] == 0).all())
        # Undo the row basis with the key in hand: no row that left was zero.
        for spy in house.spies:
            for sent in spy.sent(Op.GRAD_W, "left"):
                assert torch.linalg.matrix_rank(sent) == min(sent.shape)


@pytest.mark.security
def test_decoys_are_right_when_their_worker_lies():
    dy, w = zeroed(DY, [5]), parameter()
    with House(spies=2, lies={0: lambda t: 1.01 * t}) as house:
        y, ticket = house.forward(X, w)
        dx, dw = house.backward(ticket, X, w.detach(), dy)
        torch.testing.assert_close(dx, dy @ w.detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(dw, dy.mT @ X, rtol=1e-9, atol=1e-9)


@pytest.mark.security
def test_many_zero_rows_cost_an_encoding_instead():
    dy, w = zeroed(DY, slice(0, 100)), parameter()
    with House() as house:
        y, ticket = house.forward(X, w)
        encoded = house.stats.count("encoded_x")
        _, dw = house.backward(ticket, X, w.detach(), dy)
        assert house.stats.count("encoded_x") == encoded + 1
        torch.testing.assert_close(dw, dy.mT @ X, rtol=1e-9, atol=1e-9)


# ---- what hostile review found -----------------------------------------------------------------


class Forgetful(Spy):
    """Claims to have dropped every operand that it is referred to for dW."""

    def run(self, job, ship, deadline):
        if job.op is Op.GRAD_W and job.right.id not in ship:
            raise OperandsEvicted(self.name, (job.right.id,))
        return super().run(job, ship, deadline)


@pytest.mark.security
def test_a_worker_that_claims_evictions_does_not_see_x_twice_under_one_basis():
    house = House()
    forgetful = Forgetful("forgetful")
    house.fleet.add(forgetful)
    house.fleet.remove("spy0")
    with house:
        w, x, dy = parameter(), X[:70], DY[:70]  # fewer rows than features
        y, ticket = house.forward(x, w)
        dx, dw = house.backward(ticket, x, w.detach(), dy)
        torch.testing.assert_close(dx, dy @ w.detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(dw, dy.mT @ x, rtol=1e-9, atol=1e-9)
        first = forgetful.sent(Op.PRODUCT, "left")[0]
        second = forgetful.sent(Op.GRAD_W, "right")[0]
        # Under one B both span the same 70 dimensions, and A2 A1^-1 could be solved for.
        assert torch.linalg.matrix_rank(torch.cat([first, second])) == 80


@pytest.mark.security
def test_a_lie_about_dw_that_another_worker_could_redo_is_sealed_anew():
    """After a hedged forward two workers hold X', and the check of dW is good for one reply only."""
    w = parameter()
    with House(spies=2) as house:
        y, ticket = house.forward(X[:100], w)  # one shard
        (kept,) = ticket.kept
        holder, other = house.spies if kept.x.operand.id in house.spies[0].tensors else reversed(house.spies)
        # As a hedge would have left it: the other worker holds X' too.
        x_sealed = holder.tensors[kept.x.operand.id]
        runner = next(r for r in house.fleet._runners if r.name == other.name)
        other._inner.run(
            Job(
                Op.PRODUCT,
                Operand(kept.x.operand.id, tuple(x_sealed.shape), x_sealed.dtype, x_sealed, keep=True),
                ticket.weight.operand,
                kept.where.counts,
            ),
            frozenset({kept.x.operand.id, ticket.weight.operand.id}),
            1e18,
        )
        runner.holdings.sending(ticket, [kept.x.operand.id])
        runner.holdings.arrived(ticket)
        holder.lie = lambda t: 1.01 * t
        dx, dw = house.backward(ticket, X[:100], w.detach(), DY[:100])
        torch.testing.assert_close(dw, DY[:100].mT @ X[:100], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(dx, DY[:100] @ w.detach(), rtol=1e-9, atol=1e-9)
        assert house.stats.count("checks_failed") >= 1


def test_releases_reach_a_worker_that_gets_no_jobs():
    with House(spies=2) as house:
        w = parameter()
        for _ in range(5):
            step(house, X[:100], w, DY[:100])  # one shard: one worker idles
        time.sleep(1.5)
        assert all(runner.holdings.pending == 0 for runner in house.fleet._runners)


def test_zero_weights_stay_home():
    with House() as house:
        w = torch.nn.Parameter(torch.zeros(96, 80, dtype=torch.float64))
        y, ticket = house.forward(X, w)
        assert ticket.reason == "all weights are zero"
        assert not house.spy.jobs
        assert bool((y == 0).all())
