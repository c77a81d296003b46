"""Workers that change replies on shares: found, named, quarantined, and the model does not advance."""

import contextlib
import os
import pickle
import signal
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from sharing_bench import Bench, Seen
from torch import nn

from tempo import FleetSettings, Session
from tempo.errors import IntegrityError, NoWorkersLeft
from tempo.fleet import ProcessWorker
from tempo.lowering import Linear
from tempo.nn.autograd import Call, offloaded
from tempo.ops import PRIMES, Op
from tempo.worker import Lie, LieKind

pytestmark = pytest.mark.security

#: What a liar does to a reply, uint8 (P, ...), in place.
LIES = {
    "one residue by one": lambda y: y.view(-1)[:1].add_(1).remainder_(251),
    "one entry in all residues": lambda y: y.flatten(1)[:, 5].add_(1),
    "one prime": lambda y: y[3].add_(7).remainder_(PRIMES[3]),
    "zeros": lambda y: y.zero_(),
    "another place": lambda y: y.copy_(y.flip(-1).clone()),
    "bytes that are no residues": lambda y: y.fill_(255),
}


def step(made, x, w, dy):
    a, b = x.clone().requires_grad_(), nn.Parameter(w.clone())
    y, reason = offloaded(Call(made.engine, Linear(x.shape, w.shape), lambda *_: None), a, b)
    assert reason is None
    y.backward(dy)
    return y.detach(), a.grad, b.grad


def operands():
    torch.manual_seed(3)
    return torch.randn(80, 70), torch.randn(90, 70), torch.randn(80, 90)


def agree(got, x, w, dy):
    for one, true in zip(got, (x @ w.T, dy @ w, dy.T @ x), strict=True):
        assert float((one - true).norm() / true.norm()) < 1e-4


@pytest.mark.parametrize("liar", [0, 1, 2])
@pytest.mark.parametrize("op", list(Op))
@pytest.mark.parametrize("lie", LIES)
def test_the_liar_is_named_and_the_others_are_not(lie, op, liar):
    """Whatever is changed, in whichever product, by whichever owner's worker; another one takes over."""
    told = []

    def change(number, job, result):
        if job.op is op and not told:
            LIES[lie](result)
            told.append(number)

    workers = [[Seen(f"w{i}", change if i == liar else None), Seen(f"other-{i}")] for i in range(3)]
    with Bench(*workers) as made:
        agree(step(made, *operands()), *operands())
        assert told
        assert made.told == [("check_failed", f"w{liar}"), ("quarantined", f"w{liar}")]
        assert made.stats.count("checks_failed") == 1
        assert made.stats.count("local_fallbacks") == 0


def test_two_owners_that_lie_together_are_both_named():
    """Changes that cancel in the sum would be no lie; these do not."""

    def change(number, job, result):
        if number == 1:
            result[0].add_(1).remainder_(PRIMES[0])

    workers = [[Seen(f"w{i}", change if i else None), Seen(f"other-{i}")] for i in range(3)]
    with Bench(*workers) as made:
        agree(step(made, *operands()), *operands())
        assert [worker for kind, worker in made.told if kind == "check_failed"] == ["w1", "w2"]


def test_with_the_only_worker_of_an_owner_caught_the_master_computes():
    workers = [Seen("w0"), Seen("w1", lambda n, job, y: y.zero_()), Seen("w2")]
    with Bench(*[[worker] for worker in workers]) as made:
        agree(step(made, *operands()), *operands())
        assert made.stats.count("local_fallbacks") == 2
        assert made.told == [("check_failed", "w1"), ("quarantined", "w1")]


def test_or_raises_if_the_user_forbids_that():
    workers = [Seen("w0"), Seen("w1", lambda n, job, y: y.zero_()), Seen("w2")]
    with Bench(*[[worker] for worker in workers], fallback=False) as made:
        for _ in range(2):
            with pytest.raises(NoWorkersLeft, match="no worker of owner 'owner-1' is usable"):
                step(made, *operands())
    assert len(workers[0].views) == 1, "with an owner missing nothing more is shared"


