"""`tempo report` and the page of `tempo plan`: files, exit codes, one JSON object."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report_samples as samples

pytest.importorskip("jinja2")

import tempo.cli as cli
from tempo.trust.ledger import Kind, Ledger, Signer


def test_a_folder_becomes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = samples.whole_folder(tmp_path), tmp_path / "page.html"
    saved = tmp_path / "saved.json"
    assert (
        cli.run(["report", str(run), "--out", str(out), "--save", str(saved), "--lang", "ja", "--json"]) == 0
    )
    printed = capsys.readouterr()
    fields = json.loads(printed.out)
    assert fields["verb"] == "report"
    assert {row["section"]: row["present"] for row in fields["rows"]} == {
        **dict.fromkeys(("session", "training", "timeline", "attacks", "speed", "cost", "attestation"), True),
        "audit": False,
    }
    assert fields["verdict"]["tone"] == "care"
    assert "Written" in printed.err
    assert '<html lang="ja">' in out.read_text()
    assert cli.run(["report", str(saved), "--out", str(out)]) == 0


def test_a_plan_becomes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = samples.written(tmp_path, "plan.json", samples.plan()), tmp_path / "plan.html"
    assert cli.run(["report", str(path), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == "plan"
    assert "Plan for mlp:1024x3" in out.read_text()
    assert cli.run(["report", str(path), "--attack", str(path), "--out", str(out)]) == 2
    assert "is a plan" in capsys.readouterr().err


def test_the_log_is_verified_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signer = Signer.generate("example.org/x")
    with Ledger.create(tmp_path / "log", signer) as ledger:
        ledger.append(Kind.SESSION_OPENED, version="0", scheme="mixing", workers=["w"])
    run, out = samples.written(tmp_path, "demo.json", samples.demo()), tmp_path / "page.html"
    (tmp_path / "log.pub").write_text(str(signer.verifier))
    run_counts = samples.session()
    given = ["--log", str(tmp_path / "log"), "--key", str(tmp_path / "log.pub")]
    assert cli.run(["report", str(run), "--out", str(out), *given]) == 0
    text = out.read_text()
    assert "2 entries of example.org/x" in text
    assert "session_opened" in text
    assert "nothing ties the log to it" in text
    counts = {name: run_counts[name] for name in ("checks", "checks_failed", "bytes_sent", "bytes_received")}
    with Ledger.open(tmp_path / "log", signer) as ledger:
        ledger.append(Kind.SESSION_CLOSED, **counts, retries=4)
    assert cli.run(["report", str(run), "--out", str(out), *given]) == 0
    assert "closed with the checks and bytes of this run" in out.read_text()
    entries = tmp_path / "log" / "entries.jsonl"
    entries.write_text(entries.read_text().replace("mixing", "shares"))
    out.unlink()
    assert cli.run(["report", str(run), "--out", str(out), *given]) == 1
    assert not out.exists()
    assert "Traceback" not in capsys.readouterr().err


def test_plan_writes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From figures measured elsewhere, with prices: the page has what the JSON has."""
    figures = tmp_path / "figures.json"
    cost = {"call_seconds": 0.0, "group_seconds": 0.0, "row_seconds": 0.0, "element_seconds": 1e-9}
    each = dict.fromkeys(("narrow_one", "narrow_all", "wide_one", "wide_all"), cost)
    names = ("keys", "features", "encode", "decode", "check", "scan", "centre")
    plain = {"call_seconds": 0.0, "flop_seconds": 1e-10}
    fields = {
        "version": 1,
        "measured_at": "2026-01-01T00:00:00+00:00",
        "calibration_seconds": 1.0,
        "probes": 2,
        "tee": {
            "cpu": "made up",
            "threads": 2,
            "memcpy_elements_per_second": 1e9,
            "matmul_flops_per_second": {"float32": 1e10},
            "plain": dict.fromkeys(("linear", "conv", "bmm"), plain),
            "other_element_seconds": 0.0,
        },
        "passes": {"mixing": dict.fromkeys(names, each)},
        "lowerings": {},
        "workers": [
            {
                "name": "w0",
                "round_trip_seconds": 0.0,
                "up_bytes_per_second": 1e10,
                "down_bytes_per_second": 1e10,
                "flops_per_second": dict.fromkeys(("product", "grad_x", "grad_w"), 1e13),
            }
        ],
        "together": 1.0,
        "overlap": 1.0,
    }
    figures.write_text(json.dumps(fields))
    page = tmp_path / "plan.html"
    argv = ["plan", "mlp:256x3", "--batch", "512", "--calibration", str(figures), "--samples", "10000"]
    argv += [
        "--epochs",
        "3",
        "--tee-per-hour",
        "3",
        "--gpu-per-hour",
        "2",
        "--confidential-gpu-per-hour",
        "9",
    ]
    assert cli.run([*argv, "--currency", "EUR", "--page", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {even["name"] for even in found["break_even"]} >= {"gpu_per_hour", "confidential_gpu_per_hour"}
    assert [stage["name"] for stage in found["adoption"]] == ["pilot", "standardise", "routine"]
    text = page.read_text()
    assert "Plan for mlp:256x3" in text
    assert "3 epochs cost" in text
    assert "EUR an hour" in text


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["report"], 2, "Missing argument"),
        (["report", "none.json"], 3, "cannot be read"),
        (["report", "demo.json", "--key", "k"], 2, "name it with --log"),
        (["report", "demo.json", "--log", "log"], 2, "--log needs --key"),
        (["report", "demo.json", "--out", "none/page.html"], 3, "folder that exists"),
        (["report", "demo.json", "--attack", "demo.json"], 2, "no output of tempo attack"),
        (["report", "demo.json", "--lang", "fr"], 2, "fr"),
        (["plan", "mlp:64x1", "--page", "none/page.html"], 3, "folder that exists"),
    ],
)
def test_bad_usage_of_reports(
    argv: list[str], code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    samples.written(tmp_path, "demo.json", samples.demo())
    assert cli.run(argv) == code
    printed = capsys.readouterr().err
    assert says in " ".join(printed.split())
    assert "Traceback" not in printed


def test_without_jinja2_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempo.cli.pages.find_spec", lambda name: None)
    assert cli.run(["report", str(samples.written(tmp_path, "d.json", samples.demo()))]) == 2
    assert "tempo-confidential[report]" in capsys.readouterr().err.replace("\n", "")
