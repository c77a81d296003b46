"""A weak attack proves nothing by failing, and one that cries wolf proves nothing by succeeding.

Each attack succeeds on a leak that was planted for it, and on noise of the same shapes the verdict is
hardly ever "leaks". A 95 % interval lies above chance by luck in one case of forty; the allowance is what so
many cases exceed once in a thousand runs, so that the test itself cries wolf as seldom.
"""

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from planted_cases import CASES, Case, blinded
from scipy import stats

import tempo.attacks
from tempo.attacks import Attack, Verdict
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import finding

pytestmark = pytest.mark.usefixtures("fixed_keys")

ABOVE = (Verdict.LEAKS, Verdict.BROKEN)
_LUCK = 0.025
_ONCE_IN = 1000


def verdicts(case, transcript, knowledge, folder):
    trials = case.scorer.score(case.attack.run(transcript, knowledge), Truth(folder))
    # The undefended score of a planted leak is full success.
    return [finding(case.attack.name, "planted", operand, "", t, 1.0) for operand, t in trials.items()]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.attack.name)
def test_a_planted_leak_is_found(case: Case, tmp_path):
    found = verdicts(case, *case.plant(tmp_path), tmp_path)
    assert found
    assert any(f.verdict in ABOVE for f in found), [(f.operand, f.score, f.chance, f.n) for f in found]


def test_noise_is_hardly_ever_called_a_leak(tmp_path):
    cried, cases = [], 0
    for number, case in enumerate(CASES):
        folder = tmp_path / str(number)
        transcript, knowledge = case.plant(folder)
        for seed in range(1, case.seeds + 1):
            found = verdicts(case, blinded(transcript, seed), knowledge, folder)
            cases += len(found)
            cried += [(f.attack, f.operand, seed, f.score, f.chance) for f in found if f.verdict in ABOVE]
    assert cases >= sum(case.seeds for case in CASES)
    assert len(cried) <= stats.binom.ppf(1 - 1 / _ONCE_IN, cases, _LUCK), cried


def attacks_in_the_tree():
    for module in pkgutil.iter_modules(tempo.attacks.__path__):
        if module.name in ("score", "reference") or module.ispkg:
            continue
        for _, each in inspect.getmembers(
            importlib.import_module(f"tempo.attacks.{module.name}"), inspect.isclass
        ):
            if issubclass(each, Attack) and not inspect.isabstract(each) and hasattr(each, "name"):
                yield each


def test_no_attack_is_without_a_planted_leak():
    """In the table here, or in a unit test of its own that names it."""
    tests = Path(__file__).parents[1] / "unit" / "attacks"
    texts = "\n".join(path.read_text() for path in tests.glob("test_*.py"))
    here = {type(case.attack) for case in CASES}
    missing = sorted({a.__name__ for a in attacks_in_the_tree() if a not in here and a.__name__ not in texts})
    assert not missing
