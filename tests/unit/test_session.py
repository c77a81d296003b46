"""The session: settings, what it counts and reports, and what it does about workers that fail."""

from __future__ import annotations

import copy
import json
import pickle
import threading

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from tempo import Config, FleetSettings, Session
from tempo.errors import NoWorkersLeft, UsageError, WorkerLost
from tempo.fleet import DeviceWorker, Worker
from tempo.ops import Op, Unverified

SCHEMES = ("monomial", "mixing")


def r(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 96), nn.Tanh(), nn.Linear(96, 64), nn.Tanh(), nn.Linear(64, 8)
    ).double()


def step(model, x):
    model.zero_grad()
    x = x.clone().requires_grad_()
    y = model(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in model.parameters())]


def close(got, want, tolerance=1e-9):
    for a, b in zip(got, want, strict=True):
        assert (a - b).norm() <= tolerance * (b.norm() + 1e-6)


class Scripted(Worker):
    """A device worker that can be told to lie about an operation, and to be gone."""

    def __init__(self, name):
        self.name = name
        self.device = DeviceWorker("cpu", name=name)
        self.lie_about = None
        self.lose_at = None
        self.told = 0

    def connect(self):
        self.device.connect()

    def run(self, job, ship, deadline):
        if self.lose_at is job.op:
            raise WorkerLost(f"worker {self.name} is gone")
        reply = self.device.run(job, ship, deadline)
        if job.op is self.lie_about:
            self.told += 1
            forged = reply.open_for_check().clone()
            forged[..., 0, 0] += forged.abs().amax() * 1e-3
            return Unverified(forged)
        return reply

    def release(self, ids, deadline):
        self.device.release(ids, deadline)

    def close(self):
        self.device.close()

    bytes_sent = property(lambda self: self.device.bytes_sent)
    bytes_received = property(lambda self: self.device.bytes_received)


# ---- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "xor"}, "scheme = 'xor'.*mixing"),
        ({"scheme": "none"}, "unsafe_none"),
        ({"schema": "mixing"}, "unknown setting 'schema'.*scheme"),
        ({"min_size": 8}, "unsafe_small"),
        ({"block": 48}, "power of two"),
        ({"spread": 1.0}, "spread"),
        ({"wire": "fp16"}, "wire = 'fp16'.*fp32, bf16"),
        ({"wire": "tf32"}, "wire = 'tf32'.*fp32, bf16"),
        ({"arithmetic": "fp8"}, "arithmetic = 'fp8'.*fp32, tf32, bf16"),
        ({"wire": "bf16", "arithmetic": "tf32"}, "nothing to round of"),
        ({"wire": "bf16", "spread": 2.0}, "at most 8 with bf16"),
        ({"arithmetic": "bf16", "rounds": 3}, "at most 8 with bf16"),
        ({"arithmetic": "tf32", "rounds": 6}, "at most 64 with tf32"),
        ({"arithmetic": "tf32", "rounds": 8, "spread": 1.5}, "at most 64 with tf32"),
        ({"rounds": 0}, "rounds"),
        ({"probes": 0}, "probes"),
        ({"weight_uses": 0}, "weight_uses"),
        ({"weight_uses": 2}, "unsafe_many_uses"),
    ],
)
def test_settings_that_cannot_be(options, message):
    with pytest.raises(UsageError, match=message):
        Session("cpu", **options)


@pytest.mark.parametrize("workers", ["", "local:0", "gpu", [], [3], None])
def test_workers_that_cannot_be(workers):
    with pytest.raises(UsageError, match="allowed are"):
        Session(workers)


def test_a_config_may_be_given_and_overridden():
    config = Config(scheme="monomial", fleet=FleetSettings(quarantine_s=5))
    with Session("cpu", config=config, key_shift=False) as session:
        report = session.report()
    assert (report.scheme, report.key_shift) == ("monomial", False)
    assert config.key_shift


