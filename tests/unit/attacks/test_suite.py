"""The suite with planted attacks: what it finds, what it judges against, and that nothing is left out."""

from __future__ import annotations

import json
import math
import signal
import time
from dataclasses import replace

import pytest
import torch
from planted import Faulty, Greedy, NoScorer, Quiet, Reading, ReadingScorer, Slow, batches_of, model_of, tiny

from tempo.attacks.knowledge import (
    Candidates,
    KnownPlaintext,
    Nothing,
    OwnRuns,
    PublicData,
    PublicLayer,
    PublicWeights,
)
from tempo.attacks.record import recorded
from tempo.attacks.registry import Entry, Visible
from tempo.attacks.spatial import Batch
from tempo.attacks.suite.clock import Clock, OutOfTime, deadline
from tempo.attacks.suite.recording import architecture_of, record
from tempo.attacks.suite.rows import FIELDS, Result, Row
from tempo.attacks.suite.run import Plan, run, run_on_recording
from tempo.attacks.suite.side import SideKnowledge
from tempo.attacks.suite.variant import Variant
from tempo.errors import DataError, UsageError

READING = Entry(Reading(), ReadingScorer(), ("tiny",))


def suite(entries, schemes=("unsafe_none", "mixing"), makers=None, clock=None) -> tuple[Result, Quiet]:
    watcher = Quiet()
    plan = Plan({"tiny": entries}, makers or {"tiny": tiny}, [Variant.parse(s) for s in schemes])
    return run(plan, clock or Clock(600, 60), watcher), watcher


@pytest.fixture(scope="module")
def found() -> tuple[Result, Quiet]:
    return suite([READING, Entry(Greedy(), NoScorer(), ()), Entry(Faulty(), NoScorer(), ())])


def by(result: Result, attack: str, scheme: str) -> Row:
    (row,) = [row for row in result.rows if (row.attack, row.scheme) == (attack, scheme)]
    return row


def test_a_planted_leak_is_found_and_a_hidden_one_is_not(found) -> None:
    clear, hidden = by(found[0], "reading", "unsafe_none"), by(found[0], "reading", "mixing")
    assert (clear.finding.score, clear.verdict) == (1.0, "broken")
    assert (hidden.finding.score, hidden.finding.undefended, hidden.verdict) == (0.0, 1.0, "holds")
    assert clear.finding.n > 300


def test_what_was_not_measured_is_listed_with_its_reason(found) -> None:
    greedy, faulty = by(found[0], "greedy", "mixing"), by(found[0], "faulty", "mixing")
    assert greedy.why == "nothing to attack: tiny has no public weights"
    assert faulty.why == "failed: ValueError: shapes do not meet"
    assert {greedy.verdict, faulty.verdict} == {"skipped"}
    assert not greedy.missed
    assert faulty.missed


def test_every_run_is_counted(found) -> None:
    assert found[1].runs == found[1].finished == 6


def test_pictures_are_kept(found) -> None:
    shown = {p.scheme: p for p in found[0].pictures}
    assert torch.equal(shown["unsafe_none"].recovered, shown["unsafe_none"].true)
    assert not torch.allclose(shown["mixing"].recovered, shown["mixing"].true, atol=0.1)


def test_fields_are_frozen(found) -> None:
    assert list(FIELDS) == [
        *("attack", "scheme", "operand", "side_knowledge", "score", "chance", "undefended", "low", "high"),
        *("n", "verdict", "note", "details", "reference", "seconds", "metric", "chance_from"),
    ]
    for row in found[0].rows:
        assert tuple(row.to_dict()) == FIELDS
        json.dumps(row.to_dict(), allow_nan=False)


def test_promises(found) -> None:
    result = found[0]
    assert result.against({"broken"}, ["unsafe_none"])[0] == "reading on tiny, unsafe_none, X: broken"
    # What failed was not shown to hold.
    assert result.against({"leaks"}, ["mixing"]) == [
        "faulty on tiny, mixing: not measured (failed: ValueError: shapes do not meet)"
    ]


