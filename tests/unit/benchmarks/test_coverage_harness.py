"""benchmarks/coverage judges rightly: a wrong gradient fails, a refusal keeps its reason, flops are
PyTorch's."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.coverage.judge import (
    FAIL,
    NOT_RUN,
    PASS,
    REFUSED,
    UNITS,
    Verdict,
    _compare,
    judge,
    moved,
    multiplies_in_float32,
)
from benchmarks.coverage.page import page
from benchmarks.coverage.pool import one, read, run
from benchmarks.coverage.subject import NotRunnableError, Recipe


class Net(nn.Module):
    """error: of the gradient, and of nothing else, once the model is protected. only32: it refuses
    float64. rounds: to float32 on the way."""

    def __init__(self, error=0.0, only32=False, rounds=False):
        super().__init__()
        self.first = nn.Linear(16, 24)
        self.second = nn.Linear(24, 24)
        self.norm = nn.BatchNorm1d(24)
        self.last = nn.Linear(24, 4)
        self.error, self.only32, self.rounds = error, only32, rounds

    def forward(self, x):
        if self.only32 and x.dtype == torch.float64:
            raise RuntimeError("expected float")
        y = self.first(x)
        if "forward" in self.__dict__:
            y = y * (1 + self.error) - (y * self.error).detach()
        y = torch.softmax(self.second(y.float().to(y.dtype) if self.rounds else y), -1)
        return self.last(self.norm(y))


class Mapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x):
        return torch.vmap(self.linear)(x)


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.deep = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=8)

    def forward(self, x):
        return self.deep(self.wide(x))


def recipe(make, *shape, name="x"):
    inputs = {name: torch.randn(*shape, generator=torch.Generator().manual_seed(1))}
    return Recipe("planted", "net", make.__name__, make, inputs)


def net(**options):
    def make():
        return Net(**options)

    return recipe(make, 32, 16)


def test_an_honest_model_passes_in_float64():
    verdict = judge(net())
    assert (verdict.status, verdict.reason, verdict.compared) == (PASS, "", "float64")
    assert 0 < verdict.worst < 0.01


@pytest.mark.parametrize("error", [1e-7, 1e-3])
def test_a_wrong_gradient_fails_by_name(error):
    verdict = judge(net(error=error))
    assert verdict.status == FAIL
    assert verdict.worst > 1
    assert "first" in verdict.reason


def test_a_model_that_refuses_float64_is_held_to_the_derived_bound():
    verdict = judge(net(only32=True))
    assert (verdict.status, verdict.compared) == (PASS, "rounding bound")
    assert judge(net(only32=True, error=1e-3)).status == FAIL


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_yardstick_moves_every_weight_by_a_rounding(dtype):
    """Not by none: 1 + 2^-36 is 1 in float32."""
    before, after = Net().to(dtype), Net().to(dtype)
    after.load_state_dict(before.state_dict())
    moved(after)
    for p, q in zip(before.parameters(), after.parameters(), strict=True):
        off = (q.double() - p.double()).abs() / p.double().abs().clamp_min(1e-30)
        own = (p != 0) & (p != 1)  # in float32 half of the ones round back: a tie
        assert bool((off[own] > 0.5 * UNITS[dtype]).all())
        assert bool((off <= 2.001 * UNITS[dtype]).all())


def test_a_model_that_rounds_is_held_to_what_a_rounding_does():
    verdict = judge(net(rounds=True))
    assert verdict.status == PASS
    assert judge(net(rounds=True, error=1e-3)).status == FAIL


class Routed(nn.Module):
    """A router in float32, as of switch transformers."""

    def __init__(self, error=0.0):
        super().__init__()
        self.router, self.first, self.last = nn.Linear(16, 4), nn.Linear(16, 4), nn.Linear(4, 4)
        self.error = error

    def forward(self, x):
        weight, bias = self.router.weight.float(), self.router.bias.float()
        scores = torch.softmax(nn.functional.linear(x.float(), weight, bias), -1).to(x.dtype)
        if "forward" in self.__dict__:
            scores = scores * (1 + self.error) - (scores * self.error).detach()
        return self.last(scores * self.first(x))


@pytest.mark.parametrize(("error", "status"), [(0.0, PASS), (1e-3, FAIL)])
def test_products_in_float32_are_held_in_float32(error, status):
    assert multiplies_in_float32(recipe(Routed, 32, 16))
    assert not multiplies_in_float32(net())
    assert judge(replace(recipe(Routed, 32, 16), make=lambda: Routed(error))).status == status


class Infinite(nn.Module):
    """Scores of masked positions are minus infinity, as detectors give them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 24), nn.Linear(24, 4)

    def forward(self, x):
        mask = torch.zeros(4, dtype=torch.bool)
        mask[1] = True
        return self.last(self.first(x)).masked_fill(mask, float("-inf"))


def test_scores_of_what_is_masked_have_no_part_in_the_loss():
    assert judge(recipe(Infinite, 8, 16)).status == PASS


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.last = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        q = self.project(x)
        return self.last(nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=1e-9))


