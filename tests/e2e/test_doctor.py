"""`tempo doctor` on workers that serve, lie, vanish, and were never there."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

import tempo.cli as cli
from tempo.doctor import Status, examine_workers, workers
from tempo.fleet import FleetSettings, ProcessWorker
from tempo.wire import Endpoint, limits
from tempo.wire.authority import issue, make_authority
from tempo.worker.listener import Listener, ListenSettings
from tempo.worker.malicious import Lie, LieKind


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of a size for tests: what is measured is not looked at here, but that it is."""
    monkeypatch.setattr(workers, "_PRODUCTS", ((128, 128, 128),))
    monkeypatch.setattr(workers, "_TRANSFER_TK", (256, 256))


def test_a_local_worker(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(["doctor", "--workers", "local:1", "--workers", "cpu", "--json"])
    fields = json.loads(capsys.readouterr().out)
    assert list(fields)[:5] == ["tempo", "verb", "machine", "commit", "rows"]
    assert fields["verb"] == "doctor"
    assert code == (1 if fields["problems"] else 0)
    local, device = [row for row in fields["rows"] if row["name"].startswith("worker ")]
    assert (local["name"], device["name"]) == ("worker local-0", "worker cpu-1")
    for row in (local, device):
        assert (row["status"], row["reached"], row["protocol_version"]) == ("ok", True, limits.VERSION)
        for figure in ("round_trip_ms", "up_mb_per_s", "down_mb_per_s", "gflop_per_s"):
            assert row[figure] > 0


def test_an_address_where_nobody_listens(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    assert cli.run(["doctor", "--workers", f"unix:{tmp_path}/nobody", "--json"]) == 3
    row = json.loads(capsys.readouterr().out)["rows"][-1]
    assert (row["status"], row["reached"], row["round_trip_ms"]) == ("problem", False, None)
    assert "cannot be reached" in row["found"]


def test_one_that_takes_the_connection_and_says_nothing_costs_a_deadline(tmp_path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/silent")
        listener.listen()
        start = time.monotonic()
        # Both are waited for together.
        found = examine_workers([f"unix:{tmp_path}/silent"] * 2, None)
        assert time.monotonic() - start < 15.0
    assert [(each.reached, each.finding.status) for each in found] == [(False, Status.PROBLEM)] * 2


@pytest.mark.security
def test_a_liar_is_a_problem() -> None:
    liar = ProcessWorker("liar", unsafe_lie=Lie(LieKind.FLIP_ENTRY, 2, 1))
    (found,) = examine_workers([liar], None)
    assert (found.reached, found.finding.status, found.figures) == (True, Status.PROBLEM, None)
    assert "wrong result" in found.finding.found


@pytest.mark.parametrize("kind", [LieKind.EXIT, LieKind.GARBAGE, LieKind.SILENCE])
def test_one_that_is_lost_under_way(kind: LieKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_SETTINGS", FleetSettings(deadline_base_s=1.0))
    (found,) = examine_workers([ProcessWorker("bad", unsafe_lie=Lie(kind, 2, 1))], None)
    assert (found.reached, found.finding.status) == (False, Status.PROBLEM)
    assert "lost under way" in found.finding.found


@pytest.mark.security
def test_workers_of_tempo_toml_behind_tls(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pki = tmp_path / "pki"
    make_authority(pki)
    files = issue(pki, "gpu-a", "worker", ["127.0.0.1"], days=5)
    issue(pki, "m", "master")
    listener = Listener(ListenSettings(endpoint=Endpoint.parse("127.0.0.1:0"), tls=files))
    thread = threading.Thread(target=listener.serve)
    thread.start()
    monkeypatch.chdir(tmp_path)
    tls = '[tls]\ncert = "pki/m.pem"\nkey = "pki/m.key"\nca = "pki/ca.pem"\n'
    (tmp_path / "tempo.toml").write_text(f'workers = "{listener.endpoint}"\n{tls}')
    try:
        code = cli.run(["doctor", "--json"])
        fields = json.loads(capsys.readouterr().out)
        rows = {row["name"].partition(" ")[0]: row for row in fields["rows"]}
        assert code == (1 if fields["problems"] else 0)
        assert rows["settings"]["status"] == rows["certificate"]["status"] == "ok"
        worker = rows["worker"]
        assert (worker["reached"], worker["tls"]) == (True, "TLSv1.3")
        assert worker["status"] == "note", "its certificate ends in five days"
        assert "tempo worker issue" in worker["mend"]
        since, until = worker["clock_between"]
        assert since < worker["certificate_expires"] < until
        # Another authority's: the worker refuses this side, and the doctor says what to do.
        make_authority(tmp_path / "other")
        issue(tmp_path / "other", "m", "master")
        (tmp_path / "tempo.toml").write_text(
            f'workers = "{listener.endpoint}"\n' + tls.replace("pki/m.", "other/m.")
        )
        assert cli.run(["doctor", "--json"]) == 3
        row = json.loads(capsys.readouterr().out)["rows"][-1]
        assert (row["reached"], row["tls"]) == (False, None)
        assert "by one authority" in row["mend"]
    finally:
        listener.stop()
        thread.join(20)
    assert not thread.is_alive()
