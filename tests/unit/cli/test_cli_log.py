"""`tempo log`: what an auditor does, with the public key alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer

import tempo.cli as cli
from tempo.trust.ledger import Kind, Ledger, Signer
from tempo.trust.ledger.files import CHECKPOINT, ENTRIES

pytestmark = pytest.mark.security

OPTIONS = {
    "show": ["--key", "--kind", "--last", "--json"],
    "verify": ["--key", "--since", "--json"],
    "export": ["--key", "--entry", "--out", "--since", "--json"],
}


@pytest.fixture
def log(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A log of six entries, its public key in a file, and its checkpoint at three entries."""
    signer = Signer.generate("example.org/log")
    early = tmp_path / "early"
    with Ledger.create(tmp_path / "log", signer) as ledger:
        for i in range(5):
            ledger.append(Kind.WORKER_EVENT, worker=f"gpu-{i}", detail="[lost]")
            if i == 1:
                shutil.copy(tmp_path / "log" / CHECKPOINT, early)
    key = tmp_path / "key"
    key.write_text(f"{signer.verifier}\n")
    return tmp_path / "log", key, early


def test_options_are_frozen() -> None:
    group = typer.main.get_command(cli.app).commands["log"]
    found = {
        name: [o for p in command.params for o in p.opts if o.startswith("-")]
        for name, command in group.commands.items()
    }
    assert found == OPTIONS


def test_show(log, capsys) -> None:
    folder, key, _ = log
    assert (
        cli.run(["log", "show", str(folder), "--key", str(key), "--kind", "worker_event", "--last", "2"]) == 0
    )
    out = capsys.readouterr().out
    assert "gpu-4" in out
    assert "gpu-2" not in out
    assert "[lost]" in out


def test_show_json(log, capsys) -> None:
    folder, key, _ = log
    assert cli.run(["log", "show", str(folder), "--key", key.read_text(), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["size"] == 6
    assert [row["index"] for row in printed["rows"]] == list(range(6))
    assert set(printed["rows"][0]) == {"index", "at", "kind", "fields"}


def test_verify_says_what_it_cannot_tell(log, capsys) -> None:
    folder, key, early = log
    assert cli.run(["log", "verify", str(folder), "--key", str(key)]) == 0
    assert "--since FILE checks that" in " ".join(capsys.readouterr().out.split())
    assert cli.run(["log", "verify", str(folder), "--key", str(key), "--since", str(early)]) == 0
    assert "extends the log of 3" in " ".join(capsys.readouterr().out.split())


def test_an_altered_entry_is_exit_code_1(log, capsys) -> None:
    folder, key, _ = log
    path = folder / ENTRIES
    path.write_bytes(path.read_bytes().replace(b"gpu-1", b"gpu-9"))
    assert cli.run(["log", "verify", str(folder), "--key", str(key)]) == 1
    assert "entry 2" in capsys.readouterr().err


def test_a_proof_is_checked_without_the_log(log, tmp_path, capsys) -> None:
    folder, key, early = log
    out = tmp_path / "proof.json"
    export = ["log", "export", str(folder), "--key", str(key), "--entry", "4", "--out", str(out)]
    assert cli.run([*export, "--since", str(early)]) == 0
    shutil.rmtree(folder)
    capsys.readouterr()
    assert cli.run(["log", "verify", str(out), "--key", str(key), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["rows"][0]
    assert row["fields"]["worker"] == "gpu-3"
    assert row["extends_an_earlier"]
    out.write_text(out.read_text().replace("gpu-3", "gpu-4"))
    assert cli.run(["log", "verify", str(out), "--key", str(key)]) == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "LOG", "--key", "nowhere"], 2),
        (["show", "LOG", "--key", "a+b+c"], 2),
        (["show", "LOG", "--key", "KEY", "--kind", "nonsense"], 2),
        (["show", "none", "--key", "KEY"], 3),
        (["verify", "LOG", "--key", "KEY", "--since", "none"], 2),
        (["export", "LOG", "--key", "KEY", "--entry", "6", "--out", "OUT"], 2),
        (["export", "LOG", "--key", "KEY", "--entry", "1", "--out", "none/out"], 3),
    ],
)
def test_bad_input_is_one_line(log, tmp_path, capsys, arguments, code) -> None:
    folder, key, _ = log
    names = {"LOG": str(folder), "KEY": str(key), "OUT": str(tmp_path / "out")}
    assert cli.run(["log", *(names.get(a, a) for a in arguments)]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len([line for line in printed.err.splitlines() if line.strip()]) == 1
    assert not (tmp_path / "out").exists()