def test_little_is_sent_for_attentions_sake_and_then_it_is_asked_for():
    verdict = judge(recipe(Attending, 2, 4, 64, 8))
    assert verdict.status == PASS
    assert "attention: attention: a softmax stands between its two products" in verdict.kept
    assert verdict.with_attention_flops is not None
    assert verdict.with_attention_flops > 2 * verdict.offloaded_flops


@pytest.mark.parametrize(("mine", "plain"), [(float("nan"), 1.0), (float("inf"), 1.0), (0.0, float("nan"))])
def test_what_is_no_number_in_one_of_the_two_alone_differs(mine, plain):
    """Whatever agrees after it."""
    one, other = ({"loss": torch.ones(1), "w": torch.tensor([v]), "z": torch.ones(1)} for v in (mine, plain))
    assert _compare(one, other, None, torch.float64) == (float("inf"), "w")
    assert _compare(one, other, other, torch.float64) == (float("inf"), "w")
    assert _compare(one, one, None, torch.float64)[0] == 0


def test_a_refusal_keeps_its_reason_and_its_remedy():
    verdict = judge(recipe(Mapped, 4, 16, name="x"))
    assert verdict.status == REFUSED
    assert "torch.func" in verdict.reason
    assert "Instead: " in verdict.reason


def test_flops_are_those_of_pytorchs_counter():
    subject = net()
    with FlopCounterMode(display=False) as counter:
        subject.loss(subject.model(torch.float64), torch.float64).backward()
    verdict = judge(subject)
    assert verdict.counted_flops == counter.get_total_flops() > 0
    assert verdict.unlisted_flops == 0
    assert verdict.offloaded_flops + sum(verdict.kept.values()) == verdict.counted_flops
    rows, each = 32, 2
    assert verdict.offloaded_flops == each * rows * (2 * 16 * 24 + 3 * 24 * 24)
    assert verdict.kept == {
        "linear: last weighted layer: its gradient gives away labels": 3 * each * rows * 24 * 4
    }


def test_the_counters_fault_with_grouped_convolutions_is_put_right():
    verdict = judge(recipe(Grouped, 2, 8, 9, 9))
    (reason,) = verdict.kept
    rows = 2 * 5 * 5
    assert "depthwise" in reason or "last weighted" in reason
    assert verdict.kept[reason] == 3 * 2 * rows * 9 * 8
    assert verdict.unlisted_flops == 0


def test_what_plain_pytorch_does_not_run_is_no_verdict_on_tempo():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            return self.linear(x)

    with pytest.raises(NotRunnableError, match="plain PyTorch"):
        judge(recipe(Broken, 4, 16))


def in_a_process(family):
    """Found by name in the processes of the pool."""
    if family == "slow":
        time.sleep(600)
    if family == "dead":
        os._exit(3)
    return replace(net(), family=family)


def test_the_pool_survives_and_goes_on_where_it_was(tmp_path):
    out, said = tmp_path / "found.jsonl", []
    limits = {
        "jobs": 2,
        "seconds": 10.0,
        "gigabytes": 8.0,
        "say": said.append,
        "preload": "benchmarks.coverage.judge",
    }
    known = one(in_a_process, "planted", "known").to_dict()
    out.write_text(json.dumps(known) + "\n")
    run("planted", in_a_process, ["known", "good", "dead"], out, **limits)
    found = {row["family"]: row for row in read(out)}
    assert found["good"]["status"] == PASS
    assert (found["dead"]["status"], found["dead"]["reason"]) == (NOT_RUN, "the process ended with 3")
    assert len(said) == 2
    assert list(tmp_path.iterdir()) == [out]


def test_the_pool_ends_what_takes_too_long(tmp_path):
    out = tmp_path / "found.jsonl"
    limits = {"jobs": 1, "seconds": 1.0, "gigabytes": 8.0, "say": lambda text: None, "preload": "torch"}
    run("planted", in_a_process, ["slow"], out, **limits)
    assert read(out)[0]["reason"] == "takes more than 1 s"


def test_the_page_counts_what_the_rows_say():
    def row(family, status, offloaded=0, kept=None, reason="", attention=None):
        flops = {"offloaded_flops": offloaded, "kept": kept or {}, "with_attention_flops": attention}
        return Verdict("lib", family, family, status, reason, parameters=1000, **flops).to_dict()

    text = page(
        [
            row("good", PASS, 90, {"conv: depthwise": 10}),
            row("low", PASS, 40, {"matmul: product of two activations": 60}, attention=85),
            row("bad", FAIL, 90, reason="first.weight differs"),
            row("no", REFUSED, reason="an x | y. Instead: do z."),
            row("lost", NOT_RUN, reason="needs more"),
        ],
        {"lib": 7},
    )
    assert "| lib | 7 | 5 | 4 | 2 | 1 | 1 | 50.0 % | 25.0 % | 50.0 % |" in text
    assert "cut short**: 2 families were not judged" in text
    assert "| lib | `bad` | first.weight differs |" in text
    assert "| lib | `no` | an x / y. Instead: do z. |" in text
    assert "| lib | `low` | 40.0 % | 85.0 % | matmul: product of two activations (60.0 %) |" in text
    assert "| lib | `lost` | needs more |" in text
