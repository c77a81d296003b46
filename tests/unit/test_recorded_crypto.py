"""benchmarks/crypto/recorded.json: the fields that `tempo bench crypto` reads, and nothing of the machine but
its processor."""

from __future__ import annotations

import json
import math
import shlex
from datetime import date
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "crypto"
TEXT = (FOLDER / "recorded.json").read_text()
README = (FOLDER / "README.md").read_text()
ROWS = json.loads(TEXT)["rows"]


def test_every_row_is_whole() -> None:
    fields = {"system", "version", "op", "shape", "seconds", "seconds_min", "seconds_max", "runs", "date"}
    fields |= {"machine", "command", "plain_seconds", "parties", "security", "secret", "max_error"}
    for row in ROWS:
        assert fields <= row.keys()
        assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"] < math.inf
        assert 0 < row["plain_seconds"] < row["seconds_min"]
        # Right results: a system that computed something else would be no baseline.
        assert 0 < row["max_error"] < 0.01
        assert set(row["machine"]) == {"cpu", "cores"}
        date.fromisoformat(row["date"])
        python, script, *_ = shlex.split(row["command"])
        assert python == "python"
        assert (FOLDER / script).is_file()
        assert f"/bin/{row['command']}\n" in README
    assert len({row["command"] for row in ROWS}) == len(ROWS)
    assert not any(word in TEXT for word in ("/tmp", "/home", "/root", "/work"))


def test_each_system_did_both_operations_on_the_same_shapes() -> None:
    done = {(row["system"], row["op"], tuple(row["shape"])) for row in ROWS}
    for system in ("TenSEAL", "CrypTen", "SPU"):
        assert (system, "linear forward", (512, 64, 64)) in done
        assert (system, "mlp training step", (64, 32, 16, 4)) in done
