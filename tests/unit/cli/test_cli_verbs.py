"""The command line: exit codes, what goes to which stream, and the options, which are frozen here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

import tempo.cli as cli
from tempo.cli import output
from tempo.errors import DataError, IntegrityError, TempoError, UsageError

#: Change it only with an entry in the changelog: scripts depend on these.
OPTIONS = {
    "attack": [
        *("--suite", "--only", "--scheme", "--reference", "--script", "--steps", "--transcript", "--truth"),
        *("--fast", "--budget", "--require", "--fail-on", "--out", "--resume", "--jobs", "--json", "--list"),
    ],
    "attest": [],  # a group: tests/unit/cli/test_cli_attest.py
    "bench": [
        *("--json", "--out", "--fast", "--trace", "--workers", "--scheme", "--arithmetic"),
        *("--only", "--threads", "--budget", "--data-dir", "--recorded", "--minutes", "--seed"),
    ],
    "completion": ["--json"],
    "demo": [
        *("--fast", "--workers", "--scheme", "--steps", "--out", "--data-dir", "--json", "--seed"),
        *("--owner", "--unsafe-simulator"),
    ],
    "doctor": ["--workers", "--cert", "--key", "--ca", "--crl", "--config", "--json"],
    "log": [],  # a group: tests/unit/cli/test_cli_log.py
    "plan": [
        *("--workers", "--scheme", "--batch", "--inference", "--placement", "--wire", "--arithmetic"),
        *("--keep", "--calibration"),
        *("--save", "--measure", "--steps", "--samples", "--epochs", "--prices", "--currency"),
        "--tee-per-hour",
        *("--gpu-per-hour", "--confidential-gpu-per-hour", "--egress-per-gb", "--gpu-flops"),
        *("--confidential-slowdown", "--cert", "--key", "--ca", "--crl", "--page", "--lang", "--json"),
    ],
    "report": [
        *("--out", "--attack", "--bench", "--plan", "--trace", "--attestation", "--log", "--key", "--since"),
        *("--own-pictures", "--title", "--lang", "--save", "--json"),
    ],
    "run": ["--config", "--json"],
    "seal": ["--key", "--create-key", "--name", "--sequence", "--json"],
    "unseal": ["--key", "--name", "--at-least", "--json"],
    "vault": [],  # a group: tests/unit/cli/test_cli_vault.py
    "worker": [
        *("--listen", "--device", "--cert", "--key", "--ca", "--crl", "--memory", "--threads", "--record"),
        *("--max-connections", "--unsafe-plaintext", "--unsafe-lie", "--json"),
    ],
}


def test_options_are_frozen() -> None:
    group = typer.main.get_command(cli.app)
    found = {
        name: [option for p in command.params for option in p.opts if option.startswith("-")]
        for name, command in group.commands.items()
    }
    assert found == OPTIONS
    assert [option for p in group.params for option in p.opts] == ["--version"]


def test_defaults_of_demo() -> None:
    demo = typer.main.get_command(cli.app).commands["demo"]
    defaults = {p.name: p.default for p in demo.params}
    assert defaults == {
        "fast": False,
        "workers": 2,
        "scheme": "mixing",
        "steps": None,
        "out": Path("demo-results"),
        "data_dir": None,
        "as_json": False,
        "seed": 0,
        "owner": False,
        "unsafe_simulator": False,
    }


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def raises(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("tempo.demo.run.run", raises)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TempoError("this [is]\nwrong"), 1),
        (IntegrityError("this [is] wrong"), 1),
        (UsageError("this [is] wrong"), 2),
        (DataError("this [is] wrong"), 3),
    ],
)
def test_our_errors_are_one_line(
    error: TempoError, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    failing(monkeypatch, error)
    assert cli.run(["demo", "--out", str(tmp_path)]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line for line in printed.err.splitlines() if line.strip()] == ["Error: this [is] wrong"]


def test_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert cli.run(["demo", "--out", str(tmp_path)]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("debug", [False, True])
def test_faults_of_ours(debug: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("TEMPO_DEBUG", "1" if debug else "0")
    failing(monkeypatch, RuntimeError("shapes do not meet"))
    assert cli.run(["demo", "--out", str(tmp_path)]) == 70
    printed = capsys.readouterr().err
    assert "Internal error: RuntimeError: shapes do not meet" in printed
    assert ("Traceback" in printed) == debug
    assert ("TEMPO_DEBUG=1" in printed) != debug


@pytest.mark.parametrize(
    "argv",
    [
        ["demo", "--workers", "0"],
        ["demo", "--scheme", "none"],
        ["demo", "--steps", "1"],
        ["demo", "--frobnicate"],
        ["plan"],
        ["plan", "mlp:64x1", "--workers"],
        ["fly"],
        [],
    ],
)
def test_bad_usage(argv: list[str], capsys) -> None:
    assert cli.run(argv) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_out_is_a_file(tmp_path: Path, capsys) -> None:
    path = tmp_path / "taken"
    path.write_text("")
    assert cli.run(["demo", "--out", str(path)]) == 3
    assert "Name another folder" in capsys.readouterr().err


def test_version_and_main(capsys) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"tempo {output.tempo_version()}\n"
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0


class Outcome:
    """As much of an outcome as the verb looks at with --json."""

    def __init__(self, broken: list[str]) -> None:
        self.broken = broken

    def fields(self) -> dict[str, object]:
        return output.document("demo", [{"step": 0}], seconds=1.0)


@pytest.mark.parametrize(("broken", "code"), [([], 0), (["[red] promise"], 1)])
def test_json_is_alone_on_standard_output(
    broken: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def story(settings, watcher) -> Outcome:
        watcher.say("a notice")
        watcher.begin("phase", 2)
        watcher.step(0, 1.0)
        watcher.end()
        return Outcome(broken)

    monkeypatch.setattr("tempo.demo.run.run", story)
    monkeypatch.setattr("tempo.demo.run.write", lambda *_: [])
    assert cli.run(["demo", "--json", "--out", str(tmp_path)]) == code
    printed = capsys.readouterr()
    fields = json.loads(printed.out)
    assert list(fields)[:5] == ["tempo", "verb", "machine", "commit", "rows"]
    assert fields["verb"] == "demo"
    assert "a notice" in printed.err
    assert ("promise" in printed.err) == bool(broken)


def test_document_refuses_a_clash_and_nan() -> None:
    with pytest.raises(ValueError, match="belong to every verb"):
        output.document("demo", [], machine="other")
    with pytest.raises(ValueError, match="not JSON compliant"):
        output.to_json({"loss": float("nan")})
