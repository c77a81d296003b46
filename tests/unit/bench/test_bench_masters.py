"""Suite scale, several masters: real processes under torchrun once, and what is made of their figures."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tempo.bench import masters, masters_rows, one_master, scale
from tempo.bench.budget import Budget
from tempo.bench.crew import Crew
from tempo.bench.figures import draw
from tempo.bench.masters import Runs, Training, divided
from tempo.bench.one_master import Found, Trained
from tempo.bench.report import markdown, masters_table, short_table
from tempo.bench.result import SCALE_FIELDS, Result
from tempo.bench.timing import Spread
from tempo.bench.variant import variants
from tempo.cli.output import document, to_json
from tempo.errors import OutsideError, UsageError
from tempo.masters import traffic

TINY = Training(rows=256, width=96, layers=2, steps=4, repeats=1)
CREW = Crew.parse("cpu")
(MIXING,) = variants("mixing")


def quietly(_):
    pass


@pytest.fixture(scope="module")
def runs():
    return masters.run(TINY, CREW, MIXING, Budget(), quietly, 1e11)


@pytest.mark.timeout(280)
def test_two_masters_train_what_one_trains_and_plain_pytorch_too(runs):
    result = Result("scale", SCALE_FIELDS)
    masters_rows.add(result, runs, CREW, MIXING)
    assert result.broken == []
    one, two = result.extra["masters"]
    assert (one["masters"], two["masters"]) == (1, 2)
    for each in (one, two):
        assert each["loss_difference_over_allowed"] <= 1
        assert each["own_efficiency"] == pytest.approx(each["own_ideal_seconds"] / each["own_seconds"])
    losses = result.extra["losses"]
    assert len(losses) == TINY.steps
    for row in losses:
        assert row["masters_1"] == pytest.approx(row["masters_2"], rel=1e-5)
    assert losses[-1]["tee_only"] < losses[0]["tee_only"]
    for ranks in runs.found.values():
        for rank in ranks:
            assert rank.checks > 0
            assert rank.failed == 0
    first, second = runs.found[2]
    assert first.trained.losses == second.trained.losses
    # Each sends 2 (n - 1) / n = 1 times the gradients in a step, in float32; frames and seals are extra.
    gradients = 4 * sum(p.numel() for p in one_master.build(runs.plan).parameters())
    assert gradients < two["exchange_bytes_each"] < 1.05 * gradients + 4096


def test_rows_hold_and_are_shown_written_and_drawn(runs, tmp_path):
    result = Result("scale", SCALE_FIELDS)
    masters_rows.add(result, runs, CREW, MIXING)
    modes = [(row["mode"], row["arithmetic"], row["masters"]) for row in result.rows]
    assert modes == [
        ("tee-only", "fp32", 1),
        ("tee-only", "bf16", 1),
        ("tempo", "fp32", 1),
        ("tempo", "fp32", 2),
    ]
    for row in result.rows:
        assert list(row) == list(SCALE_FIELDS)
        assert row["phase"] == "masters"
        assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
        assert row["master_cpu_seconds"] > 0
        assert row["samples_per_second"] == pytest.approx(TINY.rows / row["seconds"])
    fastest = min(row["seconds"] for row in result.rows[:2])
    for row in result.rows:
        assert row["speedup_over_tee_only"] == pytest.approx(fastest / row["seconds"])
    one, two = result.rows[2:]
    assert (one["exchange_bytes"], one["exchange_seconds"]) == (0, 0)
    assert two["exchange_seconds"] > 0
    assert two["bytes"] > one["bytes"], "every master sends the weights"
    assert scale.efficiency(result.rows) == [], "these have a table of their own"
    fields = document("bench scale", result.rows, **result.more())
    to_json(fields)
    text = markdown(fields, result, [])
    assert "## Masters" in text
    assert "## Losses" in text
    for titles, cells in (short_table(result), masters_table(result)):
        assert cells
        assert all(len(row) == len(titles) for row in cells)
    pytest.importorskip("matplotlib")
    pictures = draw(result, tmp_path)
    assert [path.name for path in pictures] == ["bench-scale.png", "bench-scale-masters.png"]
    assert all(path.stat().st_size > 5000 for path in pictures)


def found(own, seconds, losses, plain=None, exchange=0.0, failed=0):
    trained = Trained(losses, Spread(seconds, seconds, seconds, 3), seconds / 2, 100.0, 100.0)
    return Found(trained, own, 0.0, 1000.0, exchange, 7, failed, plain or {})


def made(two_losses=(2.0, 1.5), failed=0):
    def trained(losses):
        return Trained(losses, Spread(1.0, 1.0, 1.0, 3), 1.0, 0.0, 0.0)

    plain = {
        "fp32": trained([2.0, 1.5]),
        "bf16": trained([2.01, 1.49]),
        "fp64": trained([2.000001, 1.500001]),
    }
    one = found(6.0, 8.0, [2.0, 1.5], plain)
    two = [
        found(3.5, 5.0, list(two_losses), exchange=0.25),
        found(3.0, 4.5, list(two_losses), exchange=0.5, failed=failed),
    ]
    return Runs(TINY.plan(CREW, MIXING), {1: [one], 2: two})


def test_the_slowest_master_and_its_exchange_count():
    result = Result("scale", SCALE_FIELDS)
    masters_rows.add(result, made(), CREW, MIXING)
    _, two = result.extra["masters"]
    assert (two["seconds"], two["ideal_seconds"], two["efficiency"]) == (5.0, 4.0, 0.8)
    assert (two["own_seconds"], two["own_ideal_seconds"], two["own_efficiency"]) == (4.0, 3.0, 0.75)
    assert (two["cpu_seconds"], two["cpu_efficiency"]) == (2.5, 0.8)
    assert result.broken == []


def test_another_curve_and_failed_checks_are_broken_promises():
    for runs, says in ((made((2.0, 1.4)), "as far from plain"), (made(failed=2), "2 checks of honest")):
        result = Result("scale", SCALE_FIELDS)
        masters_rows.add(result, runs, CREW, MIXING)
        (broken,) = result.broken
        assert says in broken


def test_cores_are_divided_evenly_or_not_at_all():
    assert divided([0, 1, 2, 3, 4], 2) == [[0, 1], [2, 3]]
    assert divided([3], 2) == []


def test_what_does_not_fit_the_budget_is_said():
    budget = Budget(1.0)
    assert masters.run(TINY, CREW, MIXING, budget, quietly, 1e11) is None
    assert [each["what"] for each in budget.skipped] == ["1 and 2 masters, mixing, workers cpu each"]


ENDED = """W1123 torchrun: a warning: of something
[rank1]: Traceback (most recent call last):
[rank1]:   File "join.py", line 3, in join
[rank1]:     raise RefusedError(
[rank1]: tempo.errors.RefusedError: master 0 was refused at step 3: another measurement
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""


def test_masters_that_end_badly_are_an_error_with_their_own_words(monkeypatch):
    assert masters.said(ENDED) == "RefusedError: master 0 was refused at step 3: another measurement"
    assert masters.said("killed") == "killed"
    monkeypatch.setattr(masters.sys, "executable", "/bin/false")
    with pytest.raises(OutsideError, match="1 masters ended with an error: they said nothing"):
        masters.run(TINY, CREW, MIXING, Budget(), quietly, 1e11)


def test_no_master_outlives_a_run_that_hangs(monkeypatch, tmp_path):
    """Here each waits for somebody to write the plan."""
    os.mkfifo(tmp_path / one_master.PLAN)
    monkeypatch.setattr(masters, "_HANGS_S", 60.0)

    def running():
        found = Path("/proc").glob("[0-9]*/cmdline")
        words = []
        for path in found:
            with suppress(OSError):  # it ended meanwhile
                words.append(path.read_bytes())
        return [each for each in words if b"one_master" in each and bytes(tmp_path) in each]

    def hang(process, **_):
        deadline = time.monotonic() + 60
        while len(running()) < 3 and time.monotonic() < deadline:  # torchrun and two masters
            time.sleep(0.1)
        raise subprocess.TimeoutExpired("torchrun", 60)

    monkeypatch.setattr(subprocess.Popen, "communicate", hang)
    with pytest.raises(OutsideError, match="2 masters did not end within 60 s"):
        masters._torchrun(tmp_path, 2, 1)
    assert running() == []


def test_each_master_has_its_own_rows_of_the_same_batch():
    plan = TINY.plan(CREW, MIXING)
    whole, labels = one_master.batch(plan, 3, 0, 1, torch.float32)
    parts = [one_master.batch(plan, 3, rank, 2, torch.float32) for rank in range(2)]
    assert torch.equal(torch.cat([x for x, _ in parts]), whole)
    assert torch.equal(torch.cat([y for _, y in parts]), labels)
    assert not torch.equal(one_master.batch(plan, 4, 0, 1, torch.float32)[0], whole)


def test_cpu_seconds_are_those_of_steps(monkeypatch):
    """Every master draws the whole batch, which would count as work that more masters do not divide."""

    def slow(*given):
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        return drawn(*given)

    drawn = one_master.batch
    monkeypatch.setattr(one_master, "batch", slow)
    plan = TINY.plan(CREW, MIXING)
    assert one_master.train(plan, one_master.build(plan), 0, 1).cpu_seconds < 0.1


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = TINY.plan(CREW, MIXING)
    plan.write(tmp_path)
    assert one_master.Plan.read(tmp_path) == plan
    assert plan.cores == divided(sorted(os.sched_getaffinity(0)), 2)


def test_flops_are_those_that_pytorch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    plan = TINY.plan(CREW, MIXING)
    x, labels = one_master.batch(plan, 0, 0, 1, torch.float32)
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(one_master.build(plan)(x), labels).backward()
    assert plan.flops == counter.get_total_flops()


def test_there_is_no_traffic_before_masters_joined():
    with pytest.raises(UsageError, match="join"):
        traffic()
