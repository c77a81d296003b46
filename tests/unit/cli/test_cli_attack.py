"""`tempo attack`: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import typer

import tempo.cli as cli
from tempo.attacks.registry import Entry
from tempo.attacks.suite import choose
from tempo.attacks.suite.rows import FIELDS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "attacks"))
from planted import Greedy, NoScorer, Reading, ReadingScorer, tiny  # noqa: E402


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = (
        Entry(Reading(), ReadingScorer(), ("tiny", "other")),
        Entry(Greedy(), NoScorer(), ("tiny",)),
    )
    monkeypatch.setattr(choose, "ATTACKS", entries)
    monkeypatch.setattr(choose, "REFERENCES", {"tiny": tiny, "other": tiny})


def test_defaults() -> None:
    attack = typer.main.get_command(cli.app).commands["attack"]
    assert {p.name: p.default for p in attack.params} == {
        **dict.fromkeys(("suite", "only", "scheme", "reference", "script", "transcript", "truth", "budget")),
        **dict.fromkeys(("require", "fail_on", "out", "jobs")),
        **{"steps": 3, "fast": False, "as_json": False, "listed": False, "resume": False},
    }


def test_json_tables_and_pictures(tmp_path: Path, capsys) -> None:
    out = tmp_path / "new"
    command = ["attack", "--fast", "--scheme", "unsafe_none", "--scheme", "mixing", "--json"]
    assert cli.run([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    fields = json.loads(printed.out)
    assert list(fields) == [*("tempo", "verb", "machine", "commit", "rows", "command", "subjects", "seconds")]
    assert fields["verb"] == "attack"
    assert fields["subjects"] == {"tiny": "a tiny perceptron on noise"}
    assert [tuple(row) for row in fields["rows"]] == [FIELDS] * 4
    assert [(r["attack"], r["scheme"], r["verdict"]) for r in fields["rows"]] == [
        ("reading", "unsafe_none", "broken"),
        ("greedy", "unsafe_none", "skipped"),
        ("reading", "mixing", "holds"),
        ("greedy", "mixing", "skipped"),
    ]
    assert {path.name for path in out.iterdir()} == {
        *(
            "attack.json",
            "attack.csv",
            "attack.md",
            "attack-verdicts.png",
            "attack-scores.png",
            "verdicts.json",
            "pictures.json",
        ),
        *("attack-unsafe_none-pictures.png", "attack-mixing-pictures.png"),
    }
    assert json.loads((out / "attack.json").read_text()) == fields
    rows = list(csv.DictReader((out / "attack.csv").read_text().splitlines()))
    assert [row["verdict"] for row in rows] == ["broken", "skipped", "holds", "skipped"]
    verdicts = json.loads((out / "verdicts.json").read_text())["schemes"]
    assert verdicts["mixing"]["reading"]["verdict"] == "holds"
    text = (out / "attack.md").read_text()
    assert "attack-verdicts.png" in text
    assert "## Not measured" in text


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--require", "holds", "--scheme", "mixing"], 0),
        (["--require", "holds", "--scheme", "monomial"], 0),
        (["--fail-on", "broken,leaks", "--scheme", "unsafe_none"], 0),
        (["--fail-on", "holds", "--scheme", "mixing"], 1),
    ],
)
def test_exit_codes(options: list[str], code: int, capsys) -> None:
    assert cli.run(["attack", "--only", "reading", "--fast", *options]) == code
    printed = capsys.readouterr()
    assert ("Not kept" in printed.err) == bool(code)
    assert "What each attack found" in printed.out


def test_all_references_but_with_fast_the_first(capsys) -> None:
    for options, wanted in ((["--fast"], {"tiny"}), ([], {"tiny", "other"})):
        argv = ["attack", "--suite", "reading", "--scheme", "unsafe_none", "--json", *options]
        assert cli.run(argv) == 0
        assert {row["reference"] for row in json.loads(capsys.readouterr().out)["rows"]} == wanted


def test_what_there_is(capsys) -> None:
    assert cli.run(["attack", "--list"]) == 0
    assert "reading" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--suite", "dance"], "there is no attack"),
        (["--only", "dance"], "no attack is named like"),
        (["--scheme", "none"], "there is no scheme"),
        (["--scheme", "mixing:block=x"], "no value for block"),
        (["--reference", "cats"], "there is no reference"),
        (["--reference", "tiny", "--script", "x.py"], "exclude one another"),
        (["--transcript", "x", "--script", "x.py"], "exclude one another"),
        (["--truth", "x"], "belongs to --transcript"),
        (["--transcript", "x"], "under one scheme"),
        (["--require", "broken"], "--require"),
        (["--fail-on", "everything"], "--fail-on"),
        (["--script", "nothing"], "expected script.py"),
        (["--budget", "0"], "--budget"),
        (["--resume"], "--out"),
    ],
)
def test_bad_usage(argv: list[str], says: str, capsys) -> None:
    assert cli.run(["attack", *argv]) == 2
    printed = capsys.readouterr()
    assert says in " ".join(printed.err.split())
    assert printed.out == ""


def test_out_is_a_file(tmp_path: Path, capsys) -> None:
    path = tmp_path / "taken"
    path.write_text("")
    assert cli.run(["attack", "--out", str(path)]) == 3
    assert "Name another folder" in capsys.readouterr().err


def test_no_transcript_there(tmp_path: Path, capsys) -> None:
    assert cli.run(["attack", "--transcript", str(tmp_path), "--scheme", "mixing"]) == 3
    assert "--record" in capsys.readouterr().err


SCRIPT = """
import torch
from torch import nn

def subject():
    model = nn.Sequential(nn.Linear(80, 64), nn.ReLU(), nn.Linear(64, 5))
    return model, [(torch.randn(96, 80), torch.randint(0, 5, (96,))) for _ in range(4)]

def scalar():
    model, batches = subject()
    return model, [x for x, _ in batches], lambda model, x: model(x).square().mean()

def wrong():
    return 3
"""


@pytest.mark.parametrize("function", ["", ":subject", ":scalar"])
def test_a_script_of_ones_own(function: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SCRIPT)
    argv = ["attack", "--script", f"{path}{function}", "--steps", "2", "--scheme", "mixing", "--json"]
    assert cli.run(argv) == 0
    fields = json.loads(capsys.readouterr().out)
    reading, greedy = fields["rows"]
    assert (reading["reference"], reading["verdict"], reading["undefended"]) == ("script", "holds", 1.0)
    assert reading["n"] == 2 * 96
    assert "no public weights" in greedy["note"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("mine.py:wrong", "returned int"), ("mine.py:absent", "no callable"), ("no_such_module:f", "no module")],
)
def test_a_script_that_does_not_fit(name: str, says: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    where = str(tmp_path / name) if name.startswith("mine") else name
    assert cli.run(["attack", "--script", where]) == 2
    assert says in capsys.readouterr().err


def test_more_steps_than_batches(tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    assert cli.run(["attack", "--script", str(tmp_path / "mine.py"), "--steps", "9"]) == 2
    assert "4 batches" in capsys.readouterr().err
