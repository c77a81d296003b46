"""Money by hand, and prices that are none."""

from __future__ import annotations

import pytest

from tempo.errors import OutsideError, UsageError
from tempo.plan.money import Prices, epoch_costs


def costs(prices, **options):
    settings = {
        "samples": 3601,
        "batch": 2,  # 1801 steps: the last one is not full
        "tee_step_seconds": 4.0,
        "tempo_step_seconds": 2.0,
        "step_flops": 10**12,
        "step_bytes": 5 * 10**8,
        "workers": 3,
        "worker_flops_per_second": 2e12,
    }
    return {option.name: option for option in epoch_costs(prices, **(settings | options))}


def test_four_ways_by_hand():
    prices = Prices(
        tee_per_hour=2.0, gpu_per_hour=1.5, confidential_gpu_per_hour=9.0, egress_per_gb=0.1
    ).with_options(confidential_slowdown=1.5)
    found = costs(prices)
    assert found["tee-only"].epoch_seconds == 1801 * 4
    assert found["tee-only"].cost == pytest.approx(1801 * 4 / 3600 * 2.0)
    tempo = found["tempo"]
    assert tempo.egress_cost == pytest.approx(1801 * 0.5 * 0.1)
    assert tempo.cost == pytest.approx(1801 * 2 / 3600 * (2.0 + 3 * 1.5) + tempo.egress_cost)
    assert found["unprotected-gpu"].cost == pytest.approx(1801 * 0.5 / 3600 * 1.5)
    assert found["confidential-gpu"].cost == pytest.approx(1801 * 0.75 / 3600 * 9.0)


def test_each_option_says_what_it_assumes():
    found = costs(Prices(tee_per_hour=2.0, gpu_flops_per_second=4e12))
    assert found["tempo"].cost is None
    assert "gpu_per_hour was not given" in found["tempo"].assumptions
    assert found["tee-only"].cost is not None
    assert found["unprotected-gpu"].epoch_seconds == 1801 / 4
    assert any("4e+12 flop/s, given" in text for text in found["unprotected-gpu"].assumptions)
    measured = costs(Prices())["unprotected-gpu"]
    assert any("2e+12 flop/s, measured" in text for text in measured.assumptions)
    assert set(measured.fields("EUR")) == {
        *("option", "epoch_seconds", "cost", "machine_cost", "egress_cost", "currency", "assumptions")
    }


def test_nobody_pays_for_workers_that_get_nothing():
    found = costs(Prices(tee_per_hour=2.0, gpu_per_hour=7.0), workers=0, step_bytes=0)
    assert found["tempo"].cost == pytest.approx(1801 * 2 / 3600 * 2.0)
    assert any("no worker is paid" in text for text in found["tempo"].assumptions)


def test_prices_of_a_file(tmp_path):
    path = tmp_path / "tempo.toml"
    path.write_text('[prices]\ncurrency = "EUR"\ntee_per_hour = 3\n')
    prices = Prices.load(path).with_options(gpu_per_hour=1.0, tee_per_hour=None)
    assert (prices.currency, prices.tee_per_hour, prices.gpu_per_hour) == ("EUR", 3, 1.0)
    path.write_text("[other]\na = 1\n")
    assert Prices.load(path) == Prices()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[prices", "is not TOML"),
        ("prices = 3", "prices is a table"),
        ("[prices]\ntee = 3", "unknown price 'tee'"),
        ("[prices]\ntee_per_hour = 'cheap'", "tee_per_hour = 'cheap'"),
        ("[prices]\ntee_per_hour = -1", "tee_per_hour = -1"),
        ("[prices]\ntee_per_hour = true", "tee_per_hour = True"),
        ("[prices]\negress_per_gb = inf", "egress_per_gb = inf"),
        ("[prices]\ncurrency = 3", "currency is a name"),
        ("[prices]\ngpu_flops_per_second = 0", "more than 0"),
        ("[prices]\nconfidential_slowdown = 0.5", "1 or more"),
    ],
)
def test_prices_that_are_none(text, says, tmp_path):
    path = tmp_path / "tempo.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        Prices.load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(OutsideError, match=r"cannot be read \(No such file .* Name a TOML file"):
        Prices.load(tmp_path / "tempo.toml")


def test_an_epoch_of_nothing():
    with pytest.raises(UsageError, match="at least 1"):
        costs(Prices(), samples=0)
