"""`tempo bench`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer

import tempo.cli as cli
from tempo.bench import kernels, layers
from tempo.bench.crew import Crew
from tempo.bench.timing import Repeats
from tempo.bench.variant import Variant
from tempo.cli.bench import SuiteName

TINY = kernels.Settings(matrices=((1, 128, 64),), images=(), repeats=Repeats(1, 1, 0.0))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "FAST", TINY)


def test_suites_and_defaults() -> None:
    bench = typer.main.get_command(cli.app).commands["bench"]
    defaults = {p.name: p.default for p in bench.params}
    assert defaults == {
        "suite": None,
        "as_json": False,
        "out": None,
        "fast": False,
        "trace": None,
        "workers": None,
        "scheme": None,
        "arithmetic": "fp32",
        "threads": None,
        "only": None,
        "budget": None,
        "data_dir": None,
        "recorded": None,
        "minutes": None,
        "seed": None,
    }
    measured = ["kernels", "layers", "paper", "generate", "crypto", "scale"]
    assert list(SuiteName) == [*measured, "chaos", "integrity", "frontier", "serve", "seal"]


def test_json_is_alone_on_standard_output(tiny: None, tmp_path: Path, capsys) -> None:
    out = tmp_path / "new"
    assert cli.run(["bench", "kernels", "--fast", "--json", "--scheme", "monomial", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    fields = json.loads(printed.out)
    assert list(fields) == [
        *("tempo", "verb", "machine", "commit", "rows", "command", "environment", "constants", "skipped"),
        "notes",
    ]
    assert fields["verb"] == "bench kernels"
    assert {row["scheme"] for row in fields["rows"]} == {"monomial"}
    assert "kernels: monomial" in printed.err
    assert {path.name for path in out.iterdir()} == {
        "bench-kernels.json",
        "bench-kernels.md",
        "bench-kernels.png",
    }
    assert json.loads((out / "bench-kernels.json").read_text()) == fields
    assert "bench-kernels.png" in (out / "bench-kernels.md").read_text()


def test_a_table_for_people(tiny: None, capsys) -> None:
    assert cli.run(["bench", "kernels", "--fast"]) == 0
    printed = capsys.readouterr().out
    assert "bench kernels" in printed
    assert "note: " in printed


def test_choices_reach_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[layers.Settings] = []

    def run(settings: layers.Settings, say: object, tracer: object) -> object:
        seen.append(settings)
        raise cli.TempoError("enough")

    monkeypatch.setattr(layers, "run", run)
    before = torch.get_num_threads()
    try:
        command = [
            "bench",
            "layers",
            "--workers",
            "1,2@cpu",
            "--scheme",
            "monomial",
            "--arithmetic",
            "fp32,bf16",
        ]
        assert cli.run([*command, "--budget", "7", "--threads", "1"]) == 1
    finally:
        torch.set_num_threads(before)
    (settings,) = seen
    assert settings.crews == [Crew("1", 1, "cpu", False), Crew("2@cpu", 2, "cpu", False)]
    assert settings.variants == (Variant("monomial", "fp32"), Variant("monomial", "bf16"))
    assert settings.budget_s == 7
    assert settings.cases == layers.CASES


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["kernels", "--trace", "x.png"], "bench layers does"),
        (["kernels", "--workers", "2"], "without --workers"),
        (["frontier", "--workers", "2"], "settings of its own"),
        (["frontier", "--trace", "x.png"], "bench layers does"),
        (["layers", "--trace", "x.gif"], "a timeline is written to"),
        (["layers", "--workers", "host:7443"], "number of processes"),
        (["layers", "--scheme", "none"], "no scheme"),
        (["layers", "--data-dir", "x"], "nothing to bench layers"),
        (["layers", "--recorded", "x"], "nothing to bench layers"),
        (["crypto", "--budget", "9"], "nothing to bench crypto"),
        (["crypto", "--workers", "1,2"], "one kind of workers"),
        (["crypto", "--recorded", "/nowhere.json"], "--recorded"),
        (["chaos", "--budget", "9"], "nothing to bench chaos"),
        (["chaos", "--scheme", "mixing"], "full precision"),
        (["chaos", "--workers", "2@cpu"], "give their number"),
        (["chaos", "--trace", "x.json"], "bench layers does"),
        (["layers", "--minutes", "1"], "nothing to bench layers"),
        (["kernels", "--seed", "1"], "nothing to bench kernels"),
        (["dance"], "dance"),
        (["integrity", "--trace", "x.png"], "bench layers does"),
        (["integrity", "--workers", "2"], "workers of its own"),
        (["integrity", "--scheme", "mixing"], "workers of its own"),
        (["integrity", "--only", "nothing"], "has no part"),
        (["layers", "--budget", "0"], "--budget"),
    ],
)
def test_bad_usage(argv: list[str], says: str, capsys) -> None:
    assert cli.run(["bench", *argv]) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.out == ""


def test_out_is_a_file(tiny: None, tmp_path: Path, capsys) -> None:
    path = tmp_path / "taken"
    path.write_text("")
    assert cli.run(["bench", "kernels", "--fast", "--out", str(path)]) == 3
    assert "Name another folder" in capsys.readouterr().err
