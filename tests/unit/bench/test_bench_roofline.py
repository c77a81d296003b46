"""The law and the roofline against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tempo.bench.roofline import (
    Constants,
    Load,
    allowed_seconds,
    law,
    law_width,
    tee_roofline,
    worker_roofline,
)
from tempo.errors import UsageError

KNOWN = Constants(
    copy=1e9, tee_flops={"fp32": 1e11, "bf16": 4e11}, up=2e9, down=1e9, worker_flops=1e12, shared=False
)


def test_the_law_of_the_design() -> None:
    """DESIGN.md: two AVX2 cores, b 3.6e9, F 1.15e11, m 5: 11 at 768 to 3072, 38 at width 4096."""
    for rows, k, n, expected in ((25088, 768, 3072, 11.54), (4096, 4096, 4096, 38.46)):
        found = law(
            flops=6.0 * rows * k * n, elements=2.0 * rows * (k + n), copy=3.6e9, memcpys=5, tee_flops=1.15e11
        )
        h = k * n / (k + n)
        assert found == pytest.approx(3 * h * 3.6e9 / (5 * 1.15e11))
        assert found == pytest.approx(expected, abs=0.01)


def test_the_width_is_the_law_turned_round() -> None:
    width = law_width(copy=3.6e9, memcpys=5, tee_flops=1.15e11, speedup=38.46)
    assert width == pytest.approx(4096, rel=1e-3)
    # 16 cores with AMX: DESIGN.md says that it breaks even near 1,700 (m 5, b 2e10, F 1e13).
    assert law_width(copy=2e10, memcpys=5, tee_flops=1e13) == pytest.approx(1667, abs=1)


def test_the_law_refuses_what_is_not_positive() -> None:
    with pytest.raises(UsageError):
        law(flops=1.0, elements=0.0, copy=1.0, memcpys=1.0, tee_flops=1.0)


def test_tee_only_takes_the_flops_of_its_arithmetic() -> None:
    assert tee_roofline(Load(flops=2e11), KNOWN, "fp32") == pytest.approx(2.0)
    assert tee_roofline(Load(flops=2e11), KNOWN, "bf16") == pytest.approx(0.5)
    assert (KNOWN.fastest, KNOWN.best_flops) == ("bf16", 4e11)


@pytest.mark.parametrize(
    ("load", "apart", "shared"),
    [
        # passes 2 s, link 1 s up and 3 s down at once, products 1 s
        (Load(1e12, worker_flops=1e12, elements=2e9, up=2e9, down=3e9), 3.0, 7.0),
        (Load(1e12, worker_flops=9e12, elements=2e9, up=2e9, down=3e9), 9.0, 15.0),
        (Load(1e12, worker_flops=1e12, elements=8e9, up=2e9, down=3e9), 8.0, 13.0),
    ],
)
def test_workers_are_as_slow_as_their_slowest_part(load: Load, apart: float, shared: float) -> None:
    assert worker_roofline(load, KNOWN) == pytest.approx(apart)
    assert worker_roofline(load, replace(KNOWN, shared=True)) == pytest.approx(shared)


def test_law_and_link_together() -> None:
    load = Load(1e12, worker_flops=1e12, elements=2e9, up=2e9, down=3e9)
    assert allowed_seconds(load, KNOWN, memcpys=5, rest=1.5) == pytest.approx(11.5)
    assert allowed_seconds(load, KNOWN, memcpys=1) == pytest.approx(3.0)
    # The bare transport is what the link could do.
    assert allowed_seconds(load, replace(KNOWN, alone=1e10), memcpys=0.1) == pytest.approx(1.0)
    assert allowed_seconds(load, replace(KNOWN, shared=True), memcpys=5) == pytest.approx(15.0)


def test_constants_are_rates() -> None:
    with pytest.raises(UsageError, match="positive"):
        replace(KNOWN, up=0.0)
    with pytest.raises(UsageError, match="positive"):
        replace(KNOWN, tee_flops={})


def test_fields_carry_their_units() -> None:
    fields = replace(KNOWN, alone=8e9, round_trip=6e9).fields()
    assert list(fields) == [
        "copy_elements_per_second",
        "tee_flops_per_second",
        "tee_fastest_arithmetic",
        "link_up_bytes_per_second",
        "link_down_bytes_per_second",
        "transport_alone_bytes_per_second",
        "worker_round_trip_bytes_per_second",
        "worker_share_of_transport",
        "worker_flops_per_second",
        "workers_share_the_masters_cores",
    ]
    assert fields["worker_share_of_transport"] == pytest.approx(0.75)
    assert KNOWN.fields()["worker_share_of_transport"] is None
