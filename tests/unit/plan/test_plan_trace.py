"""The plan sees what protect would send, and changes nothing of the model that it looks at."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from plan_figures import machine
from torch import nn

from tempo import Config, Session
from tempo.errors import UnsupportedError, UsageError
from tempo.plan import make_plan, trace
from tempo.plan.plan import NOTHING
from tempo.plan.trace import merged


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.block = nn.Conv2d(64, 64, 3, padding=1)
        self.down = nn.Conv2d(64, 64, 3, stride=2, padding=1)
        self.flat = nn.Linear(64 * 8 * 8, 128)
        self.attention = nn.MultiheadAttention(128, 2, batch_first=True)
        self.head = nn.Linear(128, 64)

    def forward(self, x):
        x = self.block(self.norm(self.stem(x)).relu()).relu()
        x = self.flat(self.down(x).flatten(1)).tanh()
        return self.head(self.attention(x, x, x)[0])


class Looks(nn.Module):
    """Its way depends on values: shapes alone cannot take it."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)
        self.one, self.other, self.head = nn.Linear(64, 64), nn.Linear(64, 128), nn.Linear(64, 64)

    def forward(self, x):
        x = self.norm(x) + torch.rand_like(x)
        layer = self.one if float(x.detach().sum()) > -1e9 else self.other
        return self.head(layer(x))


def batch(size=128):
    return torch.randn(size, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_what_is_planned_is_what_is_sent():
    torch.manual_seed(0)
    model, x = Net(), batch()
    found = trace(model, x, Config())
    with Session("cpu") as session:
        session.protect(model)
        model(x).square().mean().backward()
        rows = session.report().rows
    planned, sent = Counter(), Counter()
    for op in found.ops:
        planned[op.module, op.operation] += op.flops
    for row in rows:
        sent[row.module, row.operation] += row.forward_flops if row.offloaded else 0
    assert planned == +sent
    assert set(planned) == {
        *(("block", "winograd F(4,3)"), ("down", "im2col"), ("flat", "linear"), ("attention", "linear"))
    }
    stayed = {(r.module, r.operation, r.reason) for r in rows if not r.offloaded}
    assert {(k.module, k.operation, k.reason) for k in found.kept} == stayed
    assert {k.reason for k in found.kept} >= {"at most 4 input channels"}


def test_shapes_and_wanted_gradients():
    model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 64), nn.Linear(64, 64))
    first, second = trace(model, torch.zeros(512, 128), Config()).ops
    assert (first.operation, first.shape, first.flops) == ("linear", (1, 512, 128, 256), 2 * 512 * 128 * 256)
    assert (first.want_x, first.want_w) == (False, True)
    assert (second.want_x, second.want_w) == (True, True)
    assert second.step_flops == 3 * second.flops
    model[2].weight.requires_grad_(False)
    assert [op.want_w for op in trace(model, torch.zeros(512, 128), Config()).ops] == [True, False]
    served = trace(model, torch.zeros(512, 128), Config(), inference=True)
    assert not any(op.want_x or op.want_w for op in served.ops)
    assert served.ops[0].step_flops == served.ops[0].flops


@pytest.mark.parametrize("make", [Net, Looks])
def test_a_look_changes_nothing(make):
    torch.manual_seed(0)
    model = make()
    x = batch() if make is Net else torch.zeros(128, 64)
    assert model.norm.training
    before = {name: t.clone() for name, t in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    state, forwards = torch.get_rng_state(), [dict(m.__dict__) for m in model.modules()]
    assert trace(model, x, Config()).ops
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert ["forward" in m.__dict__ for m in model.modules()] == ["forward" in f for f in forwards]
    assert all(p.grad is None for p in model.parameters())


def test_a_model_that_looks_at_values_is_run():
    torch.manual_seed(0)
    assert [op.module for op in trace(Looks(), torch.zeros(128, 64), Config()).ops] == ["one"]


def test_keep_and_place():
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4)))
    x = torch.zeros(64, 64)
    assert [op.module for op in trace(model, x, Config(), keep=["1"]).ops] == ["0", "2"]
    never = trace(model, x, Config(), place={"*": "never", "2": "auto"})
    assert [op.module for op in never.ops] == ["2"]


def test_equal_operations_are_one_row():
    shared = nn.Linear(64, 64)
    model = nn.Sequential(nn.Linear(64, 64), shared, shared, nn.Linear(64, 64), nn.Linear(64, 64))
    x = torch.zeros(64, 64)
    found = trace(model, x, Config())
    rows = [(op.weight_shared, op.want_x, count, modules) for op, count, modules in merged(found.ops)]
    assert rows == [
        (False, False, 1, ["0"]),
        (False, True, 2, ["1", "3"]),
        (True, True, 1, ["1"]),
    ]


def test_fused_attention_is_counted():
    layer = nn.MultiheadAttention(128, 2, batch_first=True)
    x = torch.zeros(4, 32, 128)
    arguments = {"query": x, "key": x, "value": x, "need_weights": False}
    found = trace(layer, arguments, Config(), inference=True)
    (attention,) = [k for k in found.kept if k.operation == "attention"]
    assert attention.flops == 2 * 2 * 4 * 2 * 32 * 32 * 64


def test_what_cannot_be_planned():
    with pytest.raises(UnsupportedError, match="bfloat16"):
        trace(nn.Linear(64, 64).bfloat16(), torch.zeros(2, 64, dtype=torch.bfloat16), Config())
    with pytest.raises(UsageError, match="does not run on its example inputs"):
        trace(nn.Linear(64, 64), torch.zeros(2, 65), Config())


# ---- the plan of a trace -----------------------------------------------------------------------------------


def test_totals_add_up():
    model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(4)))
    found = trace(model, torch.zeros(1024, 256), Config())
    slow_tee, quick_tee = machine(flops=1e9), machine(flops=1e13)
    sends = make_plan(found, slow_tee, Config())
    assert [r.offload for r in sends.rows] == [True, True]
    assert [r.count for r in sends.rows] == [1, 2]
    totals = sends.totals()
    parts = sum(r.count * r.cost.tempo_seconds for r in sends.rows)
    kept = sum(k.seconds for k in sends.kept)
    assert totals["tempo_seconds"] == pytest.approx(parts + kept + sends.other_seconds)
    assert totals["bytes_up"] == sum(r.count * r.cost.bytes_up for r in sends.rows)
    assert totals["flops"] == 2 * 1024 * 256 * 256 * (2 + 3 + 3 + 3)
    assert totals["worker_peak_bytes"] > 3 * 4 * 1024 * 256
    stays = make_plan(found, quick_tee, Config())
    assert not any(r.offload for r in stays.rows)
    assert stays.totals()["speedup_over_tee"] == pytest.approx(1.0)
    assert (stays.bytes_up, stays.tee_peak_bytes, stays.worker_peak_bytes) == (0, 0, 0)
    assert all(r.leakage == NOTHING for r in stays.rows)
    assert all(r.visible == () and r.fields()["leakage_class"] == "nothing" for r in stays.rows)
    forced = make_plan(found, quick_tee, Config(), default="always")
    fields = [r.fields() for r in forced.rows]
    assert all("spectrum" in f["visible"] and f["leakage_class"] == "invariants" for f in fields)
    assert all(r.offload and "mixed in secret bases" in r.leakage for r in forced.rows)
    assert forced.tempo_seconds > forced.tee_seconds
    never = make_plan(found, slow_tee, Config(), default="never")
    assert never.tempo_seconds == pytest.approx(never.tee_seconds)