def test_the_undefended_run_is_made_where_it_is_not_asked_for() -> None:
    result, _ = suite([READING], ["monomial"])
    (row,) = result.rows
    assert (row.scheme, row.finding.undefended) == ("monomial", 1.0)


def test_what_is_visible_by_construction_is_called_so() -> None:
    entry = replace(READING, visible=Visible.KEY_SHIFT)
    assert entry.visible.under("mixing", key_shift=True)
    assert not entry.visible.under("mixing", key_shift=False)
    assert not entry.visible.under("monomial", key_shift=True)
    assert Visible.ALWAYS.under("shares", key_shift=False)


def test_a_subject_that_cannot_be_had_is_a_row() -> None:
    def nowhere(say):
        raise DataError("no network")

    result, watcher = suite([READING], makers={"tiny": nowhere})
    assert [row.why for row in result.rows] == ["tiny could not be had: no network"] * 2
    assert all(row.missed for row in result.rows)
    assert watcher.finished == watcher.runs


def test_settings_that_keep_all_of_it_leave_nothing_to_attack() -> None:
    result, watcher = suite([READING], ["unsafe_none", "mixing:min_size=4096", "mixing"])
    row = by(result, "reading", "mixing:min_size=4096")
    assert row.why == "nothing to attack: all of it stays in the master"
    assert not row.missed
    assert by(result, "reading", "mixing").finding is not None
    assert watcher.finished == watcher.runs


def test_an_attack_that_takes_too_long_is_stopped_and_listed() -> None:
    start = time.monotonic()
    slow = Entry(Slow(), NoScorer(), ())
    result, _ = suite([slow, READING], ["unsafe_none"], clock=Clock(600, 0.3))
    assert time.monotonic() - start < 60
    assert by(result, "slow", "unsafe_none").why.startswith("out of time")
    assert by(result, "reading", "unsafe_none").verdict == "broken"


def test_without_time_nothing_is_begun_and_all_is_listed() -> None:
    result, watcher = suite([READING], clock=Clock(0, 10))
    assert {row.why for row in result.rows} == {"out of time: not begun"}
    assert watcher.finished == 2


def test_a_deadline_leaves_another_timer_running() -> None:
    def ring(*_):
        raise TimeoutError

    handler = signal.signal(signal.SIGALRM, ring)
    before, _ = signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        with pytest.raises(OutOfTime), deadline(0.05):
            time.sleep(30)
        assert 90 < signal.getitimer(signal.ITIMER_REAL)[0] < 100
        assert signal.getsignal(signal.SIGALRM) is ring
    finally:
        signal.setitimer(signal.ITIMER_REAL, before)
        signal.signal(signal.SIGALRM, handler)


def test_shares_of_time() -> None:
    clock = Clock(100, 60)
    assert 14 < clock.share_s(20) <= 15
    assert 59 < clock.share_s(1) <= 60
    assert Clock(0, 60).share_s(3) == 0


# ---- side knowledge --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    subject = tiny()
    made = record(subject, Variant("unsafe_none"), tmp_path_factory.mktemp("clear"))
    return subject, made, SideKnowledge(subject, architecture_of(made, subject.model))


def test_the_subjects_own_model_is_left_alone(recording) -> None:
    for name, value in model_of().state_dict().items():
        assert torch.equal(recording[0].model.state_dict()[name], value)


def test_the_architecture_is_that_of_the_model(recording) -> None:
    subject, made, side = recording
    facts = side.of(Nothing, made).architecture
    assert [(f.module, f.lowering, f.groups, f.k, f.n, f.kernel) for f in facts] == [
        ("0", "linear", 1, 80, 64, None),
        ("2", "linear", 1, 64, 72, None),
    ]


def test_candidates_are_what_would_have_been_sent(recording) -> None:
    subject, made, side = recording
    candidates = side.of(Candidates, made).operands
    assert len(candidates) == 3 + 3
    truths = [batch for batch in (*subject.batches, *subject.public.decoys)]
    for x0, w0, dy0, x1, w1, dy1 in candidates:
        (batch,) = [batch for batch in truths if torch.equal(batch[0], x0)]
        model = model_of()
        subject.loss(model, batch).backward()
        assert torch.allclose(x1, torch.relu(model[0](x0)), atol=1e-5)
        assert torch.allclose(dy0.T @ x0, model[0].weight.grad, atol=1e-5)
        assert torch.allclose(dy1.T @ x1, model[2].weight.grad, atol=1e-5)
        assert torch.equal(w0, model[0].weight)
        assert torch.equal(w1, model[2].weight)


