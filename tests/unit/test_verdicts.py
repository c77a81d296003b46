"""The verdicts that reports quote: complete, and quoted as they are."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tempo.attacks.registry import ATTACKS
from tempo.attacks.suite.rows import RANK, SKIPPED, Result, Row
from tempo.attacks.suite.summary import SETTINGS, summary
from tempo.attacks.verdict import Trials, finding
from tempo.config import Config
from tempo.report import verdicts

SCHEMES = ("unsafe_none", "monomial", "mixing", "shares")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_attack_has_its_line(scheme: str) -> None:
    cells = verdicts.shipped()["schemes"][scheme]
    assert set(cells) == {entry.attack.name for entry in ATTACKS}
    for cell in cells.values():
        assert cell["verdict"] in {*(verdict.value for verdict in RANK), SKIPPED}
        assert cell["why"] if cell["verdict"] == SKIPPED else cell["n"] > 0


def test_further_settings_have_theirs() -> None:
    for entry in ATTACKS:
        for text in entry.also:
            assert set(verdicts.shipped()["schemes"][text]) >= {entry.attack.name}


def test_it_says_when_and_how_it_was_measured() -> None:
    data = verdicts.shipped()
    assert len(data["date"]) == len("2026-11-23")
    assert data["command"].startswith("tempo attack")
    assert tuple(data["settings"]) == SETTINGS


def test_the_note_names_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    def cell(verdict: str) -> dict[str, str]:
        return {"verdict": verdict}

    cells = {
        "a": cell("holds"),
        "b": cell("leaks"),
        "c": cell("broken"),
        "d": cell("broken"),
        "e": cell("skipped"),
    }
    data = {
        "date": "2026-01-02",
        "settings": {"rounds": 1, "gain": Config().gain},
        "schemes": {"mixing": cells},
    }
    monkeypatch.setattr(verdicts, "shipped", lambda: data)
    assert verdicts.note(Config()) == (
        "attack suite, scheme mixing, measured 2026-01-02 on the reference runs, "
        "with other settings than here (rounds): broken by c, d; leaks to b; held against 1; not measured 1. "
        'What mends each, and at what cost: docs/secrecy.md, "What leaks, and what mends it". '
        "Your own model: tempo attack --script train.py:subject --scheme mixing"
    )
    assert "nothing was measured" in verdicts.note(Config(scheme="monomial"))


def test_reports_need_none_of_the_suites_packages() -> None:
    code = "import sys; from tempo.report import verdicts; verdicts.shipped(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"scipy", "sklearn", "matplotlib", "tempo.attacks"} & set(done.stdout.split())


def row(operand: str, values: list[float], chance: float, scheme: str = "mixing") -> Row:
    trials = Trials(values, chance, "told")
    return Row("a", scheme, "tiny", "none", "m", 0.0, finding("a", scheme, operand, "none", trials, 1.0))


def test_the_worst_operand_counts() -> None:
    fields = {"commit": "c", "tempo": "1", "command": "tempo attack"}
    skipped = Row("b", "mixing", "tiny", "none", "m", 0.0, why="out of time")
    rows = [row("holds", [0.0] * 500, 0.0), row("leaks", [0.0, 1.0] * 50, 0.1), skipped]
    cells = summary(fields, Result([*rows, row("x", [1.0] * 50, 0.0, "monomial")]))["schemes"]
    assert (cells["mixing"]["a"]["verdict"], cells["mixing"]["a"]["operand"]) == ("leaks", "leaks")
    assert cells["mixing"]["b"]["why"] == "out of time"
    assert cells["monomial"]["a"]["verdict"] == "broken"


@pytest.mark.parametrize("values", [[1.0] * 9, [0.3], [2.5, 3.5]])
def test_rows_come_back_from_json_as_they_were(values: list[float]) -> None:
    made = row("X", values, 0.1)
    assert Row.from_dict(made.to_dict()).to_dict() == made.to_dict()
    skipped = Row("b", "mixing", "tiny", "none", "m", 0.0, why="out of time")
    assert Row.from_dict(skipped.to_dict()) == skipped
