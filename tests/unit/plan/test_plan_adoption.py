"""Break-even prices and the stages of adoption, from round figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plan_figures import machine, op

from tempo.config import Config
from tempo.plan.adoption import MARGIN, MET, NOT_MET, OPEN, Facts, adoption
from tempo.plan.breakeven import break_even
from tempo.plan.measure import Comparison
from tempo.plan.money import Prices, epoch_costs
from tempo.plan.plan import make_plan
from tempo.plan.trace import Trace

PRICES = Prices(
    currency="EUR", tee_per_hour=3.0, gpu_per_hour=2.0, confidential_gpu_per_hour=9.0, egress_per_gb=0.5
)
#: An epoch: ten hours in the TEE, two under Tempo with two workers, half an hour on a GPU; 4 GB sent.
STEPS, HOUR = 100, 3600.0
GIGABYTES = 4.0


def options(prices=PRICES, *, tempo_hours=2.0):
    return epoch_costs(
        prices,
        samples=STEPS * 10,
        batch=10,
        tee_step_seconds=10 * HOUR / STEPS,
        tempo_step_seconds=tempo_hours * HOUR / STEPS,
        step_flops=int(0.5 * HOUR / STEPS * 1e9),
        step_bytes=int(GIGABYTES * 1e9 / STEPS),
        workers=2,
        worker_flops_per_second=1e9,
    )


def points(prices=PRICES, **given):
    made = break_even(prices, options(prices, **given), workers=2, epoch_bytes=GIGABYTES * 1e9)
    return {even.name: even for even in made}


def cost_of(prices, name="tempo", **given):
    return next(o.cost for o in options(prices, **given) if o.name == name)


def test_at_the_break_even_price_both_cost_the_same():
    found = points()
    # (3 + 2 g) 2 + 0.5 4 = 3 10, so g = 5.5
    assert found["gpu_per_hour"].price == pytest.approx(5.5)
    for name in ("gpu_per_hour", "egress_per_gb"):
        there = replace(PRICES, **{name: found[name].price})
        assert cost_of(there) == pytest.approx(cost_of(there, "tee-only"))
    there = replace(PRICES, confidential_gpu_per_hour=found["confidential_gpu_per_hour"].price)
    assert cost_of(there) == pytest.approx(cost_of(there, "confidential-gpu"))


def test_whose_side_the_users_prices_are_on():
    found = points()
    assert found["gpu_per_hour"].favours_tempo is True
    assert found["confidential_gpu_per_hour"].favours_tempo is False  # half an hour at 9 costs less than 16
    dear = points(replace(PRICES, gpu_per_hour=5.6))
    assert dear["gpu_per_hour"].favours_tempo is False
    # (3 + 2 2) 2 + 4 0.5 = 16 against 30: each of eight hours saved brings 1.75.
    assert found["hour_saved"].price == pytest.approx((16 - 30) / 8)
    assert found["protection"].price == pytest.approx(16 - 0.5 * 2)


def test_at_no_price():
    assert points(tempo_hours=11.0)["gpu_per_hour"].price is None
    assert points(tempo_hours=11.0)["gpu_per_hour"].favours_tempo is False
    assert "hour_saved" not in points(tempo_hours=11.0)


def test_without_prices_there_are_no_points():
    assert points(Prices()) == {}
    assert set(points(Prices(tee_per_hour=3.0))) == {"gpu_per_hour"}
    assert points(Prices(tee_per_hour=3.0))["gpu_per_hour"].favours_tempo is None
    assert break_even(PRICES, options(), workers=0, epoch_bytes=0.0) == []
    assert break_even(PRICES, [], workers=2, epoch_bytes=1.0) == []


def facts(**changes):
    trace = Trace((op(4096, 1024, 1024),), (), 0, 1, True)
    plan = make_plan(trace, machine(), Config(), default="always")
    given = {
        "model": "m",
        "plan": plan,
        "scheme": "mixing",
        "inference": False,
        "wire": "fp32",
        "arithmetic": "fp32",
        "leakage_class": "invariants",
        "batch": 10,
        "samples": STEPS * 10,
        "epochs": 3,
        "options": options(),
        "even": break_even(PRICES, options(), workers=2, epoch_bytes=GIGABYTES * 1e9),
        "comparisons": [],
    }
    return Facts(**{**given, **changes})


def criteria(**changes):
    return {c.name: c for stage in adoption(facts(**changes)) for c in stage.criteria}


def test_three_stages_in_their_order():
    assert [stage.name for stage in adoption(facts())] == ["pilot", "standardise", "routine"]
    assert all(len(stage.criteria) >= 4 for stage in adoption(facts()))
    fields = adoption(facts())[0].fields()
    assert set(fields["criteria"][0]) == {"name", "values", "command", "state"}


def test_limits_are_the_users_own_figures():
    found, given = criteria(), facts()
    predicted = given.plan.tempo_seconds
    assert found["speed"].values["limit_seconds"] == pytest.approx(MARGIN * predicted)
    assert found["accuracy_epoch"].values["steps_count"] == STEPS
    assert found["pilot_cost"].values["limit_cost"] == pytest.approx(MARGIN * 3 * 16)
    assert found["gpu_price"].values["limit_price"] == pytest.approx(5.5)
    assert found["alternative"].values["limit_price"] == pytest.approx(32.0)  # 16 in half an hour
    assert found["leakage"].values["leakage_class"] == "invariants"
    # 300 trials without a miss: at 1 % each, a miss would have shown with 95 %.
    assert 0.04 < (1 - found["lies"].values["missed_share"]) ** found["lies"].values["lies_count"] < 0.05


@pytest.mark.parametrize(
    ("scheme", "inference", "command"),
    [
        ("mixing", False, "tempo plan m --batch 10 --scheme mixing --measure"),
        ("monomial", True, "tempo plan m --batch 10 --scheme monomial --inference --measure"),
        ("shares", False, "session.report()"),  # --measure refuses it
    ],
)
def test_the_command_measures_what_was_planned(scheme, inference, command):
    assert criteria(scheme=scheme, inference=inference)["speed"].command == command


def test_the_command_measures_in_the_numbers_that_were_planned():
    command = "tempo plan m --batch 10 --scheme mixing --wire bf16 --measure"
    assert criteria(wire="bf16")["speed"].command == command
    command = "tempo plan m --batch 10 --scheme mixing --inference --arithmetic tf32 --measure"
    assert criteria(arithmetic="tf32", inference=True)["speed"].command == command


def test_what_the_plan_can_tell_is_told():
    found = criteria()
    assert found["gpu_price"].state == MET
    assert found["alternative"].state == NOT_MET
    assert found["attacks"].state == OPEN
    gain = facts().plan.tee_seconds / facts().plan.tempo_seconds
    assert found["pays"].state == (MET if gain > 1 else NOT_MET)
    slow = make_plan(
        Trace((op(4096, 64, 64),), (), 0, 1, True), machine(flops=1e14), Config(), default="always"
    )
    assert criteria(plan=slow)["pays"].state == NOT_MET


@pytest.mark.parametrize(("times", "state"), [(1.29, MET), (1.31, NOT_MET)])
def test_a_measured_step_decides(times, state):
    measured = Comparison("tempo step", 1.0, times * facts().plan.tempo_seconds)
    found = criteria(comparisons=[measured])
    assert found["speed_measured"].state == state
    assert "speed" not in found


def test_what_was_not_given_is_asked_for():
    found = criteria(samples=None, epochs=None, options=[], even=[])
    assert "--samples" in found["cost_unknown"].command
    assert not {"pilot_cost", "epoch_cost", "gpu_price", "alternative", "routine_cost"} & set(found)
    assert found["accuracy"].values == {}
    assert "epoch_cost" in criteria(epochs=None)
    assert "gpu_never" in criteria(
        even=break_even(PRICES, options(tempo_hours=11.0), workers=2, epoch_bytes=1.0)
    )
