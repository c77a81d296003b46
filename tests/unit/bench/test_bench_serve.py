"""Suite serve: what a client sees, from end to end, and its percentiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tempo.bench import serve
from tempo.bench.crew import Crew
from tempo.bench.figures import draw
from tempo.bench.report import markdown, short_table
from tempo.bench.result import SERVE_FIELDS
from tempo.bench.serve import Case, Served
from tempo.cli.output import document


def quietly(_):
    pass


@pytest.fixture(scope="module")
def result():
    settings = replace(
        serve.FAST,
        cases=(Case("classify", 8, 8, 3, 8), Case("classify", 8, 1, 2, 8), Case("generate", 4, 64, 1, 64)),
        width=64,
        model=(128, 32, 64, 1, 2),
        crews=(Crew.parse("cpu"),),
        wait_s=0.2,
    )
    return serve.run(settings, quietly)


def test_rows(result):
    assert [(row["op"], row["mode"], row["arithmetic"], row["requests"]) for row in result.rows] == [
        (op, mode, arithmetic, requests)
        for op, requests in (("classify", 24), ("classify", 2), ("generate", 64))
        for mode, arithmetic in (("tee-only", "fp32"), ("tee-only", "bf16"), ("tempo", "fp32"))
    ]
    for row in result.rows:
        assert list(row) == list(SERVE_FIELDS)
        assert 0 < row["latency_p50_seconds"] <= row["latency_p95_seconds"] <= row["latency_max_seconds"]
        assert row["latency_max_seconds"] <= row["seconds"]
        assert row["requests_per_second"] == pytest.approx(row["requests"] / row["seconds"])
        assert row["batches"] <= row["requests"]
        if row["mode"] == "tee-only":
            assert (row["bytes"], row["workers"], row["verify"]) == (0, 0, False)
    for first in range(0, len(result.rows), 3):
        fp32, bf16, ours = result.rows[first : first + 3]
        fastest = max(fp32["requests_per_second"], bf16["requests_per_second"])
        for row in (fp32, bf16, ours):
            assert row["speedup_over_tee_only"] == pytest.approx(row["requests_per_second"] / fastest)
    many, few = (row for row in result.rows if row["op"] == "classify" and row["mode"] == "tempo")
    assert many["offloaded_share"] > 0.5
    assert many["bytes"] > 0
    assert many["batches"] < 24, "clients that asked together were answered together"
    assert (few["offloaded_share"], few["bytes"], few["batches"]) == (0, 0, 2), "8 rows stay in the TEE"


def test_it_is_shown_written_and_drawn(result, tmp_path):
    fields = document("bench serve", result.rows, **result.more())
    assert "latency_p95_seconds" in markdown(fields, result, [])
    titles, cells = short_table(result)
    assert "p95 s" in titles
    assert all(len(row) == len(titles) for row in cells)
    pytest.importorskip("matplotlib")
    (picture,) = draw(result, tmp_path)
    assert picture.stat().st_size > 5000


def test_percentiles_are_nearest_ranks():
    served = Served([float(i) for i in range(100, 0, -1)], 5.0, 1)
    assert [served.latency(share) for share in (0.01, 0.5, 0.95, 1.0)] == [1, 50, 95, 100]
    assert Served([3.0], 5.0, 1).latency(0.5) == 3.0


def test_a_budget_that_is_used_up_is_said():
    result = serve.run(replace(serve.FAST, budget_s=1e-9, crews=(Crew.parse("cpu"),)), quietly)
    assert result.rows == []
    assert len(result.skipped) == len(serve.FAST.cases)


def test_requests_are_answered_as_the_model_would_alone():
    settings = replace(serve.FAST, width=64, model=(128, 32, 64, 1, 2))
    for case in (Case("classify", 3, 4, 1, 4), Case("generate", 5, 4, 1, 4)):
        _, answer, requests = serve._service(case, settings)
        together = answer(requests)
        for request, reply in zip(requests, together, strict=True):
            torch.testing.assert_close(answer([request])[0], reply)
