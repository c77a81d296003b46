"""Fields are frozen, and a row says what was measured."""

from __future__ import annotations

import pytest

from tempo.bench.budget import Budget
from tempo.bench.crew import Crew
from tempo.bench.protected import Protected
from tempo.bench.result import INTEGRITY_FIELDS, KERNEL_FIELDS, STEP_FIELDS, Result, cpu_flags, isa
from tempo.bench.roofline import Constants, Load
from tempo.bench.scale import efficiency
from tempo.bench.steps import Case, StepRows
from tempo.bench.timing import Spread
from tempo.bench.variant import Variant, usable, variants
from tempo.errors import UsageError

#: DESIGN.md, "What machines read". Scripts depend on these: change them only with the changelog.
DESIGN_KERNELS = ["scheme", "pass", "shape", "dtype", "seconds", "memcpy_seconds", "memcpy_ratio", "threads"]
DESIGN_STEPS = [
    *("op", "shape", "mode", "scheme", "verify", "workers", "seconds", "master_seconds", "bytes"),
    *("roofline_seconds", "speedup_over_tee_only", "samples_per_second"),
]


def test_fields_of_rows_are_frozen() -> None:
    assert list(KERNEL_FIELDS) == [
        *DESIGN_KERNELS,
        *(
            "lowering",
            "row_rounds",
            "isa",
            "seconds_min",
            "seconds_max",
            "memcpy_seconds_min",
            "memcpy_seconds_max",
        ),
        *("repeats", "roofline_seconds", "roofline_share"),
    ]
    assert list(STEP_FIELDS) == [
        *DESIGN_STEPS,
        *("workers_are", "phase", "arithmetic", "seconds_min", "seconds_max", "repeats", "roofline_share"),
        *("check_seconds", "speedup_if_workers_were_free", "memcpys_per_element", "law_speedup", "law_share"),
        *("allowed_speedup", "allowed_share"),
    ]


def test_fields_of_integrity_begin_with_those_of_the_design() -> None:
    assert list(INTEGRITY_FIELDS) == [
        *("op", "dtype", "tamper", "relative_size", "trials", "detected", "checks", "false_alarms"),
        *("shape", "operands", "probes", "tolerances", "threshold", "expected", "row_checks", "products"),
        *("largest_ratio", "accuracy", "loss", "loss_difference", "rounds"),
    ]


def test_a_field_that_there_is_none_of_is_a_fault() -> None:
    result = Result("layers", STEP_FIELDS)
    with pytest.raises(UsageError, match="secnods"):
        result.add(secnods=1.0)
    assert list(result.add(op="x")) == list(STEP_FIELDS)


def test_more_fields_of_the_object() -> None:
    more = Result("layers", STEP_FIELDS, extra={"break_even": []}).more()
    assert list(more) == ["command", "environment", "constants", "skipped", "notes", "break_even"]
    assert set(more["environment"]) == {"cpu_flags", "isa", "torch_capability", "cuda", "versions"}
    assert set(more["environment"]["versions"]) == {"python", "torch", "numpy", "msgspec", "cryptography"}
    assert isinstance(cpu_flags(), list)
    assert isa()


KNOWN = Constants(
    copy=1e9, tee_flops={"fp32": 1e11, "bf16": 4e11}, up=4e9, down=4e9, worker_flops=1e12, shared=False
)


@pytest.fixture
def rows() -> Result:
    """100 rows a step, 4e11 flops: 5 s in float32, 2 s in bfloat16. Tempo: 1 s, of which the master 0.5."""
    result = Result("layers", STEP_FIELDS)
    made = StepRows(result, Case("a layer", [1], "training", 100, 4e11), Crew.parse("2"), KNOWN)
    made.tee_only({"fp32": Spread(4.0, 5.0, 6.0, 3), "bf16": Spread(1.0, 2.0, 3.0, 3)})
    made.unprotected(Spread(0.4, 0.5, 0.6, 3), Load(4e11, worker_flops=4e11, up=4e8, down=4e8))
    found = Protected(
        seconds=Spread(0.9, 1.0, 1.2, 3),
        master=Spread(0.4, 0.5, 0.6, 3),
        check=0.2,
        check_quiet=0.1,
        passes=0.45,
        flops=4e11,
        sent=8e7,
        received=8e7,
    )
    made.tempo(Variant("mixing"), found, memcpys=5.0)
    return result


def test_speedups_are_against_the_fastest_arithmetic(rows: Result) -> None:
    fp32, bf16, clear, checked, unchecked = rows.rows
    assert [row["speedup_over_tee_only"] for row in rows.rows] == [0.4, 1.0, 4.0, 2.0, 2.0 / 0.8]
    assert (fp32["roofline_seconds"], bf16["roofline_seconds"]) == (4.0, 1.0)
    assert clear["roofline_seconds"] == pytest.approx(0.4)
    assert clear["roofline_share"] == pytest.approx(0.8)
    assert (checked["speedup_if_workers_were_free"], unchecked["speedup_if_workers_were_free"]) == (4.0, 5.0)
    assert [row["samples_per_second"] for row in (fp32, checked)] == [20.0, 100.0]
    assert checked["bytes"] == 160_000_000


