"""`tempo bench integrity`: the suite counts what it says, and a broken promise shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tempo.cli as cli
from tempo.bench import adaptive_liar, below, detection, honest, integrity
from tempo.bench.arithmetics import FORMS, answer, cut_tf32, exact, job_of, one_after_another, sizes, to_tf32
from tempo.bench.budget import Budget
from tempo.bench.operands import KINDS, SHAPES, Shape, normal, pair_of, sealed_pairs
from tempo.bench.result import INTEGRITY_FIELDS, Result
from tempo.bench.tampers import TAMPERS
from tempo.errors import UsageError
from tempo.ops import Op

SMALL = Shape("tiny", (24, 8), 40, 32)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def result() -> Result:
    return Result("integrity", INTEGRITY_FIELDS)


def job(form: int = 0, op: Op = Op.PRODUCT, shape: Shape = SMALL):
    return job_of(op, *pair_of(op, shape, normal, generator()), shape.rows, FORMS[form])


# ---- arithmetics --------------------------------------------------------------------------------------


def test_tf32_keeps_ten_bits() -> None:
    t = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 + 2**-20, -1 - 2**-11])
    assert to_tf32(t).tolist() == [1.0, 1 + 2**-10, 1.0, 1 + 2**-9, 1 + 2**-10, -1.0]
    assert cut_tf32(t).tolist() == [1.0, 1 + 2**-10, 1.0, 1 + 2**-10, 1.0, -1.0]


@pytest.mark.parametrize("op", Op)
def test_every_worker_computes_the_product(op: Op) -> None:
    for form, rough in zip(FORMS, (1e-6, 1e-14, 3e-3, 3e-3, 2e-2, 2e-2), strict=True):
        asked = job_of(op, *pair_of(op, SMALL, normal, generator()), SMALL.rows, form)
        reply = answer(asked, form.rounds)
        assert tuple(reply.shape) == asked.result_shape
        assert reply.dtype == asked.result_dtype
        error = (reply.double() - exact(asked)).norm() / exact(asked).norm()
        assert error < rough
        if reply.dtype == form.sent and form.sent != torch.float64:  # dW of bfloat16 comes in float32
            assert error > rough / 1000, "it rounds"
    assert torch.allclose(one_after_another(job(op=op)).double(), exact(job(op=op)), atol=1e-4)


@pytest.mark.parametrize("op", Op)
def test_sizes_of_rows(op: Op) -> None:
    asked = job(1, op)
    norms, rows = sizes(asked)
    lengths = torch.linalg.vector_norm(exact(asked).reshape(-1, asked.result_shape[-1]), dim=1)
    assert bool((lengths <= rows * (1 + 1e-12)).all())
    assert bool((rows <= norms * (1 + 1e-12)).all())


@pytest.mark.parametrize("scheme", ["mixing", "monomial"])
def test_sealed_operands_hide_and_fit(scheme: str) -> None:
    plain = pair_of(Op.PRODUCT, SHAPES[-1], KINDS["large mean"], generator())
    for op, pair in sealed_pairs(scheme, SHAPES[-1], KINDS["large mean"], generator(), torch.float64).items():
        reply = exact(job_of(op, *pair, SHAPES[-1].rows, FORMS[1]))
        assert bool(reply.isfinite().all())
        assert op is not Op.PRODUCT or not torch.allclose(pair[1], plain[1])


# ---- honest -------------------------------------------------------------------------------------------


def test_counts_of_checks_products_and_rows() -> None:
    tally = honest.Tally()
    asked = job()
    tally.take(asked, answer(asked, FORMS[0].rounds), 7, "x")
    assert (tally.products, tally.checks, tally.row_checks, tally.alarms) == (1, 7, 7 * 32, 0)
    assert 0 < tally.ratio < 1
    assert tally.worst == "x"
    wrong = answer(asked, FORMS[0].rounds)
    wrong[3] *= 1.5
    tally.take(asked, wrong, 7, "y")
    assert (tally.products, tally.checks, tally.alarms) == (2, 14, 7)
    assert tally.ratio > 1


def test_honest_rows_and_totals() -> None:
    out = result()
    honest.run(
        honest.Settings(checks=2000, large=8, pairs=4, large_shapes=[Shape("big", (1024,), 1024, 1024)]),
        out,
        Budget(60),
        lambda _: None,
    )
    total = out.extra["honest_all"]
    assert total["checks"] >= 2000
    assert total["products"] == total["checks"] // 4
    assert out.extra["honest_large"]["least_results"] > 10**6
    assert out.extra["honest_large"]["checks"] >= 8
    assert sum(row["false_alarms"] for row in out.rows) == 0
    assert out.broken == []


def test_false_alarms_break_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honest, "answer", lambda job, rounds: answer(job, rounds) * 1.5)
    out = result()
    honest.run(honest.Settings(checks=40, large=4, pairs=4, large_shapes=SHAPES[:1]), out, Budget(60), print)
    assert any("false alarms" in each for each in out.broken)


def test_constant_operands_are_accused_unless_mixed() -> None:
    """The leftover of docs/numerics.md, section 2, as it is: no alarm under the default scheme."""
    out = result()
    honest.constants(out, 16, lambda _: None)
    alarms = {(row["operands"], row["shape"]): row["false_alarms"] for row in out.rows}
    assert sum(n for (how, _), n in alarms.items() if "mixing" in how) == 0
    assert alarms["constant, as they are", "64x8192x64"] == 16
    assert out.broken == []


# ---- wrong replies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda t: t.name)
@pytest.mark.parametrize("op", Op)
def test_a_tamper_is_as_large_as_it_was_asked_to_be(op: Op, tamper) -> None:
    asked = job(1, op)
    court = detection.Court(asked, answer(asked, FORMS[1].rounds), detection.Settings(trials=4, draws=1))
    for size in (3.0, 1e4):
        d = tamper.lie(court.target, size, torch.Generator().manual_seed(1))
        found = float((torch.linalg.vector_norm(d, dim=1) / court.target.tolerance_T).amax())
        if tamper.name == "sign flip":
            assert found > 0  # whole entries
        elif tamper.sized:
            assert found == pytest.approx(size, rel=1e-9)
        else:
            assert found > 1e6


def test_curves_follow_the_prediction() -> None:
    out = result()
    settings = detection.Settings(trials=400, draws=4, sizes=(0.5, 2.0, 60.0), shapes=(SMALL,))
    detection.run(settings, out, Budget(60), lambda _: None)
    rows = [r for r in out.rows if r["dtype"] == "float64" and r["tamper"] in ("single entry", "low rank")]
    assert len(rows) == 2 * 3 * 3
    for row in rows:
        deviation = (row["expected"] * (1 - row["expected"]) / 400) ** 0.5
        assert row["trials"] == 400
        assert abs(row["detected"] / 400 - row["expected"]) < 5 * deviation + 0.02
    assert {row["tamper"] for row in out.rows} == {tamper.name for tamper in TAMPERS}
    assert out.broken == []
    assert all(each["missed"] <= each["allowed"] + 5 for each in out.extra["above_threshold"])


def test_a_missed_lie_above_the_threshold_breaks_the_promise() -> None:
    out, promise = result(), detection.Promise()
    promise.take("scaled", detection.Verdict(1000, 990, 100.0, 0.1, None, above=True))
    promise.take("low rank", detection.Verdict(1000, 0, 0.1, 0.1, None, above=False))
    promise.conclude(out)
    assert out.broken == ["scaled: 10 of 1000 missed above the stated threshold"]


def test_less_than_was_asked_for_is_found() -> None:
    out = result()
    detection.reduced(detection.Settings(trials=64, draws=2, inner=(64,)), out, Budget(60), lambda _: None)
    assert {row["tamper"] for row in out.rows} == {
        *("bf16 for float32", "tf32 for float32", "tf32 cut off for float32", "bf16 for tf32")
    }
    assert all(row["detected"] == row["trials"] == 64 for row in out.rows)


# ---- the suite ----------------------------------------------------------------------------------------

TINY = integrity.Settings(
    honest=honest.Settings(checks=60, large=4, pairs=4, large_shapes=SHAPES[:1]),
    detection=detection.Settings(trials=8, draws=2, sizes=(10.0,), shapes=(SMALL,), inner=(64,)),
    below=below.Settings(steps=1, wires=("fp32",), directions=("below: larger",), mnist=False),
    adaptive=adaptive_liar.Settings(rounds=20, misses=(1e-3,)),
)


def test_parts() -> None:
    assert integrity.Settings().parts == list(integrity.PARTS)
    assert integrity.Settings(only="adap").parts == ["adaptive"]
    with pytest.raises(UsageError, match="has no part"):
        _ = integrity.Settings(only="x").parts
    full = integrity.Settings()
    assert (full.honest.checks, full.honest.large) == (1_000_000, 10_000)
    assert full.detection.trials >= 1000
    assert all(s.rows[0] * s.n > 10**6 and s.rows[0] * s.k > 10**6 and s.k * s.n > 10**6
               for s in full.honest.large_shapes)  # fmt: skip


def test_the_verb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(integrity, "FAST", TINY)
    monkeypatch.setattr(detection, "FORMS", FORMS[::5])  # two pictures
    assert cli.run(["bench", "integrity", "--fast", "--json", "--out", str(tmp_path)]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["verb"] == "bench integrity"
    assert {row["tamper"] for row in fields["rows"]} >= {"none", "scaled", "adaptive", "below: larger"}
    assert (tmp_path / "bench-integrity-float32.png").exists()
    assert "bench-integrity-bfloat16.png" in (tmp_path / "bench-integrity.md").read_text()


def test_a_broken_promise_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def broken(settings: object, out: Result, *rest: object) -> None:
        out.broken.append("this one")

    monkeypatch.setattr(integrity.adaptive_liar, "run", broken)
    assert cli.run(["bench", "integrity", "--fast", "--only", "adaptive"]) == 1
    assert "a promise was not kept: this one" in capsys.readouterr().err
