"""Calibration files: they come back as they were, and what is no calibration is refused by name."""

from __future__ import annotations

import json

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plan_figures import machine, worker

from tempo.errors import OutsideError, UsageError
from tempo.kernels.passes import _threads
from tempo.plan.fit import cost, non_negative, seconds_of
from tempo.plan.machine import Machine, is_alone, is_large


def test_round_trip(tmp_path):
    path = tmp_path / "machine.json"
    made = machine(workers=[worker("a"), worker("b", up=2.5e9)], overlap=0.25)
    made.save(path)
    assert Machine.load(path) == made
    made.save(str(tmp_path / "again.json"))
    assert Machine.load(str(tmp_path / "again.json")) == made


def damaged(change):
    fields = msgspec.to_builtins(machine())
    change(fields)
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "truncated"),
        ("[1, 2]", "Expected `object`"),
        ("{}", "missing required field"),
        ("\xff", "invalid"),
        (damaged(lambda f: f.update(version=99)), "version 99"),
        (damaged(lambda f: f.update(unknown=1)), "unknown field `unknown`"),
        (damaged(lambda f: f.pop("tee")), "missing required field `tee`"),
        (damaged(lambda f: f.update(workers=[])), "one worker"),
        (damaged(lambda f: f.update(overlap=1.5)), "at most 1"),
        (damaged(lambda f: f.update(together=0)), "together"),
        (damaged(lambda f: f["tee"].update(memcpy_elements_per_second=-1.0)), "memcpy"),
        (damaged(lambda f: f["tee"].update(matmul_flops_per_second={})), "float32"),
        (damaged(lambda f: f["tee"]["plain"].pop("conv")), "conv"),
        (damaged(lambda f: f["workers"][0].update(flops_per_second={"product": 1.0})), "grad_x"),
        (damaged(lambda f: f["workers"][0].update(up_bytes_per_second="fast")), "Expected `float`"),
        (damaged(lambda f: f["lowerings"]["im2col"].pop("raise_y")), "raise_y"),
        (damaged(lambda f: f["passes"]["mixing"]["encode"]["wide_one"].update(call_seconds=-1)), "call_s"),
    ],
)
def test_what_is_no_calibration_is_refused(text, says, tmp_path):
    path = tmp_path / "machine.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as error:
        Machine.load(path)
    assert "machine.json is no calibration" in str(error.value)
    assert says in str(error.value)
    assert "--save" in str(error.value)


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(OutsideError, match=r"cannot be read \(No such file or directory\). Name a file that"):
        Machine.load(tmp_path / "none.json")
    with pytest.raises(OutsideError, match="cannot be written .* Name a file in a folder that exists"):
        machine().save(tmp_path / "none" / "machine.json")
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(UsageError, match="more than 1 MiB"):
        Machine.load(large)


def test_an_unknown_scheme_is_named():
    with pytest.raises(UsageError, match="knows the schemes mixing, not 'monomial'.*--scheme monomial"):
        machine().scheme("monomial")


def test_large_tiles_are_those_of_the_passes():
    assert is_large(1 << 14, 64, 64)
    assert not is_large((1 << 14) - 1, 64, 64)


# ---- fitting ----------------------------------------------------------------------------------------------

amounts = st.lists(st.tuples(st.integers(1, 36), st.integers(1, 10**7)), min_size=4, max_size=8, unique=True)


@given(amounts, st.floats(1e-6, 1e-2), st.floats(1e-11, 1e-7))
def test_what_is_linear_is_found(shapes, call, element):
    seconds = [call + element * e for _, e in shapes]
    fitted = cost([(g, 0, e) for g, e in shapes], seconds)
    for (g, e), s in zip(shapes, seconds, strict=True):
        assert fitted.of(groups=g, rows=0, elements=e) == pytest.approx(s, rel=1e-3)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(1e-6, 1.0)), min_size=1, max_size=6))
def test_no_coefficient_is_negative(measured):
    found = non_negative([(1.0, a) for a, _ in measured], [s for _, s in measured])
    assert all(c >= 0 for c in found)


def test_a_falling_measurement_is_no_negative_cost():
    call, slope = non_negative([(1, 1), (1, 2), (1, 3)], [3.0, 2.0, 1.0])
    assert slope == 0
    assert 1.0 <= call <= 3.0


def test_the_least_of_some_runs_counts(monkeypatch):
    clock = iter([0.0, 5.0, 5.0, 6.0, 6.0, 9.0])
    monkeypatch.setattr("tempo.plan.fit.time.perf_counter", lambda: next(clock))
    assert seconds_of(lambda: None, repeats=3, enough_s=100) == 1.0


@pytest.mark.parametrize("elements", [1, (1 << 18) - 1, 1 << 18, 1 << 22])
def test_a_pass_is_alone_where_the_kernels_give_it_one_thread(elements):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert is_alone(elements) == (_threads(torch.empty(elements)) == 1)
    finally:
        torch.set_num_threads(before)
