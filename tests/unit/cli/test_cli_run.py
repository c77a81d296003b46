"""`tempo run`: where its words go, the report, exit codes, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tempo
import tempo.cli as cli

TRAIN = """
import sys, torch, tempo
from torch import nn
session = tempo.session()
model = session.protect(nn.Sequential(nn.Linear(64, 80), nn.SiLU(), nn.Linear(80, 64)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(2):
    model(torch.randn(96, 64)).square().mean().backward()
    optimizer.step()
print("trained", *sys.argv[1:])
"""
LIAR = """
import tempo
from tempo.fleet import ProcessWorker
from tempo.worker import Lie
session = tempo.session()
session.add_workers(ProcessWorker("liar", unsafe_lie=Lie.parse("flip_entry:0:1")))
session.remove_worker("cpu-0")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tempo.toml").write_text('workers = "cpu"\n')
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path


def test_standard_output_is_the_scripts_and_the_report_is_beside_it(folder: Path, capsys) -> None:
    assert cli.run(["run", "train.py", "--epochs", "3", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "trained --epochs 3 --json\n"
    assert "What ran where" in printed.err
    assert "INTEGRITY" not in printed.err
    assert "\ncost:" not in printed.err


def test_json_is_alone_on_standard_output(folder: Path, capfd) -> None:
    (folder / "tempo.toml").write_text('workers = "cpu"\n[prices]\ntee_per_hour = 36\ncurrency = "EUR"\n')
    (folder / "child.py").write_text(TRAIN + "import os; os.system('echo from a child')\n")
    assert cli.run(["run", "--json", "child.py"]) == 0
    printed = capfd.readouterr()
    fields = json.loads(printed.out)
    assert list(fields)[:5] == ["tempo", "verb", "machine", "commit", "rows"]
    assert (fields["verb"], fields["exit_code"], fields["error"]) == ("run", 0, None)
    assert fields["checks"] > 0 == fields["checks_failed"]
    assert {row["module"] for row in fields["rows"]} == {"0", "2"}
    assert len(fields["sessions"]) == 1
    assert "trained" in printed.err
    assert "from a child" in printed.err
    money = fields["money"]
    assert (money["currency"], money["cost"]) == ("EUR", None)
    assert "gpu_per_hour was not given" in money["assumptions"]


def test_the_price_of_a_run(folder: Path, capsys) -> None:
    (folder / "tempo.toml").write_text('workers = "cpu"\n[prices]\ntee_per_hour = 3\ngpu_per_hour = 6\n')
    assert cli.run(["run", "--json", "train.py"]) == 0
    fields = json.loads(capsys.readouterr().out)
    rounded = 9 * 0.5e-4 / 3600  # seconds are printed to four places
    assert fields["money"]["cost"] == pytest.approx(9 * fields["seconds"] / 3600, rel=1e-9, abs=rounded)


@pytest.mark.parametrize(
    ("text", "code", "last"),
    [
        (TRAIN + "{}['key']", 1, "KeyError: 'key'"),
        (TRAIN + "sys.exit('enough')", 1, "enough"),
        (TRAIN + "sys.exit(9)", 9, ""),
        (TRAIN + "raise KeyboardInterrupt", 130, "Interrupted."),
        (TRAIN + "session.protect(nn.Linear(64, 64).bfloat16())", 2, "keep=[...] for this module."),
        ("print('x')", 2, "let it call tempo.session() and session.protect(model) (docs/run.md)"),
    ],
)
def test_exit_codes_and_last_words(text: str, code: int, last: str, folder: Path, capsys) -> None:
    (folder / "train.py").write_text(text + "\n")
    assert cli.run(["run", "train.py"]) == code
    err = capsys.readouterr().err
    assert err.rstrip().endswith(last)
    assert "/tempo/" not in err.replace(str(folder), "")
    assert cli.run(["run", "--json", "train.py"]) == code
    fields = json.loads(capsys.readouterr().out)
    assert fields["exit_code"] == code


def test_a_session_of_the_scripts_own_is_not_said_to_protect_nothing(folder: Path, capsys) -> None:
    (folder / "train.py").write_text(
        TRAIN.replace("tempo.session()", "tempo.Session('cpu')") + "session.close()\n"
    )
    assert cli.run(["run", "train.py"]) == 2
    err = capsys.readouterr().err
    assert "train.py did not call tempo.session(), so this run knows of no protection" in err
    assert "nothing was protected" not in err


def test_words_of_a_foreign_error_stay_out_of_json(folder: Path, capsys) -> None:
    (folder / "train.py").write_text("import tempo\ntempo.session()\nraise ValueError('a patient')\n")
    assert cli.run(["run", "--json", "train.py"]) == 1
    out = capsys.readouterr().out
    assert json.loads(out)["error"] == "ValueError"
    assert "patient" not in out


@pytest.mark.security
@pytest.mark.parametrize("ends", ["", "\nraise RuntimeError('at the end')"])
def test_integrity_has_the_last_word_in_red(ends: str, folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    (folder / "train.py").write_text(LIAR + TRAIN + ends)
    assert cli.run(["run", "train.py"]) == (1 if ends else 0)
    err = capsys.readouterr().err
    assert err.count("INTEGRITY: 1 of ") == 1
    last = err.rstrip().splitlines()[-1]
    assert last.startswith("\x1b[1;31mINTEGRITY: 1 of ")
    assert "Workers: liar" in last
    assert ("RuntimeError" in err) == bool(ends)


def test_settings_that_are_wrong_are_said_before_anything_runs(folder: Path, capsys) -> None:
    for config, says, code in (
        ("none.toml", "none.toml cannot be read", 3),
        ("bad.toml", "unknown key session.shceme", 2),
        ("watch.toml", "watch.every = 0", 2),
        ("vault.toml", "add [vault.tls], or [tls]", 2),
    ):
        (folder / "bad.toml").write_text("[session]\nshceme = 'x'\n")
        (folder / "watch.toml").write_text("[watch]\nevery = 0\n")
        (folder / "vault.toml").write_text("[vault]\naddress = 'v.example:7444'\n")
        assert cli.run(["run", "--config", config, "train.py"]) == code
        printed = capsys.readouterr()
        assert says in " ".join(printed.err.split())
        assert "trained" not in printed.out
    assert cli.run(["run", "nowhere.py"]) == 2


def test_as_a_command_and_where_a_fork_of_data_loaders_is_needed(folder: Path) -> None:
    """A real process: standard output is whole although a loader's children share it."""
    (folder / "train.py").write_text(
        TRAIN
        + "from torch.utils.data import DataLoader, TensorDataset\n"
        + "data = DataLoader(TensorDataset(torch.arange(8.0)), batch_size=4, num_workers=1)\n"
        + "print(sum(float(x.sum()) for x, in data))\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(tempo.__file__).parents[1])}
    command = [sys.executable, "-c", "from tempo.cli import main; main()", "run", "train.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained\n28.0\n"
