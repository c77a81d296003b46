"""`tempo doctor`: exit codes and what is printed, for findings given."""

from __future__ import annotations

import json

import pytest

import tempo.cli as cli
from tempo.doctor import Finding, Status, WorkerFinding

FINE = Finding("cpu", Status.OK, "fine")
NOTED = Finding("tee", Status.NOTE, "[none] found", "buy one")
BAD = Finding("clock", Status.PROBLEM, "1970", "set it")


def given(monkeypatch: pytest.MonkeyPatch, host: list[Finding], workers: list[WorkerFinding]) -> None:
    monkeypatch.setattr("tempo.doctor.examine_host", lambda _: host)
    monkeypatch.setattr("tempo.doctor.examine_workers", lambda *_: workers)


@pytest.mark.parametrize(
    ("host", "workers", "code"),
    [
        ([FINE, NOTED], [], 0),
        ([FINE, BAD], [], 1),
        ([FINE], [WorkerFinding(BAD, reached=True)], 1),
        ([FINE], [WorkerFinding(BAD, reached=False)], 3),
        ([BAD], [WorkerFinding(FINE, reached=True), WorkerFinding(BAD, reached=False)], 3),
    ],
)
def test_exit_codes(host, workers, code, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    given(monkeypatch, host, workers)
    options = ["--workers", "local:1"] if workers else []
    assert cli.run(["doctor", *options, "--json"]) == code
    printed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in printed["rows"]] == [
        f.name for f in [*host, *(w.finding for w in workers)]
    ]
    assert cli.run(["doctor", *options]) == code
    shown = capsys.readouterr().out
    assert all(f.found in shown and f.status.value in shown for f in host)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cert", "x"], "given together"),
        (["--workers", "nonsense"], "names no worker"),
        (["--workers", "local:0"], "names no worker"),
        (["--workers", "host.example:7443"], "needs certificates: give --cert, --key and --ca"),
        (["--workers", "vsock:3:7443"], "needs certificates: give --cert, --key and --ca"),
        (["--workers", "cuda:99"], "no device"),
        (["--workers", "a:1", "--cert", "x", "--key", "y", "--ca", "z"], "x cannot be read"),
    ],
)
def test_bad_usage(arguments: list[str], says: str, capsys) -> None:
    assert cli.run(["doctor", *arguments]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
