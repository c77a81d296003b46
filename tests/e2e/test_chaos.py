"""Training on four workers in namespaces of their own while they are killed, stopped, cut off, slowed down,
corrupted and lie: the same losses, no step lost, nothing hangs, nothing grows, nothing is left behind."""

import os

import pytest

from tempo.chaos import ends
from tempo.chaos.judge import judge
from tempo.chaos.run import Settings, run
from tempo.chaos.schedule import Fault

pytestmark = pytest.mark.security


@pytest.mark.timeout(240)
def test_training_survives_chaos(tmp_path):
    outcome = run(Settings(seed=11, seconds=26, every=1.2), tmp_path, print)
    if os.environ.get("CI") == "true":
        assert outcome.network == "network namespaces"
    findings = list(judge(outcome))
    assert [each for each in findings if not each.passed] == []
    assert {"float64 curve", "float32 curve", "no step is lost", "memory do not grow"} <= {
        each.check for each in findings
    }
    assert {each["fault"] for each in outcome.done} == set(Fault)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", list(ends.How))
def test_a_master_that_ends_leaves_nothing_behind(how, tmp_path):
    assert [each for each in ends.judge(how, ends.end(how, tmp_path, seed=5)) if not each.passed] == []
