"""From files of the verbs to a run: what is read, what is refused, what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import report_samples as samples

from tempo.errors import OutsideError, UsageError
from tempo.fleet import Event, EventKind
from tempo.report import Report
from tempo.report import sections as parts
from tempo.report.gather import Inputs, gather
from tempo.report.run import VERSION, Run, SessionPart

#: Change it only with VERSION and docs/report.md: files of users have these fields.
FIELDS = {
    Run: "tempo_run tempo made_at session title machine commit training timeline attacks speed "
    "cost attestations audit sources",
    SessionPart: "scheme key_shift rows encodings encodings_without_key_shift bytes_sent bytes_received "
    "checks checks_failed retries local_fallbacks quarantined seconds events notes integrity settings jobs",
    parts.Training: "plain_losses tempo_losses allowed_differences plain_accuracy tempo_accuracy "
    "plain_seconds tempo_seconds steps batch data parameters lies_told lie_steps kill_step broken_promises",
    parts.Bar: "part lane start seconds",
    parts.Attacks: "of date command rows pictures pictures_left_out",
    parts.AttackRow: "attack scheme reference operand verdict side_knowledge note score chance undefended "
    "low high n shipped",
    parts.Picture: "attack scheme reference title width height recovered true",
    parts.SpeedRow: "op shape scheme workers seconds master_seconds roofline_share speedup_over_tee_only "
    "law_speedup law_share",
    parts.CostRow: "option epoch_seconds cost currency egress_cost assumptions",
    parts.Attestation: "kind policy accepted simulated detail",
    parts.Audit: "origin entries first last root kinds unsigned_bytes extends_entries closed",
    parts.Source: "name what sha256",
}


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
def test_the_format_is_frozen(kind: type[msgspec.Struct]) -> None:
    assert sorted(kind.__struct_fields__) == sorted(FIELDS[kind].split())


def report() -> Report:
    fields = samples.session()
    fields |= {"rows": [], "integrity": [], "settings": {"scheme": "mixing", "fleet": object()}}
    fields["events"] = [Event(EventKind.LOST, "worker-1", "it was closed")]
    return Report(**fields)


def test_a_session_saves_what_the_page_reads(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    report().save(path, title="a run")
    run = gather(Inputs(run=path))
    assert run.title == "a run"
    assert run.session.checks == 668
    assert run.session.events[0].kind == "lost"
    assert run.session.settings["scheme"] == "mixing"
    assert run.training is None
    assert run.attacks is not None
    assert run.attacks.of == "shipped"  # of this release, and said so


def test_saved_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match="folder that exists"):
        report().save(tmp_path / "none" / "run.json")


def test_a_folder_with_everything(tmp_path: Path) -> None:
    run = gather(Inputs(run=samples.whole_folder(tmp_path)))
    assert run.training is not None
    assert run.training.plain_losses[0] == 2.0
    assert run.training.worst_difference == pytest.approx(1e-7)
    assert run.attacks is not None
    assert run.attacks.of == "given"
    assert len(run.attacks.pictures) == 2
    assert run.attacks.pictures[0].true == bytes([0, 64, 128, 192])
    assert run.speed is not None
    assert [row.seconds for row in run.speed.rows] == [0.2]  # neither the baseline nor the run without checks
    assert run.timeline is not None
    assert [(bar.part, bar.lane) for bar in run.timeline.bars][1] == ("send", "worker-0 link")
    assert run.timeline.bars[1].start == pytest.approx(4e-3)
    assert run.cost is not None
    assert run.cost.rows[2].cost is None
    assert run.attestations[0].accepted
    assert {source.what for source in run.sources} == {
        *("run", "attack", "pictures", "bench", "plan", "trace", "attestation")
    }
    assert all(len(source.sha256) == 64 for source in run.sources)


def test_what_was_gathered_can_be_saved_and_read_again(tmp_path: Path) -> None:
    run = gather(Inputs(run=samples.whole_folder(tmp_path), title="all of it"))
    run.save(tmp_path / "again.json")
    again = gather(Inputs(run=tmp_path / "again.json"))
    assert again.attacks == run.attacks
    assert again.training == run.training
    assert again.title == "all of it"


def test_few_attacks_do_not_look_like_few_findings(tmp_path: Path) -> None:
    """What was not run for the report stands as the release found it, and is told apart."""
    run = gather(Inputs(run=samples.whole_folder(tmp_path)))
    assert run.attacks is not None
    of = {row.attack: row.shipped for row in run.attacks.rows if row.scheme == "mixing"}
    assert of["labels"] is False
    assert of["reuse"] is True  # it was skipped
    assert len(of) >= 20


def test_pictures_of_ones_own_data_are_shown_on_demand_alone(tmp_path: Path) -> None:
    path = samples.written(tmp_path, "demo.json", samples.demo())
    found = samples.written(tmp_path, "attack.json", samples.attack())
    samples.written(tmp_path, "pictures.json", samples.pictures("script"))
    run = gather(Inputs(run=path, attack=found))
    assert run.attacks is not None
    assert run.attacks.pictures == []
    assert run.attacks.pictures_left_out == 2
    asked = gather(Inputs(run=path, attack=found, own_pictures=True))
    assert asked.attacks is not None
    assert len(asked.attacks.pictures) == 2


def test_refused_evidence_is_told(tmp_path: Path) -> None:
    path = samples.written(tmp_path, "demo.json", samples.demo())
    refused = {"admitted": False, "kind": None, "step": "7 (report data)", "found": "x", "expected": "y"}
    evidence = samples.written(tmp_path, "e.json", samples.attestation(**refused))
    (each,) = gather(Inputs(run=path, attestation=evidence)).attestations
    assert not each.accepted
    assert "report data" in each.detail


def test_simulated_evidence_is_known(tmp_path: Path) -> None:
    path = samples.written(tmp_path, "demo.json", samples.demo())
    evidence = samples.written(tmp_path, "e.json", samples.attestation(kind="unsafe-simulated"))
    assert gather(Inputs(run=path, attestation=evidence)).attestations[0].simulated


def cases() -> list[tuple[str, dict[str, object], str]]:
    other = samples.attack()
    other["rows"] = [samples.attack_row("labels", "shares", "holds")]
    nothing = {**samples.bench(), "rows": []}
    return [
        ("run", {"verb": "doctor"}, "is no run"),
        ("run", {**samples.demo(), "report": {}}, "missing required field"),
        ("run", {**samples.demo(), "plain_accuracy": "much"}, "Expected `float`"),
        ("attack", samples.bench(), "no output of tempo attack"),
        ("attack", other, "says nothing of scheme mixing"),
        ("bench", samples.plan(), "no output of tempo bench"),
        ("bench", nothing, "no step under Tempo"),
        ("plan", samples.demo(), "no output of tempo plan"),
        ("trace", {"traceEvents": [1]}, "no timeline"),
        ("trace", {"traceEvents": [{"ph": "X", "name": 1, "tid": 0, "ts": 0, "dur": 1}]}, "Expected `str`"),
        ("attestation", samples.demo(), "no output of tempo attest verify"),
    ]


@pytest.mark.parametrize(("option", "fields", "says"), cases())
def test_another_file_is_refused(option: str, fields: dict[str, object], says: str, tmp_path: Path) -> None:
    wrong = samples.written(tmp_path, "wrong.json", fields)
    right = samples.written(tmp_path, "demo.json", samples.demo())
    given = {"run": right} | {option: wrong}
    with pytest.raises(UsageError, match=says):
        gather(Inputs(**given))


@pytest.mark.parametrize("text", ["", "{", "[]", "1e", '{"a": NaN}', "\xff", "[" * 100_000])
def test_no_json(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="no JSON"):
        gather(Inputs(run=path))


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    report().save(tmp_path / "run.json")
    fields = json.loads((tmp_path / "run.json").read_text())
    later = samples.written(tmp_path, "later.json", {**fields, "tempo_run": VERSION + 1})
    with pytest.raises(UsageError, match="version 2"):
        gather(Inputs(run=later))


def test_no_file_and_no_run_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match="cannot be read"):
        gather(Inputs(run=tmp_path / "none.json"))
    with pytest.raises(UsageError, match="tempo demo"):
        gather(Inputs(run=tmp_path))


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    path = samples.written(tmp_path, "demo.json", samples.demo())
    found = samples.written(tmp_path, "attack.json", samples.attack())
    lying = samples.pictures()
    lying["pictures"][0]["width"] = 1 << 19
    samples.written(tmp_path, "pictures.json", lying)
    with pytest.raises(UsageError, match="shades"):
        gather(Inputs(run=path, attack=found))
