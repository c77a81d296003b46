"""The suite over several processes: the same findings, and attacks that hang, crash or refuse."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from planted import Deaf, Fatal, NoScorer, Quiet, Reading, ReadingScorer, tiny

from tempo.attacks.registry import Entry
from tempo.attacks.suite import pool
from tempo.attacks.suite.clock import Clock
from tempo.attacks.suite.journal import LINES, Journal
from tempo.attacks.suite.pool import run_in_processes
from tempo.attacks.suite.rows import Result
from tempo.attacks.suite.run import Plan, run
from tempo.attacks.suite.variant import Variant
from tempo.errors import DataError, TempoError

READING = Entry(Reading(), ReadingScorer(), ("one", "two"))
CLEAR = [Variant("unsafe_none")]


def plan(*entries: Entry, variants=CLEAR) -> Plan:
    return Plan({"one": list(entries), "two": [READING]}, {"one": tiny, "two": tiny}, variants)


def facts(result: Result) -> list[tuple[object, ...]]:
    return [(r.reference, r.scheme, r.attack, r.verdict, r.finding and r.finding.score) for r in result.rows]


def test_the_same_as_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made, one, two = plan(READING, variants=[*CLEAR, Variant("mixing")]), Quiet(), Quiet()
    apart, together = run_in_processes(made, Clock(600, 60), one, 2), run(made, Clock(600, 60), two)
    assert facts(apart) == facts(together)
    assert [p.title for p in apart.pictures] == [p.title for p in together.pictures]
    assert apart.subjects == together.subjects
    assert one.finished == one.runs == two.finished == 4
    assert list(tmp_path.glob("tempo-*")) == []  # recordings hold secrets


def test_a_process_is_ended_and_another_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attack heeds no signal, another takes its process down: both are listed, the rest is measured."""
    monkeypatch.setattr(pool, "_GRACE_S", 0.5)
    entries = (Entry(Deaf(), NoScorer(), ()), Entry(Fatal(), NoScorer(), ()), READING)
    start, watcher = time.monotonic(), Quiet()
    result = run_in_processes(plan(*entries), Clock(600, 5), watcher, 2)
    found = {(r.reference, r.attack): r for r in result.rows}
    assert time.monotonic() - start < 200
    assert found["one", "deaf"].why == "out of time: its process was ended"
    assert found["one", "fatal"].why == "failed: its process ended (exit code 9)"
    assert found["one", "deaf"].missed
    assert found["one", "reading"].finding.score == found["two", "reading"].finding.score == 1.0
    assert watcher.finished == watcher.runs == 4


def test_settings_that_a_scheme_refuses() -> None:
    with pytest.raises(TempoError, match="block"):
        run_in_processes(
            plan(READING, variants=[Variant.parse("mixing:block=3")]), Clock(600, 60), Quiet(), 2
        )


# ---- what is kept on disk ---------------------------------------------------------------------------


def test_a_run_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    class Impatient(Quiet):
        def done(self, rows: object, pictures: object = ()) -> None:
            super().done(rows, pictures)
            if self.finished == 1:
                raise Stopped

    made = plan(READING)
    with pytest.raises(Stopped), Journal(Impatient(), tmp_path, resume=False) as journal:
        run(made, Clock(600, 60), journal)
    # Interrupted before it was written: nothing is known.
    with Journal(Quiet(), tmp_path, resume=True) as again:
        assert again.rows == []
        first = run(Plan({"one": [READING]}, made.makers, CLEAR), Clock(600, 60), again)
        (tmp_path / "copy").write_text((tmp_path / LINES).read_text())
        kept = sorted((tmp_path / "pictures").iterdir())
        assert len(kept) == 1
        (tmp_path / "kept.npz").write_bytes(kept[0].read_bytes())
    assert not (tmp_path / LINES).exists()  # the report says it all now
    (tmp_path / LINES).write_text((tmp_path / "copy").read_text())
    (tmp_path / "pictures").mkdir()
    (tmp_path / "kept.npz").rename(tmp_path / "pictures" / "0.npz")
    with Journal(Quiet(), tmp_path, resume=True) as last:
        watcher = Quiet()
        result = last.whole(run(made, Clock(600, 60), watcher, last.rows))
    assert watcher.finished == 1  # Quiet itself counts the second reference alone
    assert [row.to_dict() for row in result.rows[:1]] == [row.to_dict() for row in first.rows]
    assert [row.reference for row in result.rows] == ["one", "two"]
    assert len(result.pictures) == 2
    assert result.pictures[0].recovered.equal(first.pictures[0].recovered)


def test_a_journal_of_something_else(tmp_path: Path) -> None:
    (tmp_path / LINES).write_text("{}\n")
    with pytest.raises(DataError, match="--resume"):
        Journal(Quiet(), tmp_path, resume=True)