def test_the_size_of_a_batch_is_public(recording) -> None:
    _, made, side = recording
    assert side.of(Batch, made).images == 96


def test_rows_of_the_first_layer_and_runs_of_ones_own(recording) -> None:
    subject, made, side = recording
    layer, own = side.of(PublicLayer, made), side.of(OwnRuns, made)
    assert torch.equal(layer.rows, subject.public.inputs)
    assert own.rows.shape == (288, 1, 80)
    first, second = own.seal_rows(own.rows[:64, 0]), own.seal_rows(own.rows[:64, 0])
    assert torch.equal(first, second)  # of unsafe_none, under which this was recorded
    hidden = side.of(OwnRuns, replace(made, variant=Variant("mixing"))).seal_rows(own.rows[:64, 0])
    assert not torch.allclose(hidden, first, atol=0.5)


def test_known_plaintext_is_one_batch_only(recording) -> None:
    _, made, side = recording
    known = side.of(KnownPlaintext, made).operands
    assert len(known) == 2
    assert all(torch.equal(made.truth.of(id_).plain, x) for id_, x in known.items())


def test_knowledge_that_is_secret_is_not_made_up(recording) -> None:
    _, made, side = recording
    assert side.of(PublicWeights, made) is None
    assert side.of(PublicData, made).inputs.shape == (288, 80)
    bare = SideKnowledge(None, ())
    assert bare.of(PublicData, made) is None
    assert bare.of(Nothing, made) is not None


def test_phases_are_run_as_they_say(recording) -> None:
    _, made, _ = recording
    layers = made.transcript.layers()
    # Asked once, then two batches for one step: three X met each of two W before it changed.
    assert [len(layer) for layer in layers] == [3, 3]
    assert [[p.dw is not None for p in layer] for layer in layers] == [[False, True, True]] * 2


def test_a_transcript_recorded_elsewhere(tmp_path) -> None:
    model, (x, y) = model_of(), batches_of(1)[0]
    with recorded(tmp_path, scheme="unsafe_none") as session:
        session.protect(model)
        torch.nn.functional.cross_entropy(model(x), y).backward()
    from tempo.attacks.suite.choose import recording_in

    made = recording_in(tmp_path, None, Variant("unsafe_none"))
    entries = [READING, Entry(Greedy(), NoScorer(), ())]
    result = run_on_recording(entries, "transcript", made, Clock(60, 60), Quiet())
    reading, greedy = result.rows
    assert reading.finding.score == 1.0
    assert "has no public weights" in greedy.why
    with pytest.raises(DataError, match="unsafe_truth"):
        recording_in(tmp_path / "worker-0", None, Variant("mixing"))


# ---- variants --------------------------------------------------------------------------------------


def test_a_scheme_with_settings() -> None:
    variant = Variant.parse("mixing:block=4,key_shift=no,spread=1.5")
    assert variant.options == {"scheme": "mixing", "block": 4, "key_shift": False, "spread": 1.5}
    assert str(variant) == "mixing:block=4,key_shift=False,spread=1.5"
    assert not variant.key_shift
    assert Variant.parse("mixing").key_shift
    assert len({variant, Variant.parse(str(variant))}) == 1


@pytest.mark.parametrize(
    "text", ["none", "mixing:block", "mixing:blok=4", "mixing:block=many", "mixing:scheme=x"]
)
def test_bad_schemes(text: str) -> None:
    with pytest.raises(UsageError):
        Variant.parse(text)


def test_nothing_is_left_of_recordings(found, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    suite([READING], ["unsafe_none"])
    assert [p.name for p in tmp_path.iterdir() if "attack" in p.name] == []
    assert math.isfinite(found[0].seconds)
