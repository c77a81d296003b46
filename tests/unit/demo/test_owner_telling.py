"""The owner's story: its steps and promises, and how they look on a terminal."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

import tempo.cli as cli
from tempo.cli.demo_owner import show
from tempo.demo.owner import story
from tempo.demo.owner.telling import Row, Shown, Stopped, Telling
from tempo.demo.owner.training import Curve
from tempo.errors import OutsideError, RefusedError, TamperedError


class Silent:
    def __init__(self) -> None:
        self.ended: list[Row] = []

    def open(self, cast: list[str]) -> None: ...
    def begin(self, number: int, title: str) -> None: ...
    def progress(self, done: int, total: int, note: str) -> None: ...

    def end(self, row: Row) -> None:
        self.ended.append(row)


def telling() -> tuple[Telling, Silent]:
    watcher = Silent()
    return Telling({"one": "The first", "two": "The second", "three": "The third"}, watcher), watcher


def test_steps_are_numbered_and_kept() -> None:
    told, watcher = telling()
    for name in ("one", "two", "three"):
        with told.step(name) as shown:
            shown.promise(True, "never said")
            shown.facts = {"name": name}
    assert told.broken == []
    assert [(row.number, row.name, row.kept) for row in watcher.ended] == [
        *((1, "one", True), (2, "two", True), (3, "three", True))
    ]
    assert told.rows[1].fields() | {"seconds": 0} == {
        "step": 2,
        "name": "two",
        "title": "The second",
        "kept": True,
        "shown": "",
        "message": None,
        "broken": [],
        "seconds": 0,
        "facts": {"name": "two"},
    }


def test_a_broken_promise_is_told_and_the_story_goes_on() -> None:
    told, _ = telling()
    with told.step("one") as shown:
        shown.promise(False, "it was not so")
    with told.step("two"):
        pass
    assert told.broken == ["step 1, one: it was not so", "not reached: three"]


@pytest.mark.parametrize("error", [TamperedError("cut"), RefusedError("tpm 1 format", "this", "that")])
def test_an_unexpected_refusal_ends_the_story(error: Exception) -> None:
    told, watcher = telling()
    with pytest.raises(Stopped), told.step("one"):
        raise error
    assert not watcher.ended[0].kept
    assert str(error) in told.broken[0]
    assert told.broken[1] == "not reached: two, three"


@pytest.mark.parametrize("error", [OutsideError("no disk"), KeyboardInterrupt(), ValueError("ours")])
def test_whatever_is_no_refusal_is_raised(error: BaseException) -> None:
    told, _ = telling()
    with pytest.raises(type(error)), told.step("one"):
        raise error
    assert told.rows == []


def test_steps_come_in_their_order() -> None:
    told, _ = telling()
    with pytest.raises(ValueError, match="step 1 is not 'two'"), told.step("two"):
        pass


@pytest.mark.parametrize(
    ("tempo", "kept"),
    [([1.0, 2.0], True), ([1.0, 2.0 + 1e-5], True), ([1.0, 2.0 + 1.1e-5], False), ([1.0, math.nan], False)],
)
def test_curves_lie_within_what_is_allowed(tempo: list[float], kept: bool) -> None:
    assert Curve(tempo, [1.0, 2.0], [1e-6, 1.0000001e-5]).kept == kept


def test_no_curve_is_no_promise_kept() -> None:
    assert not Curve([], [], []).kept


# ---- on a terminal -----------------------------------------------------------------------------

WORDS = "One [certificate] each for the vault, the master and 2 workers, for one role, as it is said. " * 2


def printed(row: Row, width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding) as file:
        show(Console(file=file, width=width), row)
        file.flush()
        return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("name", list(story.TITLES))
def test_a_step_fits_the_terminal(width: int, name: str) -> None:
    shown = Shown([WORDS], message="refused at step [x]: " + "f" * 150, broken=["it was [not] so " * 9])
    text = printed(Row(16, name, story.TITLES[name], 123.4, shown), width)
    lines = text.splitlines()
    assert max(len(line) for line in lines[2:]) <= min(width, 100)
    assert not any(line != line.rstrip() for line in lines)
    head = lines[1]
    assert story.TITLES[name] in head
    assert head.endswith(" 123.4 s")
    if width >= 80:
        assert len(head) == min(width, 100)
    assert "[certificate]" in text
    assert "[x]" in text


def test_ticks_and_crosses() -> None:
    good, bad = Row(1, "one", "It", 1.0, Shown()), Row(2, "two", "It", 1.0, Shown(broken=["no"]))
    assert "\u2713" in printed(good, 80)
    assert "\u2717" in printed(bad, 80)
    assert "Not kept: no" in printed(bad, 80)
    assert printed(good, 80, "ascii").strip().startswith("1 + It")
    assert printed(bad, 80, "ascii").strip().startswith("2 ! It")


def test_the_simulator_belongs_to_the_owners_story(capsys) -> None:
    assert cli.run(["demo", "--unsafe-simulator"]) == 2
    assert "--owner alone" in capsys.readouterr().err