def test_a_worker_that_always_lies_and_always_returns_does_not_hold_a_step_up():
    workers = [Seen("w0"), Seen("w1", lambda n, job, y: y.zero_()), Seen("w2")]
    with Bench(*[[worker] for worker in workers], quarantine_s=1e-9, hedge_least_s=60.0) as made:
        agree(step(made, *operands()), *operands())
        assert made.stats.count("local_fallbacks") == 2
        assert made.stats.count("checks_failed") <= 2 * 4


def test_a_fault_of_the_masters_blames_nobody(monkeypatch):
    """Where the sum is wrong although each reply is right, nobody is quarantined and nothing goes on."""
    from tempo.integrity import exact

    monkeypatch.setattr(
        exact, "whole", lambda replies: torch.zeros(replies[0].shape[1:], dtype=torch.float64)
    )
    with Bench(*[[Seen(f"w{i}")] for i in range(3)]) as made:
        with pytest.raises(IntegrityError, match="fault of the master"):
            step(made, *operands())
        assert made.told == []


# ---- with processes, in a session ------------------------------------------------------------------


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 72), nn.Tanh(), nn.Linear(72, 68), nn.Tanh(), nn.Linear(68, 10))


def train(net, steps, between=None):
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for number in range(steps):
        x, labels = torch.randn(72, 40), torch.randint(10, (72,))
        loss = F.cross_entropy(net(x), labels)
        if between is not None:
            between(number)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@contextlib.contextmanager
def processes(lie=None, spare=False, **options):
    names = ("alpha", "beta", "gamma")
    made = {
        name: [ProcessWorker(f"{name}-0", unsafe_lie=lie if name == "beta" else None)]
        + ([ProcessWorker(f"{name}-1")] if spare else [])
        for name in names
    }
    with Session(workers=made, scheme="shares", min_size=16, **options) as session:
        yield session, made


def test_a_lying_and_a_killed_process_change_nothing():
    plain = train(model(), 6)
    fleet = FleetSettings(quarantine_s=3600.0)
    with processes(Lie(LieKind.FLIP_ENTRY, first=4), spare=True, fleet=fleet) as (session, workers):

        def between(number):
            if number == 3:
                os.kill(workers["gamma"][0].pid, signal.SIGKILL)

        losses = train(session.protect(model()), 6, between)
        report = session.report()
    assert max(abs(a - b) for a, b in zip(losses, plain, strict=True)) < 1e-4
    assert report.quarantined == ["beta-0"]
    assert report.checks_failed == 1
    assert report.local_fallbacks == 0
    assert {"check_failed", "quarantined", "lost"} <= {event.kind.value for event in report.events}


def test_where_the_master_may_not_compute_the_model_does_not_advance():
    net = model()
    before = deepcopy(net.state_dict())
    with processes(Lie(LieKind.ZEROS, first=0, count=10**6), local_fallback=False) as (session, _):
        session.protect(net)
        with pytest.raises(NoWorkersLeft):
            train(net, 1)
        report = session.report()
        session.unprotect(net)
    assert report.quarantined == ["beta-0"]
    assert all(torch.equal(before[name], now) for name, now in net.state_dict().items())


# ---- what is secret stays in the process -----------------------------------------------------------


def test_nothing_of_a_share_is_printed_or_pickled():
    from tempo.integrity import ExactVerifier
    from tempo.secrecy.fixed import fixed_rows, fixed_weight
    from tempo.secrecy.keys import SessionKey
    from tempo.secrecy.shares import REPLICATED, ShareKey, dealt

    key = SessionKey()
    weight = fixed_weight(torch.randn(1, 9, 7))
    x = fixed_rows(torch.randn(5, 7), (5,), weight.rows)
    seeds = ShareKey(key, ("x",), REPLICATED)
    halves = seeds.split(x)
    verifier = ExactVerifier(key)
    hidden = [x, seeds, verifier.witness(x), verifier.rows(Op.PRODUCT, x, weight, (5,))]
    for one in hidden:
        assert repr(one) == f"{type(one).__name__}(hidden)"
        for copied in (pickle.dumps, deepcopy):
            with pytest.raises(TypeError, match="not pickled or copied"):
                copied(one)
    operand = dealt(1, halves, x, keep=False)[0]
    secret = halves[0][0].key
    for text in (repr(operand), repr(halves[0][0]), str(operand)):
        assert repr(secret)[2:10] not in text
        assert "key=" not in text
        assert "halves" not in text
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(operand)
