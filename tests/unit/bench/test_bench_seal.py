"""`tempo bench seal`: every row is there, shares are what they say, and no file is left."""

import json
import tempfile
from dataclasses import replace

import pytest

import tempo.cli as cli
from tempo.bench import seal
from tempo.bench.report import markdown, short_table
from tempo.bench.result import SEAL_FIELDS
from tempo.bench.timing import Repeats
from tempo.cli.output import document

TINY = replace(
    seal.FAST,
    volume=2 << 20,
    records=(3 << 10, 1 << 20),
    shuffled=16,
    workers=(0,),
    repeats=Repeats(2, 2, 0.0),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_rows_and_shares(folder):
    result = seal.run(TINY, lambda line: None)
    assert list(folder.iterdir()) == []
    assert all(list(row) == list(SEAL_FIELDS) for row in result.rows)
    rows = {(row["op"], row["how"], row["record_bytes"]): row for row in result.rows}
    assert len(rows) == len(result.rows)
    kinds = {("sealed write", "written"), ("sealed write", "durable")}
    kinds |= {("sealed read", how) for how in ("verify", "in order", "shuffled")}
    for size in TINY.records:
        assert {(op, how) for op, how, record in rows if record == size} >= kinds
        assert rows["sealed read", "in order", size]["bytes"] == TINY.volume // size * size
        assert rows["sealed read", "shuffled", size]["bytes"] == min(16, TINY.volume // size) * size
    met = {
        ("sealed write", "rows at once"),
        ("data set", "in order, one by one"),
        ("data set", "in order, batches"),
    }
    met |= {
        ("loader, 0 workers", how) for how in ("in order, items", "in order, lists", "shuffled, all kept")
    }
    met |= {("loader, 0 workers", f"shuffled blocks, {how}") for how in ("items", "lists")}
    for op, how in met:
        assert rows[op, how, 3072]["bytes"] == TINY.volume // 3072 * 3072
        assert rows[op, how, 3072]["cpu_share_of_aes_gcm"] > 0
    for row in result.rows:
        assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
        assert row["gb_per_second"] == pytest.approx(row["bytes"] / row["seconds_min"] / 1e9)
    aes, plain = rows["aes-gcm open", "streamed", None], rows["plain read", "page cache", None]
    read = rows["sealed read", "verify", 1 << 20]
    assert read["share_of_aes_gcm"] == pytest.approx(read["gb_per_second"] / aes["gb_per_second"])
    assert read["share_of_plain"] == pytest.approx(read["gb_per_second"] / plain["gb_per_second"])
    assert aes["share_of_aes_gcm"] == pytest.approx(1)
    written = rows["sealed write", "durable", 1 << 20]
    durable = rows["plain write", "durable", None]
    assert written["share_of_plain"] == pytest.approx(written["gb_per_second"] / durable["gb_per_second"])
    assert len(short_table(result)[1]) == len(rows)
    fields = document("bench seal", result.rows, **result.more())
    assert "| sealed read |" in markdown(fields, result, [])


def test_the_command_line(folder, monkeypatch, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(seal, "FAST", replace(TINY, repeats=Repeats(1, 1, 0.0)))
    out = tmp_path / "out"
    assert cli.run(["bench", "seal", "--fast", "--json", "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["verb"] == "bench seal"
    assert {path.name for path in out.iterdir()} == {f"bench-seal.{end}" for end in ("json", "md", "png")}
    for more in (["--workers", "2"], ["--scheme", "mixing"], ["--budget", "9"], ["--trace", "x.json"]):
        assert cli.run(["bench", "seal", *more]) == 2
