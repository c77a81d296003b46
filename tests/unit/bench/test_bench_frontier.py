"""Leakage beside cost: what counts as leaking, which settings are on the line, and a small run."""

import json
import math
import tempfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tempo.attacks.reference.subject import Phase, Public, Subject
from tempo.attacks.suite.rows import Row as Found
from tempo.attacks.verdict import Trials, finding
from tempo.bench import frontier
from tempo.bench.crew import Crew
from tempo.bench.figures import draw
from tempo.bench.frontier import ANSWERED, FAST, Settings, joined, leakage, on_the_line, run
from tempo.bench.knobs import SETTINGS, Layer, Setting
from tempo.bench.report import short_table
from tempo.bench.timing import Repeats
from tempo.errors import UsageError

ONCE, TWO = Repeats(1, 1, 0.0), (SETTINGS[0], Setting("rounds 1", {"rounds": 1}))


def found(value, chance=0.5, undefended=1.0, scheme="mixing", operand="X", count=50):
    trials = Trials([value + 0.001 * (i % 2) for i in range(count)], chance, "derived")
    one = finding("similarity", scheme, operand, "none", trials, undefended)
    return Found("similarity", scheme, "steps", "none", "hits", 1.0, one)


def test_leakage_is_the_share_of_the_way_from_chance_to_the_clear():
    assert leakage(found(0.75)) == pytest.approx(0.5, abs=0.01)
    assert leakage(found(0.5, chance=0.6)) == 0.0
    assert leakage(found(2.0)) == 1.0
    # Few trials do not tell it from chance.
    assert leakage(found(0.75, count=1)) == 0.0
    # Not told from chance in the clear: what is above chance counts.
    assert leakage(found(0.75, undefended=0.5)) == pytest.approx(0.5, abs=0.01)
    assert leakage(found(0.75, undefended=math.nan)) == pytest.approx(0.5, abs=0.01)
    assert leakage(Found("reuse", "mixing", "kinds", "none", "", 0.0, why="nothing to attack: none")) == 0.0


def test_the_line_holds_what_nothing_is_better_than():
    points = {"a": (1.0, 0.9), "b": (2.0, 0.5), "c": (2.0, 0.6), "d": (3.0, 0.5), "e": (4.0, 0.0)}
    assert on_the_line(points) == {"a", "b", "e"}
    assert on_the_line({"a": (1.0, 0.5), "b": (1.0, 0.5)}) == {"a", "b"}


def costs(names, ratio=lambda i: 10.0 + i):
    keys = ("memcpy_ratio", "master_seconds", "cpu_seconds", "memcpy_seconds")
    return [{"setting": n, "cpu_ratio": ratio(i), **dict.fromkeys(keys, 1.0)} for i, n in enumerate(names)]


def test_rows_are_joined_and_concluded(tmp_path):
    rows = [found(0.9), found(0.6, operand="W"), found(0.5, scheme="mixing:rounds=1", chance=0.6)]
    result = joined(TWO, costs(["default", "rounds 1"]), rows)
    assert [(r["setting"], r["operand"], r["cpu_ratio"]) for r in result.rows] == [
        ("default", "X", 10.0),
        ("default", "W", 10.0),
        ("rounds 1", "X", 11.0),
    ]
    default, other = result.extra["settings"]
    # The operand that gives most away counts.
    assert default["mean_leakage"] == default["worst_leakage"] == pytest.approx(0.8, abs=0.01)
    assert (other["mean_leakage"], other["worst_attack"]) == (0.0, "")
    assert (default["pareto"], other["pareto"]) == (True, True)
    titles, cells = short_table(result)
    assert len(cells) == 3
    assert all(len(line) == len(titles) for line in cells)
    (picture,) = draw(result, tmp_path)
    assert picture.stat().st_size > 10_000


def test_an_attack_that_was_not_reached_is_listed_and_counts_for_no_setting():
    late = Found("products", "mixing", "mlp", "none", "", 0.0, why="out of time: not begun")
    reached = Found("products", "mixing:rounds=1", "mlp", "none", "", 0.0, why="nothing to attack: none")
    rows = [found(0.9), found(0.9, scheme="mixing:rounds=1"), late, reached]
    result = joined(TWO, costs(["default", "rounds 1"]), rows)
    assert [each["why"] for each in result.skipped] == ["out of time: not begun"]
    assert not any("products" in key for line in result.extra["settings"] for key in line)


def test_settings_that_cannot_be():
    with pytest.raises(UsageError, match="no attack 'guess'"):
        run(Settings(attacks={"steps": ("guess",)}))
    with pytest.raises(UsageError, match="no reference 'stops'"):
        run(Settings(attacks={"stops": ("reuse",)}))
    with pytest.raises(UsageError, match="names of their own"):
        run(Settings(settings=(SETTINGS[0], SETTINGS[0])))


def test_what_is_run_is_there():
    for attacks in (ANSWERED, FAST.attacks):
        for reference, names in attacks.items():
            for entry in frontier._entries(reference, names):
                assert reference in entry.references
    assert {each.name for each in FAST.settings} == set(frontier._FAST_NAMES)


def tiny(say):
    """Requests of one key: half of them known."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(144, 64), nn.ReLU(), nn.Linear(64, 10))
    batches = tuple(
        (torch.randn(72, 144, generator=generator), torch.randint(0, 10, (72,), generator=generator))
        for _ in range(16)
    )
    loss = lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])  # noqa: E731
    phase = Phase(batches, training=False)
    return Subject("tiny", "noise", model, loss, (phase,), Public())


def test_reuse_of_keys_is_seen_and_the_default_closes_it(monkeypatch):
    """Known operands open the others of their key where 256 uses are allowed, and there alone: eight are
    known, and 144^2 / (72 (144 - 72)) = 4 have as many equations as there are unknowns."""
    monkeypatch.setattr(frontier, "REFERENCES", {"tiny": tiny})
    many = Setting("many", {"weight_uses": 256, "unsafe_many_uses": True})
    settings = Settings(
        settings=(SETTINGS[0], many),
        attacks={"tiny": ("adaptive-known",)},
        layer=Layer(256, 128, 128, 4),
        crew=Crew.parse("cpu"),
        repeats=ONCE,
    )
    with tempfile.TemporaryDirectory() as folder:
        result = run(settings, lambda text: None)
        json.dumps(result.rows)
        draw(result, Path(folder))
    leak = {line["setting"]: line["mean_leakage"] for line in result.extra["settings"]}
    assert leak["default"] == 0.0
    assert leak["many"] > 0.8
    assert {row["setting"] for row in result.rows} == {"default", "many"}