def test_the_law_of_a_row(rows: Result) -> None:
    """E = 1.6e8 / 4 = 4e7 elements at 5 copies of 1e-9 s: 0.2 s for what takes 1 s at F."""
    checked = rows.rows[3]
    assert checked["law_speedup"] == pytest.approx(5.0)
    # F, not the measured 2 s of TEE-only: the master's least is 0.2 s, it took 0.5 s.
    assert checked["law_share"] == pytest.approx(0.2 / 0.5)
    # The products take 0.4 s, more than 0.2 s of passes and 0.04 s of link.
    assert checked["allowed_speedup"] == pytest.approx(1.0 / 0.4)
    assert checked["allowed_share"] == pytest.approx(0.4)


def test_without_verification_is_a_subtraction_that_claims_no_law(rows: Result) -> None:
    checked, unchecked = rows.rows[3:]
    assert (checked["verify"], unchecked["verify"]) == (True, False)
    assert (checked["seconds"], unchecked["seconds"]) == (1.0, 0.8)
    assert (checked["master_seconds"], unchecked["master_seconds"]) == (0.5, 0.4)
    assert unchecked["law_share"] is None
    assert unchecked["memcpys_per_element"] is None


def test_the_rest_of_a_model_is_left_its_time() -> None:
    result = Result("paper", STEP_FIELDS)
    made = StepRows(result, Case("a model", [1], "training", 1, 4e11), Crew.parse("1"), KNOWN)
    made.tee_only({"fp32": Spread(2.0, 2.0, 2.0, 1)})
    once = Spread(1.0, 1.0, 1.0, 1)
    found = Protected(once, once, 0.0, 0.0, passes=0.7, flops=1e11, sent=8e7, received=8e7)
    made.tempo(Variant("mixing"), found, memcpys=5.0, with_rest=True)
    # 0.2 s of passes and 0.3 s of the rest.
    assert result.rows[1]["law_speedup"] == pytest.approx(2.0 / 0.5)


@pytest.mark.parametrize(
    ("text", "count", "device", "in_process"),
    [
        ("2", 2, "cpu", False),
        ("3@cuda:0", 3, "cuda:0", False),
        ("cuda:1", 1, "cuda:1", True),
        ("cpu", 1, "cpu", True),
    ],
)
def test_crews(text: str, count: int, device: str, in_process: bool) -> None:
    crew = Crew.parse(text)
    assert (crew.count, crew.device, crew.in_process) == (count, device, in_process)
    assert crew.shared == (device == "cpu")


@pytest.mark.parametrize("text", ["", "0", "two", "2@tpu", "host:7443", "1@", "100"])
def test_what_is_no_crew(text: str) -> None:
    with pytest.raises(UsageError, match="number of processes"):
        Crew.parse(text)


def test_variants_by_scheme_and_arithmetic() -> None:
    assert [str(each) for each in variants("mixing, monomial", "fp32,bf16")] == [
        "mixing",
        "mixing in bf16",
        "monomial",
        "monomial in bf16",
    ]
    with pytest.raises(UsageError, match="no scheme"):
        variants("magic")
    with pytest.raises(UsageError, match="no arithmetic"):
        variants("mixing", "fp8")
    assert (Variant("mixing").element_bytes, Variant("mixing", "bf16").element_bytes) == (4, 2)


def test_a_variant_without_a_setting_is_listed_as_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempo.bench.variant._OPTIONS", {"fp32": {}, "tf32": {"no_such_setting": "x"}})
    budget = Budget()
    assert usable(variants("mixing", "fp32,tf32"), budget) == [Variant("mixing")]
    assert [each["what"] for each in budget.skipped] == ["mixing in tf32"]


def test_efficiency_is_ideal_over_measured() -> None:
    def row(phase: str, rows: int, workers: int, seconds: float) -> dict[str, object]:
        common = {"mode": "tempo", "verify": True, "scheme": "mixing", "arithmetic": "fp32"}
        return common | {"phase": phase, "shape": [rows, 8, 8], "workers": workers, "seconds": seconds}

    found = efficiency(
        [
            row("strong", 100, 1, 4.0),
            row("strong", 100, 2, 2.5),
            row("weak", 100, 1, 4.0),
            row("weak", 200, 2, 5.0),
            row("rows", 100, 1, 4.0),
            row("rows", 200, 1, 8.0),
            row("strong", 100, 4, 1.0) | {"verify": False},
        ]
    )
    assert [each["efficiency"] for each in found] == [1.0, 0.8, 1.0, 0.8, 1.0, 1.0]
