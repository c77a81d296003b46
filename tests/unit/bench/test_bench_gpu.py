"""bench/gpu on the CPU, as its users start it; and correctness that can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from tempo.bench import correctness, gpu
from tempo.bench.correctness import Finding
from tempo.bench.crew import Crew
from tempo.bench.variant import variants
from tempo.ops import Op

SCRIPT = Path(__file__).resolve().parents[3] / "bench" / "gpu"


def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=False,
    )


def test_the_test_path(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = start("--device", "cpu", "--fast", "--out", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    fields = json.loads(out.read_text())
    assert list(fields) == [
        *("tempo", "verb", "machine", "commit", "rows", "command", "device", "correct", "correctness"),
        *("constants", "notes", "extra", "skipped", "errors", "environment", "verification_share_of_step"),
        "seconds",
    ]
    assert fields["verb"] == "bench gpu"
    assert fields["correct"] is True
    assert fields["errors"] == []
    assert {row["suite"] for row in fields["rows"]} == {"layers", "paper", "scale"}
    assert {row["workers_are"] for row in fields["rows"]} == {"cpu", "1@cpu"}
    checks = [each["check"] for each in fields["correctness"]]
    assert all(each["passed"] for each in fields["correctness"])
    for words in (
        "product in fp32",
        "grad_w in bf16",
        "has teeth",
        "training, mixing, float64",
        "liar (flip_entry",
    ):
        assert any(words in check for check in checks), words
    assert all(0 < each["share"] < 1 for each in fields["verification_share_of_step"])
    assert "correct: yes" in done.stdout
    assert "break-even" in done.stdout


def test_wheels_reach_the_script_and_what_it_starts(tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "rich-99-py3-none-any.whl", "w") as wheel:
        wheel.writestr("rich/__init__.py", "raise ImportError('this one came from the wheel')")
    done = start("--wheels", str(folder), "--device", "cpu", "--fast")
    assert done.returncode == 3
    assert "this one came from the wheel" in done.stderr
    assert start("--wheels", str(tmp_path)).returncode == 3


def test_a_device_that_is_not_here() -> None:
    done = start("--device", "cuda:99", "--fast")
    assert done.returncode == 3
    assert "no device" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_says_what_is_needed() -> None:
    text = start("--help").stdout
    for word in ("Python 3.11", "torch 2.6", "msgspec", "cryptography", "--wheels", "pip download"):
        assert word in text


def test_a_failed_check_is_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def wrong(device: str):
        yield Finding("product in fp32", False, 2.0, 1.0, "too far")

    monkeypatch.setattr(correctness, "products", wrong)
    monkeypatch.setattr(correctness, "training", lambda *_: iter(()))
    monkeypatch.setattr(correctness, "liars", lambda *_: iter(()))
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--fast", "--budget", "1", "--out", str(out)]) == 1
    assert json.loads(out.read_text())["correct"] is False
    printed = capsys.readouterr()
    assert "WRONG: product in fp32" in printed.err
    assert "correct: NO" in printed.out
    assert "skipped: layers: no time is left" in printed.out


def test_a_check_that_raises_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: str):
        raise RuntimeError("CUDA error")
        yield

    monkeypatch.setattr(correctness, "products", broken)
    monkeypatch.setattr(correctness, "training", lambda *_: iter(()))
    monkeypatch.setattr(correctness, "liars", lambda *_: iter(()))
    fields, right = gpu.run(gpu.fast("cpu"), 1.0, lambda _: None)
    assert not right
    assert "CUDA error" in fields["correctness"][0]["detail"]


@pytest.mark.parametrize("op", list(Op))
def test_products_that_are_wrong_break_the_bound(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    true = correctness.compute

    def false(op: Op, left: torch.Tensor, right: torch.Tensor, rows: tuple[int, ...]) -> torch.Tensor:
        found = true(op, left, right, rows)
        if left.dtype != torch.float64:
            found.view(-1)[3] *= 1.0001
        return found

    assert correctness._error(op, "fp32", "cpu", (64,), 64, 64) <= 1
    monkeypatch.setattr(correctness, "compute", false)
    assert correctness._error(op, "fp32", "cpu", (64,), 64, 64) > 1


def test_training_that_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    true, calls = correctness._train, []

    def drifting(model: torch.nn.Module, steps: int):
        losses, moved = true(model, steps)
        calls.append(1)
        if len(calls) > 2:  # the protected runs
            return [loss * (1 + 1e-4) for loss in losses], [each * (1 + 1e-6) for each in moved]
        return losses, moved

    monkeypatch.setattr(correctness, "_train", drifting)
    findings = list(correctness.training(Crew.parse("cpu"), variants("mixing"), 2))
    assert [finding.passed for finding in findings] == [False, False]


@pytest.mark.security
def test_a_liar_that_is_believed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were nothing checked, the step would end and parameters move: the finding must say so."""
    monkeypatch.setattr("tempo.integrity.freivalds._check", lambda job, proof, reply: reply.open_for_check())
    finding = next(correctness.liars("cpu", ["scale:0"]))
    assert not finding.passed
    assert finding.measured > 0
