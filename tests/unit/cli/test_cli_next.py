"""What is printed last says what comes next, and the command line takes it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from test_cli_guides import parsed

import tempo.cli as cli

NONCE = "22" * 32
SECRET = ("--passphrase-file", "words")


def last_command(capsys: pytest.CaptureFixture[str]) -> list[str]:
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Next: tempo ")
    words = shlex.split(last.removeprefix("Next: tempo "))
    parsed(words)
    return words


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text("a,b\n1,2\n")
    Path("words").write_text("correct horse\n")
    Path("words").chmod(0o600)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "then"),
    [
        ("worker ca pki", ["worker", "issue", "pki"]),
        ("seal data.csv data.tempo --key data.key --create-key", ["unseal", "data.tempo"]),
        ("vault init vault --name example.org/vault --passphrase-file words", ["vault", "add", "vault"]),
        ("doctor", ["plan"]),
    ],
)
def test_first_steps(command: str, then: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(command.split()) == 0
    assert last_command(capsys)[: len(then)] == then


def test_what_is_named_next_works(capsys: pytest.CaptureFixture[str]) -> None:
    """Followed word for word, each to its end."""
    assert cli.run(["worker", "ca", "pki"]) == 0
    assert cli.run(last_command(capsys)) == 0
    listen = last_command(capsys)
    assert listen[:1] == ["worker"]
    assert all(Path(listen[listen.index(name) + 1]).is_file() for name in ("--cert", "--key", "--ca"))
    assert cli.run(["seal", "data.csv", "a b.tempo", "--key", "data.key", "--create-key"]) == 0
    unseal = last_command(capsys)
    assert cli.run(unseal) == 0
    assert Path(unseal[2]).read_text() == "a,b\n1,2\n"
    capsys.readouterr()
    assert cli.run(["vault", "init", "vault", "--name", "example.org/vault", *SECRET]) == 0
    assert cli.run(last_command(capsys)) == 0
    export = ["log", "export", "vault/log", "--key", "vault/log.pub", "--entry", "0", "--out", "proof.json"]
    assert cli.run(export) == 0
    assert cli.run(last_command(capsys)) == 0


def test_a_report_asks_for_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jinja2")
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
    try:
        import report_samples as samples
    finally:
        sys.path.pop(0)
    run = samples.written(tmp_path, "demo.json", samples.demo())
    assert cli.run(["report", str(run)]) == 0
    assert last_command(capsys)[:2] == ["attack", "--script"]
    whole = tmp_path / "whole"
    whole.mkdir()
    assert cli.run(["report", str(samples.whole_folder(whole))]) == 0
    assert last_command(capsys)[0] == "report"
    plan = samples.written(tmp_path, "plan.json", samples.plan())
    assert cli.run(["report", str(plan)]) == 0
    assert last_command(capsys) == ["doctor"]


@pytest.mark.parametrize(
    ("model", "then"),
    [
        ("mlp:64x2", "attack --reference mlp --scheme mixing --fast --out found"),
        ("my train.py:build", "attack --script 'my train.py:subject' --scheme mixing --fast --out found"),
    ],
)
def test_a_plan_goes_on_to_the_attacks(model: str, then: str, capsys: pytest.CaptureFixture[str]) -> None:
    from tempo.cli import plan

    plan._next(model, plan.SchemeName.mixing)
    assert last_command(capsys) == shlex.split(then)


def test_a_doctor_hands_on_the_certificates(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Without them the plan would refuse the same workers."""
    from tempo.doctor import Finding, Status, WorkerFinding

    fine = WorkerFinding(Finding("gpu", Status.OK, "fine"), reached=True)
    monkeypatch.setattr("tempo.doctor.examine_host", lambda _: [])
    monkeypatch.setattr("tempo.doctor.examine_workers", lambda *_: [fine])
    assert cli.run(["worker", "ca", "pki"]) == 0
    assert cli.run(["worker", "issue", "pki", "--name", "m", "--role", "master"]) == 0
    given = ["--cert", "pki/m.pem", "--key", "pki/m.key", "--ca", "pki/ca.pem"]
    assert cli.run(["doctor", "--workers", "gpu-a.example:7443", *given]) == 0
    then = last_command(capsys)
    assert then == ["plan", "mlp:4096x4", "--workers", "gpu-a.example:7443", *given]


def test_a_report_hands_on_what_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Else the page that comes next has lost it, and the line after it asks for it again."""
    pytest.importorskip("jinja2")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "report")
    import report_samples as samples

    folder = tmp_path / "apart"
    folder.mkdir()
    given = [str(samples.written(tmp_path, "demo.json", samples.demo())), "--title", "a run"]
    for option, fields in (("--attack", samples.attack()), ("--plan", samples.plan())):
        given += [option, str(samples.written(folder, f"{option[2:]}.json", fields))]
    given += ["--out", "page.html", "--lang", "ja"]
    assert cli.run(["report", *given]) == 0
    then = last_command(capsys)
    assert then[-4:] == ["--log", "log", "--key", "log.pub"]
    again = dict(zip(then[2:-4:2], then[3:-4:2], strict=True))
    assert then[:2] == ["report", given[0]]
    assert again == dict(zip(given[1::2], given[2::2], strict=True))
