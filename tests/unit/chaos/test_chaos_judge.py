"""The judge of a chaos run finds each thing that must not be: it cannot pass whatever happens."""

import pytest

from tempo.chaos.judge import judge
from tempo.chaos.orders import End, Step
from tempo.chaos.run import Outcome, Settings
from tempo.chaos.training import DTYPES, curve

COUNT = 40
LIE = {"fault": "lie", "done_at": 1.0, "undone_at": 2.0, "seconds": 1.0, "failed": ""}
FIGURES = {"bytes_received": 10**7, "checks": 900, "checks_failed": 1, "retries": 1, "local_fallbacks": 0}

#: Connections replaced; failures, with a model that advanced, in the log, there behind their checkpoint.
NOTHING = (0, 3, 0, 3, 0)


@pytest.fixture(scope="module")
def curves():
    return {name: curve(1, dtype, COUNT) for name, dtype in DTYPES.items()}


@pytest.fixture
def steps(curves):
    return [
        Step(n + 1, 0.1 * n, 0.1, {name: curves[name][n] for name in curves}, 300 << 20, 5, 9)
        for n in range(COUNT)
    ]


def outcome(steps, **changes):
    out = Outcome(Settings(), [], steps=steps, done=[dict(LIE)])
    out.end = End(COUNT, dict(FIGURES), {"lost": 1}, *NOTHING)
    for name, value in changes.items():
        setattr(out, name, value)
    return out


def failed(out):
    return [finding.check for finding in judge(out) if not finding.passed]


def changed(steps, number, **fields):
    import msgspec

    return [msgspec.structs.replace(s, **fields) if s.number == number else s for s in steps]


def test_a_good_run_passes(steps):
    assert failed(outcome(steps)) == []


@pytest.mark.parametrize("name", list(DTYPES))
def test_a_loss_just_outside_its_bound(steps, name):
    """1e-9 in float64; in float32 what docs/numerics.md allows is below 1e-4 here."""
    far = {"float64": 1.01e-9, "float32": 1e-4}[name]
    wrong = {**steps[20].losses, name: steps[20].losses[name] + far}
    assert failed(outcome(changed(steps, 21, losses=wrong))) == [f"{name} curve"]


def test_a_loss_just_inside(steps):
    right = {**steps[20].losses, "float64": steps[20].losses["float64"] + 0.99e-9}
    assert failed(outcome(changed(steps, 21, losses=right))) == []


@pytest.mark.parametrize("name", list(DTYPES))
def test_a_loss_that_is_no_number(steps, name):
    wrong = {**steps[20].losses, name: float("nan")}
    assert failed(outcome(changed(steps, 21, losses=wrong))) == [f"{name} curve"]


def test_a_lost_update(curves, steps):
    """Each loss from there on is that of the step before."""
    late = [
        Step(s.number, s.at, s.seconds, {n: curves[n][max(0, i - (i > 9))] for n in curves}, s.rss, 5, 9)
        for i, s in enumerate(steps)
    ]
    assert failed(outcome(late)) == ["float64 curve", "float32 curve"]


def test_a_step_that_was_not_reported(steps):
    assert "no step is lost" in failed(outcome(steps[:-1]))


def test_a_step_that_takes_longer_than_its_deadlines(steps):
    # One fault of a liar in force, whose process is found again: 1 s quiet and one deadline of 2 s.
    assert failed(outcome(changed(steps, 15, seconds=3.05))) == ["nothing hangs past its deadline"]
    assert failed(outcome(changed(steps, 15, seconds=2.9))) == []


@pytest.mark.parametrize(
    ("what", "field", "each"),
    [("threads", "threads", 1), ("descriptors", "descriptors", 1), ("memory", "rss", 1 << 20)],
)
def test_growth(steps, what, field, each):
    import msgspec

    grown = [msgspec.structs.replace(s, **{field: getattr(s, field) + each * s.number}) for s in steps]
    assert failed(outcome(grown)) == [f"{what} do not grow"]


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"failure": "it hangs"}, "it came to its end"),
        ({"left": 1}, "no process is left"),
        ({"done": [{**LIE, "failed": "the proxy is gone"}]}, "every fault was done and undone"),
        ({"done": []}, "faults were done"),
        ({"end": End(COUNT, {**FIGURES, "checks_failed": 0}, {"lost": 1}, *NOTHING)}, "lies were caught"),
        ({"end": End(COUNT, {**FIGURES, "bytes_received": 0}, {"lost": 1}, *NOTHING)}, "workers computed"),
        ({"end": End(COUNT, FIGURES, {"lost": 1}, 0, 3, 1, 3, 0)}, "no model advanced on a failure"),
        ({"end": End(COUNT, FIGURES, {"lost": 1}, 0, 3, 0, 3, 1)}, "the audit log is not ahead of a failure"),
        ({"end": End(COUNT, FIGURES, {"lost": 1}, 0, 3, 0, 2, 0)}, "the audit log holds every failure"),
        ({"end": End(COUNT, FIGURES, {}, *NOTHING)}, "workers were lost, and came back"),
    ],
)
def test_each_other_failure(steps, changes, check):
    assert failed(outcome(steps, **changes)) == [check]


def test_a_run_without_steps_says_why():
    out = outcome([], failure="the master was silent")
    assert failed(out) == ["it came to its end"]
