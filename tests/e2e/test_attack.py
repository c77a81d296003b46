"""`tempo attack` as a user runs it: a process of its own, real workers, one cheap attack on a script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tempo.attacks.suite.rows import FIELDS

SCRIPT = """
import torch
from torch import nn

def subject():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(96, 80), nn.ReLU(), nn.Linear(80, 72), nn.ReLU(), nn.Linear(72, 5))
    return model, [(torch.randn(128, 96), torch.randint(0, 5, (128,))) for _ in range(4)]
"""


def attack(*options: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tempo.cli import main; main()", "attack", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def test_products_under_every_scheme(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    done = attack(
        *("--script", "mine.py", "--steps", "2", "--only", "products", "--fast", "--json", "--out", "found"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    fields = json.loads(done.stdout)
    rows = fields["rows"]
    assert {tuple(row) for row in rows} == {FIELDS}
    measured = [row for row in rows if row["verdict"] != "skipped"]
    verdicts = {row["scheme"]: set() for row in measured}
    for row in measured:
        verdicts[row["scheme"]].add(row["verdict"])
    # Exact under the paper's mask, as the published key shift has it; nothing of the kind under the others.
    assert "broken" in verdicts["unsafe_none"]
    assert "broken" in verdicts["monomial"]
    assert "broken" not in verdicts["mixing"]
    assert "broken" not in verdicts["shares"]
    names = {path.name for path in (tmp_path / "found").iterdir()}
    assert {"attack.json", "attack.csv", "attack.md", "attack-verdicts.png", "attack-scores.png"} <= names


def test_a_promise_that_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    options = ("--script", "mine.py", "--steps", "2", "--only", "products", "--scheme", "monomial")
    done = attack(*options, "--fail-on", "broken,leaks", folder=tmp_path)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "Not kept:" in done.stderr