@pytest.mark.parametrize(
    "options",
    [
        {"block": 32, "min_size": 32},
        {"rounds": 1},
        {"rounds": 4, "spread": 2.0},
        {"chunk": 128},
        {"probes": 1},
        {"weight_uses": 5, "unsafe_many_uses": True},
        {"min_size": 4, "unsafe_small": True},
        {"min_size": 0, "unsafe_small": True},
        {"scheme": "unsafe_none"},
        {"scheme": "monomial", "chunk": 128, "spread": 3.0},
        {"scheme": "monomial", "min_size": 1, "unsafe_small": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("key_shift", [True, False])
def test_every_setting_gives_the_same_gradients(options, key_shift):
    plain, x = mlp(), r(300, 64)
    want = step(plain, x)
    with Session(["cpu", "cpu"], key_shift=key_shift, **options) as session:
        close(step(session.protect(copy.deepcopy(plain)), x), want)
        assert session.report().checks_failed == 0


def test_a_session_is_neither_copied_nor_pickled_nor_talkative():
    with Session("cpu") as session:
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="holds keys"):
                attempt(session)
        assert repr(session) == "Session(scheme='mixing', closed=False)"


def test_after_close():
    model, x = mlp(), r(128, 64)
    want = step(copy.deepcopy(model), x)
    with Session("cpu") as session:
        session.protect(model)
        graph = model(x).sum()
    session.close()
    for call in (lambda: session.protect(mlp()), lambda: model(x), graph.backward):
        with pytest.raises(UsageError, match="closed"):
            call()
    assert session.report().rows
    close(step(session.unprotect(model), x), want)


def test_no_thread_is_left():
    before = threading.active_count()
    for _ in range(3):
        with Session(["cpu", "cpu"]) as session:
            session.protect(mlp())(r(128, 64))
    assert threading.active_count() == before


# ---- encodings ------------------------------------------------------------------------------------


def layers():
    return nn.Sequential(
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(64, 64, 5, padding=2),
        nn.Tanh(),
        nn.Conv2d(64, 64, 1),
        nn.Flatten(2),
        nn.Linear(64, 64),
        nn.Tanh(),
        Conv1D(64, 64),
    ).double()


@pytest.mark.parametrize("workers", [["cpu"], ["cpu"] * 3])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("key_shift", [True, False])
def test_three_encodings_a_layer_with_key_shift_and_six_without(scheme, key_shift, workers):
    model, x = layers(), r(16 * len(workers), 64, 8, 8)  # 64 tiles for each worker
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with Session(workers, scheme=scheme, key_shift=key_shift) as session:
        session.protect(model, unsafe_offload=["8"])
        for steps in (1, 2, 3):
            step(model, x)
            optimizer.step()
            report = session.report()
            assert len([row for row in report.rows if row.offloaded]) == 5
            assert report.encodings == (3 if key_shift else 6) * 5 * steps
            assert report.encodings_without_key_shift == 6 * 5 * steps
            assert report.checks == 3 * 5 * steps * len(workers)


@pytest.mark.parametrize("key_shift", [True, False])
def test_encodings_where_less_is_wanted(key_shift):
    x = r(128, 64)
    for frozen, x_grad, shifted, fresh in (
        (False, False, 3, 4),  # dW alone
        (True, True, 3, 4),  # dX alone
        (True, False, 2, 2),  # forward alone
    ):
        model = nn.Sequential(nn.Linear(64, 64, dtype=torch.float64)).requires_grad_(not frozen)
        with Session("cpu", key_shift=key_shift) as session:
            y = session.protect(model)(x.clone().requires_grad_(x_grad))
            if y.requires_grad:
                (y * torch.linspace(1, 2, len(y))[:, None]).sum().backward()
            report = session.report()
            assert report.encodings == (shifted if key_shift else fresh)
            assert report.encodings_without_key_shift == fresh


def test_micro_batches_share_an_encoded_weight_for_so_many_uses():
    model, x = nn.Sequential(nn.Linear(64, 64, dtype=torch.float64)), r(128, 64)
    with Session("cpu", weight_uses=4, unsafe_many_uses=True) as session, torch.no_grad():
        session.protect(model)
        for _ in range(9):
            model(x)
        assert session.report().encodings == 9 + 3


def encoded(uses, workers, rows):
    """Encodings of X and of W in four forward passes of so many rows."""
    model, x = nn.Sequential(nn.Linear(64, 64, dtype=torch.float64)), r(rows, 64)
    options = {"weight_uses": uses, "unsafe_many_uses": True}
    with Session(["cpu"] * workers, **options) as session, torch.no_grad():
        session.protect(model)
        for _ in range(4):
            model(x)
        return session.report().encodings


def test_no_two_operands_share_a_weight_by_default():
    assert Config().weight_uses == 1
    assert encoded(1, workers=1, rows=128) == 4 + 4


def test_pieces_of_an_operation_count_as_uses():
    """Two workers' shares have row keys of their own, so a pass is two uses; one that has more than there
    may be gets a W of its own, and no more than that."""
    assert encoded(4, workers=1, rows=128) == 4 + 1
    assert encoded(4, workers=2, rows=128) == 4 + 2
    assert encoded(3, workers=2, rows=128) == 4 + 4
    assert encoded(1, workers=2, rows=128) == 4 + 4


# ---- the report -----------------------------------------------------------------------------------


def test_the_report_says_what_ran_where_and_why():
    model = mlp()
    with Session("cpu") as session:
        empty = session.report()
        assert (empty.rows, empty.encodings, empty.offloaded_flops, empty.kept_flops) == ([], 0, 0, 0)
        assert "none" in str(empty)
        session.protect(model)
        step(model, r(128, 64))
        report = session.report()
    flops = 2 * 128 * 64 * 96
    first, second, last = report.rows
    assert (first.module, first.operation, first.shape) == ("0", "linear", "128x64 96x64")
    assert [(row.forward_flops, row.backward_flops) for row in (first, second)] == [(flops, 2 * flops)] * 2
    assert (last.offloaded, last.reason) == (False, "last weighted layer: its gradient gives away labels")
    assert min(report.bytes_sent, report.bytes_received) > 0
    assert all(seconds >= 0 for seconds in report.seconds.values())
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["offloaded_flops"] == report.offloaded_flops == 6 * flops
    text = str(report)
    for expected in ("last weighted layer", "encodings", "linear flops offloaded", "heuristic"):
        assert expected in text


# ---- workers that fail ----------------------------------------------------------------------------


@pytest.mark.security
@pytest.mark.parametrize("key_shift", [True, False])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("op", list(Op))
def test_a_lie_is_found_discarded_redone_and_told(op, scheme, key_shift):
    plain, x = mlp(), r(256, 64)
    want = step(plain, x)
    liar, honest = Scripted("liar"), Scripted("honest")
    with Session([liar, honest], scheme=scheme, key_shift=key_shift) as session:
        model = session.protect(copy.deepcopy(plain))
        close(step(model, x), want)
        liar.lie_about = op
        close(step(model, x), want)
        told = liar.told
        close(step(model, x), want)
        report = session.report()
    assert told == liar.told >= 1, "a quarantined worker is left alone"
    assert report.checks_failed == told
    assert report.quarantined == ["liar"]
    assert report.local_fallbacks == 0
    assert {"check_failed", "quarantined"} <= {event.kind.value for event in report.events}
    assert "INTEGRITY" in str(report)


@pytest.mark.security
@pytest.mark.parametrize("op", list(Op))
@pytest.mark.parametrize("fallback", [True, False])
def test_where_every_worker_lies_the_master_computes_or_says_so(op, fallback):
    plain, x = mlp(), r(256, 64)
    want = step(plain, x)
    liars = [Scripted("a"), Scripted("b")]
    for liar in liars:
        liar.lie_about = op
    with Session(liars, local_fallback=fallback) as session:
        model = session.protect(copy.deepcopy(plain))
        if fallback:
            close(step(model, x), want)
            close(step(model, x), want)
            assert session.report().local_fallbacks > 0
        else:
            with pytest.raises(NoWorkersLeft):
                step(model, x)
            assert model[0].weight.grad is None
        report = session.report()
    assert report.quarantined == ["a", "b"]
    assert report.checks_failed >= 2


@pytest.mark.security
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("op", list(Op))
def test_a_worker_lost_at_any_operation(op, scheme):
    plain, x = mlp(), r(256, 64)
    want = step(plain, x)
    lost, other = Scripted("lost"), Scripted("other")
    with Session([lost, other], scheme=scheme) as session:
        model = session.protect(copy.deepcopy(plain))
        close(step(model, x), want)
        lost.lose_at = op
        close(step(model, x), want)
        close(step(model, x), want)
        other.lose_at = op
        close(step(model, x), want)
        close(step(model, x), want)
        report = session.report()
    assert (report.checks_failed, report.quarantined) == (0, [])
    assert report.local_fallbacks > 0
    assert [event.worker for event in report.events if event.kind.value == "lost"] == ["lost", "other"]


@pytest.mark.security
def test_a_second_backward_survives_a_lie():
    plain, x = mlp(), r(256, 64)

    def twice(model):
        model.zero_grad()
        y = model(x)
        y.sum().backward(retain_graph=True)
        y.cos().sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    want = twice(plain)
    liar = Scripted("liar")
    with Session([liar, "cpu"]) as session:
        model = session.protect(copy.deepcopy(plain))
        liar.lie_about = Op.GRAD_W
        close(twice(model), want)
        assert session.report().quarantined == ["liar"]


@pytest.mark.security
def test_a_small_lie_is_found():
    """One entry, off by a hundredth of the largest, in float32: missed once in 100,000 runs or less."""
    model, x = nn.Sequential(nn.Linear(64, 64, bias=False)), torch.randn(128, 64)
    want = model(x).detach()

    class Subtle(Scripted):
        def run(self, job, ship, deadline):
            reply = self.device.run(job, ship, deadline).open_for_check().clone()
            reply[..., 5, 5] += reply.abs().amax() * 1e-2
            return Unverified(reply)

    with Session([Subtle("subtle")]) as session:
        got = session.protect(model)(x).detach()
        report = session.report()
    torch.testing.assert_close(got, want)
    assert (report.checks_failed, report.local_fallbacks) == (1, 1)


def test_worker_processes():
    plain, x = mlp(), r(256, 64)
    want = step(plain, x)
    with Session("local:2") as session:
        model = session.protect(copy.deepcopy(plain))
        for _ in range(2):
            close(step(model, x), want)
        report = session.report()
    assert (report.checks_failed, report.retries, report.local_fallbacks) == (0, 0, 0)
    # A busy machine may well have made a worker late.
    assert {event.kind.value for event in report.events} <= {"hedged"}
    assert report.bytes_received > 2 * 256 * (96 + 64) * 8
