"""The schedule follows from its seed alone, and does to no worker two things at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo.chaos.schedule import Fault, draw
from tempo.errors import UsageError
from tempo.worker import Lie


@given(seed=st.integers(0, 2**40), workers=st.integers(1, 8), seconds=st.floats(1, 300))
def test_same_seed_same_schedule(seed, workers, seconds):
    found = draw(seed, workers, seconds)
    assert found == draw(seed, workers, seconds)
    assert all(0 <= each.at < seconds and 0 <= each.worker < workers for each in found)
    assert [each.at for each in found] == sorted(each.at for each in found)
    for worker in range(workers):
        mine = [each for each in found if each.worker == worker]
        assert all(a.at + a.seconds < b.at for a, b in zip(mine, mine[1:]))
    for each in found:
        assert bool(each.lie) == (each.fault is Fault.LIE)
        assert (each.amount > 0) == (each.fault in (Fault.DELAY, Fault.THROTTLE, Fault.CORRUPT))
        if each.lie:
            Lie.parse(each.lie)


def test_seeds_differ():
    assert draw(1, 4, 60) != draw(2, 4, 60)


def test_every_fault_comes_up():
    for seed in range(20):
        assert {each.fault for each in draw(seed, 4, 60)} == set(Fault)


@pytest.mark.parametrize("arguments", [(1, 0, 5.0), (1, 2, 0.0)])
def test_refused(arguments):
    with pytest.raises(UsageError):
        draw(*arguments)
