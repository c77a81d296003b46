"""`tempo bench chaos`: what it prints, and its exit code. The run itself is tests/e2e/test_chaos.py."""

import json

import pytest

import tempo.cli as cli
from tempo.chaos import ends
from tempo.chaos import run as chaos
from tempo.chaos.orders import End, Step
from tempo.chaos.training import DTYPES, curve

DONE = {"at": 1.0, "worker": 2, "fault": "cut", "seconds": 1.0, "amount": 0.0, "lie": ""}
DONE |= {"done_at": 1.0, "undone_at": 2.0, "failed": ""}
FIGURES = {"bytes_received": 10**7, "checks": 900, "checks_failed": 0, "retries": 1, "local_fallbacks": 0}


def fake(monkeypatch, left):
    def run(settings, folder, say):
        curves = {name: curve(settings.seed, dtype, 20) for name, dtype in DTYPES.items()}
        out = chaos.Outcome(settings, [], network="network namespaces", done=[dict(DONE)], left=left)
        out.steps = [
            Step(n + 1, 0.1 * n, 0.1, {k: curves[k][n] for k in curves}, 1 << 28, 5, 9) for n in range(20)
        ]
        out.end = End(20, FIGURES, {"lost": 1}, 0, 1, 0, 1, 0)
        return out

    def end(how, folder, seed):
        error = {"interrupt": "KeyboardInterrupt", "memory": "MemoryError: no memory"}[how.value]
        return ends.Ended(1.0, 1, 0, ["key", "run"], 3, error)

    monkeypatch.setattr(chaos, "run", run)
    monkeypatch.setattr(ends, "end", end)


@pytest.mark.parametrize(("left", "code"), [(0, 0), (1, 1)])
def test_json_and_exit_code(monkeypatch, tmp_path, capsys, left, code):
    fake(monkeypatch, left)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    out = tmp_path / "out"
    assert cli.run(["bench", "chaos", "--fast", "--seed", "9", "--json", "--out", str(out)]) == code
    fields = json.loads(capsys.readouterr().out)
    assert (fields["seed"], fields["schedule"]) == (9, [DONE])
    assert [row["check"] for row in fields["rows"] if not row["passed"]] == ["no process is left"] * left
    assert {path.name for path in out.iterdir()} == {"bench-chaos.json", "bench-chaos.md"}
    kept = [path.name for path in tmp_path.iterdir() if path.name.startswith("tempo-chaos-")]
    assert len(kept) == left, "logs stay where something did not hold"


def test_a_table(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "240")
    fake(monkeypatch, 0)
    assert cli.run(["bench", "chaos", "--fast"]) == 0
    assert "float64 curve" in " ".join(capsys.readouterr().out.split())
