"""What the knobs cost: the settings are what they say, and a row holds what a frontier needs."""

import json

import pytest

from tempo.bench.crew import Crew
from tempo.bench.knobs import SETTINGS, Layer, Setting, rows
from tempo.bench.timing import Repeats
from tempo.config import Config
from tempo.errors import UsageError

ONCE = Repeats(1, 1, 0.0)
SMALL = Layer(rows=256, k=128, n=128, dead=4)


def test_settings_are_distinct_and_cover_the_knobs():
    assert len({s.name for s in SETTINGS}) == len({s.config() for s in SETTINGS}) == len(SETTINGS)
    assert SETTINGS[0].config() == Config()
    turned = {name for s in SETTINGS for name in s.options}
    assert turned >= {"rounds", "row_rounds", "block", "spread", "deflate", "decoys", "decoy_size"}
    assert turned >= {"fill", "gain", "repeats", "key_shift", "wire"}


def test_a_setting_that_cannot_be():
    with pytest.raises(UsageError, match="spread"):
        Setting("wild", {"spread": 20.0})
    with pytest.raises(UsageError, match="unknown setting"):
        Setting("typo", {"decoy": 3})
    with pytest.raises(UsageError, match="dead"):
        Layer(dead=1024)


def test_every_setting_is_measured():
    found = rows(layer=SMALL, crew=Crew.parse("cpu"), repeats=ONCE)
    json.dumps(found)
    by_name = {row["setting"]: row for row in found}
    assert list(by_name) == [s.name for s in SETTINGS]
    for row in found:
        assert row["shape"] == [256, 128, 128]
        assert row["master_seconds"] > 0
        assert row["memcpy_ratio"] == pytest.approx(row["master_seconds"] / row["memcpy_seconds"])
    # Bytes are counted, not timed: six encodings instead of three, half the bytes in bfloat16.
    step = by_name["default"]["bytes"]
    assert by_name["deflate 32"]["bytes"] == pytest.approx(step, rel=0.01)
    assert by_name["decoys 8"]["bytes"] == pytest.approx(step, rel=0.01)
    assert by_name["key_shift False"]["bytes"] > 1.2 * step
    assert by_name["wire bf16"]["bytes"] < 0.7 * step


def test_processor_time_is_that_of_the_master_alone():
    """A worker process does not count in it; one in this process could not be told apart."""
    (row,) = rows([SETTINGS[0]], SMALL, Crew.parse("1"), ONCE)
    assert 0 < row["cpu_seconds"] < 60
    assert row["cpu_ratio"] > 0
    (row,) = rows([SETTINGS[0]], SMALL, Crew.parse("cpu"), ONCE)
    assert row["cpu_seconds"] is row["cpu_ratio"] is None


def test_a_layer_that_stays_is_no_row():
    with pytest.raises(UsageError, match="stays in the TEE"):
        rows([SETTINGS[0]], Layer(rows=32, k=128, n=128), Crew.parse("cpu"), ONCE)
