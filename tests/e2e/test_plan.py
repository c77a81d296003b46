"""Placement in a session, with a real calibration of a tiny fleet; and the planner's verb on top of it."""

from __future__ import annotations

import json

import msgspec
import pytest
import torch
from torch import nn

import tempo.cli as cli
from tempo import Session
from tempo.config import Config
from tempo.errors import UsageError
from tempo.nn.placement import NEVER
from tempo.plan import Machine, trace
from tempo.plan.machine import OPS
from tempo.plan.model import CostModel
from tempo.plan.phases import Work

LAST = "last weighted layer: its gradient gives away labels"


@pytest.fixture(scope="module")
def measured():
    with Session("cpu") as session:
        return session.calibrate()


@pytest.fixture(scope="module")
def figures(measured, tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "machine.json"
    measured.save(path)
    return path


def also_bfloat16(machine: Machine) -> Machine:
    """The same machine, whose workers are four times as fast with operands sent as bfloat16."""
    fields = msgspec.to_builtins(machine)
    for worker in fields["workers"]:
        rates = worker["flops_per_second"]
        rates |= {f"{op}, sent as bfloat16": 4 * rates[op] for op in OPS}
    return msgspec.convert(fields, Machine)


def faster(machine: Machine, times: float) -> Machine:
    """The same machine with a TEE whose own arithmetic is so many times as fast."""
    fields = msgspec.to_builtins(machine)
    for plain in fields["tee"]["plain"].values():
        plain["call_seconds"] /= times
        plain["flop_seconds"] /= times
    return msgspec.convert(fields, Machine)


def net():
    torch.manual_seed(0)
    layers = [nn.Linear(96, 96, dtype=torch.float64) for _ in range(4)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())))


def losses(model, steps=3):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(128, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


def where(session):
    return {row.module: None if row.offloaded else row.reason for row in session.report().rows}


# ---- calibration -------------------------------------------------------------------------------------------


def test_calibration_is_plausible(measured):
    assert measured.calibration_seconds < 60
    assert set(measured.passes) == {"mixing"}
    assert set(measured.lowerings) == {
        *("conv 1x1", "conv transposed", "im2col", "winograd F(2,3)", "winograd F(4,3)")
    }
    (worker,) = measured.workers
    assert worker.name == "cpu-0"
    assert 1e7 < worker.up_bytes_per_second < 1e13
    assert 1e8 < worker.flops_per_second["product"] < 1e14
    assert 1e7 < measured.tee.memcpy_elements_per_second < 1e12
    encode, copy = measured.passes["mixing"].encode, 1 / measured.tee.memcpy_elements_per_second
    for each in (encode.narrow_one, encode.wide_one):
        assert each.of(groups=1, rows=0, elements=1 << 20) > (1 << 20) * copy / 4


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"wire": "bf16"}, {"", ", sent as bfloat16"}),
        ({"arithmetic": "bf16"}, {"", ", rounded to bf16", ", rounded to tf32"}),  # delicate layers: TF32
    ],
)
def test_workers_are_measured_in_the_numbers_of_the_session(measured, options, kinds):
    with Session("cpu", **options) as session:
        with pytest.raises(UsageError, match="under the wire and arithmetic of the session"):
            session.calibrate(measured)
        (worker,) = session.calibrate().workers
    assert set(worker.flops_per_second) == {op + kind for op in OPS for kind in kinds}
    assert all(1e8 < rate < 1e15 for rate in worker.flops_per_second.values())


def test_calibration_leaves_the_users_generator_alone():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    with Session("cpu") as session, torch.no_grad(), torch.autocast("cpu"):
        session.calibrate()
        assert session.report().checks == 0  # of products of the user's
    assert torch.equal(torch.get_rng_state(), state)


def test_figures_are_taken_once(measured):
    with Session("cpu") as session:
        assert session.calibrate(measured) is measured
        assert session.calibrate() is measured
        with pytest.raises(UsageError, match="calibrated already"):
            session.calibrate(faster(measured, 2))
    with pytest.raises(UsageError, match="closed"):
        session.calibrate()
    with Session("cpu", scheme="monomial") as other, pytest.raises(UsageError, match="--scheme monomial"):
        other.calibrate(measured)


# ---- bytes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["fp32", "bf16"])
@pytest.mark.parametrize("key_shift", [True, False])
@pytest.mark.parametrize("shape", [(16384, 512, 512), (12000, 640, 768)])
def test_bytes_planned_are_bytes_sent(measured, shape, key_shift, wire):
    """Rows in several chunks; what is sent beyond operands is a few hundred bytes a job."""
    rows, k, n = shape
    config = Config(key_shift=key_shift, wire=wire)
    measured = also_bfloat16(measured)
    layer = nn.Linear(k, n, bias=False)
    x = torch.randn(rows, k, requires_grad=True)
    found = trace(nn.Sequential(layer, nn.Tanh()), x, config)
    assert not found.kept
    (op,) = found.ops
    assert len(Work(op, measured.scheme("mixing"), measured, config, mixes=True).pieces) > 2
    cost = CostModel(measured, config, inference=False).cost(op)
    with Session("local:1", config=config) as session:
        y = session.protect(layer, unsafe_offload=[""])(x)
        y.backward(torch.randn_like(y))
        report, jobs = session.report(), sum(session._fleet.stats.jobs.values())
    assert jobs >= 3 * 3
    assert 0 <= report.bytes_sent - cost.bytes_up < 1000 * jobs
    assert 0 <= report.bytes_received - cost.bytes_down < 1000 * jobs


# ---- placement ---------------------------------------------------------------------------------------------


def test_auto_keeps_what_is_cheaper_here_and_says_why(measured):
    plain = losses(net())
    with Session("cpu", placement="auto") as session:
        session.calibrate(faster(measured, 1e6))
        model = session.protect(net())
        assert losses(model) == plain  # the very same kernels
        report = session.report()
        assert (report.bytes_sent, report.offloaded_flops) == (0, 0)
        reasons = where(session)
        assert reasons["0"].startswith("cheaper in the TEE: ")
        assert reasons["0"].endswith(" ms there")
        assert reasons["6"] == LAST
        assert "placement auto rests on timings: another run may place and round differently" in report.notes


def test_auto_sends_what_is_cheaper_there(measured):
    plain = losses(net())
    with Session("cpu", placement="auto") as session:
        session.calibrate(faster(measured, 1e-6))
        model = session.protect(net())
        assert losses(model) == pytest.approx(plain, rel=1e-9)
        assert where(session) == {"0": None, "2": None, "4": None, "6": LAST}
        assert session.report().checks > 0


def test_auto_measures_by_itself_before_the_first_step():
    plain = losses(net())
    with Session("cpu", placement="auto") as session:
        model = session.protect(net())
        assert losses(model) == pytest.approx(plain, rel=1e-9)
        assert all(why is None or why.startswith(("cheaper", "last")) for why in where(session).values())


@pytest.mark.security
def test_never_sends_nothing():
    plain = losses(net())
    with Session("cpu", placement="never") as session:
        model = session.protect(net())
        assert losses(model) == plain
        report = session.report()
        assert (report.bytes_sent, report.bytes_received, report.encodings) == (0, 0, 0)
        assert where(session)["2"] == NEVER


def test_a_layer_goes_where_its_user_says(measured):
    with Session("cpu") as session:
        session.calibrate(faster(measured, 1e6))
        model = session.protect(net(), place={"*": "never", "2": "always", "4": "auto"})
        losses(model)
        found = where(session)
        assert (found["0"], found["2"]) == (NEVER, None)
        assert found["4"].startswith("cheaper in the TEE")
    with Session("cpu", placement="never") as session:
        model = session.protect(net(), place={"4": "always"})
        losses(model)
        assert where(session) == {"0": NEVER, "2": NEVER, "4": None, "6": LAST}


@pytest.mark.security
def test_never_holds_for_a_weight_that_another_module_multiplies():
    """The out_proj of attention is used by its parent, and never called itself."""
    layer = nn.MultiheadAttention(64, 1, batch_first=True)
    torch.manual_seed(0)
    x = torch.randn(2, 64, 64)
    with Session("cpu") as session:
        session.protect(layer, unsafe_offload=["out_proj"], place={"out_proj": "never"})
        layer(x, x, x)
        rows = session.report().rows
    assert [r.reason for r in rows if r.reason == NEVER] == [NEVER]
    assert any(r.offloaded for r in rows)


@pytest.mark.security
def test_what_stays_for_secrecy_stays_whatever_is_asked():
    with Session("cpu", placement="always") as session:
        model = session.protect(net(), keep=["0"], place={"*": "always"})
        losses(model)
        assert where(session) == {"0": "kept by the user", "2": None, "4": None, "6": LAST}


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ({"0": "sometimes"}, "'sometimes'; expected one of auto, always, never"),
        ({"encoder.*": "never"}, "no module is named 'encoder"),
        (["0"], "takes a mapping"),
    ],
)
def test_a_place_that_is_none(place, says):
    with Session("cpu") as session:
        model = net()
        with pytest.raises(UsageError, match=says):
            session.protect(model, place=place)
        assert "forward" not in model.__dict__
    with pytest.raises(UsageError, match="placement = 'maybe'"):
        Session("cpu", placement="maybe")


# ---- shares ----


@pytest.fixture(scope="module")
def owners(tmp_path_factory):
    """Three owners whose workers are like the one that was measured."""
    with Session("cpu") as session:
        measured = session.calibrate(schemes=["shares"])
    (one,) = measured.workers
    three = [msgspec.structs.replace(one, name=f"owner-{i}") for i in range(3)]
    path = tmp_path_factory.mktemp("owners") / "machine.json"
    msgspec.structs.replace(measured, workers=three).save(path)
    return path


def test_passes_and_products_of_shares_are_measured(owners):
    machine = Machine.load(owners)
    assert set(machine.passes) == {"mixing", "shares"}
    assert all(worker.flops_per_second["ring"] > 1e6 for worker in machine.workers)
    shares, mixing = (
        machine.passes[name].encode.wide_one.of(groups=1, rows=0, elements=1 << 20)
        for name in ("shares", "mixing")
    )
    # Two keystreams and five residues an entry.
    assert shares > mixing


def test_a_plan_of_shares(owners, capsys):
    argv = ["plan", "mlp:128x3", "--batch", "256", "--calibration", str(owners), "--scheme", "shares"]
    assert cli.run([*argv, "--placement", "always", "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    (sent,) = [row for row in fields["rows"] if row["decision"] == "offload" and row["count"] == 2]
    entries = 256 * 128
    assert sent["bytes_up"] == 10 * (2 * entries + 128 * 128)
    assert sent["bytes_down"] == 15 * (2 * entries + 128 * 128)
    assert sent["leakage_class"] == "shapes"
    assert fields["scheme"] == "shares"


def test_shares_are_not_measured_on_one_owners_workers(owners, figures, capsys):
    argv = ["plan", "mlp:128x2", "--scheme", "shares", "--calibration"]
    assert cli.run([*argv, str(owners), "--measure"]) == 2
    assert "--measure" in capsys.readouterr().err
    assert cli.run([*argv, str(figures)]) == 2
    assert "--scheme shares" in capsys.readouterr().err


# ---- the verb ----------------------------------------------------------------------------------------------


def test_a_plan_as_json(figures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tempo.toml").write_text('[prices]\ncurrency = "EUR"\ntee_per_hour = 1.0\n')
    argv = [
        "plan",
        "mlp:128x3",
        "--batch",
        "256",
        "--calibration",
        str(figures),
        "--samples",
        "1000",
        "--json",
    ]
    assert cli.run([*argv, "--gpu-per-hour", "2"]) == 0
    printed = capsys.readouterr()
    fields = json.loads(printed.out)
    assert list(fields)[:5] == ["tempo", "verb", "machine", "commit", "rows"]
    assert (fields["verb"], fields["batch"], fields["measured"]) == ("plan", 256, [])
    assert [row["count"] for row in fields["rows"]] == [1, 2, 1]
    for row in fields["rows"]:
        assert row["decision"] in ("offload", "stay")
        assert row["reason"]
        assert {"flops", "bytes_up", "bytes_down", "tee_seconds", "leakage"} <= set(row)
    assert {"tempo_seconds", "law_share", "law_speedup", "master_seconds"} <= set(fields["rows"][0])
    money = {each["option"]: each for each in fields["money"]}
    assert set(money) == {"tee-only", "tempo", "unprotected-gpu", "confidential-gpu"}
    assert money["tee-only"]["cost"] == pytest.approx(4 * fields["totals"]["tee_seconds"] / 3600)
    assert money["confidential-gpu"]["cost"] is None
    assert "operations of mlp:128x3" in printed.err


def test_a_plan_in_other_numbers(measured, figures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    also_bfloat16(measured).save("both.json")
    argv = ["plan", "mlp:256x3", "--batch", "4096", "--placement", "always", "--samples", "4096", "--json"]
    found = []
    for options in (["--calibration", "both.json"], ["--calibration", "both.json", "--wire", "bf16"]):
        assert cli.run([*argv, *options, "--gpu-per-hour", "2"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    single, half = found
    assert [(each["wire"], each["arithmetic"]) for each in found] == [("fp32", "fp32"), ("bf16", "fp32")]
    assert half["totals"]["bytes_up"] == single["totals"]["bytes_up"] / 2
    gpu = [next(row for row in each["money"] if row["option"] == "unprotected-gpu") for each in found]
    assert gpu[0]["cost"] == pytest.approx(4 * gpu[1]["cost"])
    assert "--wire bf16" in " ".join(str(c["command"]) for s in half["adoption"] for c in s["criteria"])
    assert cli.run([*argv, "--calibration", str(figures), "--wire", "bf16"]) == 2
    assert "calibrate again" in capsys.readouterr().err


def test_a_plan_as_tables(figures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    assert cli.run(["plan", "mlp:128x2", "--calibration", str(figures), "--inference", "--samples", "5"]) == 0
    out = capsys.readouterr().out
    assert "one request" in out
    assert "last weighted layer" in out
    assert "unprotected-gpu" in out


def test_prediction_beside_measurement(figures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["plan", "mlp:256x2", "--batch", "512", "--workers", "cpu", "--calibration", str(figures)]
    assert cli.run([*argv, "--placement", "always", "--measure", "--steps", "2", "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    rows = {row["part"]: row for row in fields["measured"]}
    assert set(rows) == {*("lower", "keys", "encode", "check", "decode"), "tee-only step", "tempo step"}
    assert all(row["measured_seconds"] > 0 for row in rows.values())
    assert rows["tempo step"]["predicted_seconds"] == fields["totals"]["tempo_seconds"]
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["predicted_seconds"] / row["measured_seconds"])
    predicted = fields["totals"]["master_seconds"]
    assert {part: rows[part]["predicted_seconds"] for part in predicted if part != "other"} == {
        part: seconds for part, seconds in predicted.items() if part != "other"
    }


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["nothing"], 2, "names no model"),
        (["mlp:0x3"], 2, "such as mlp:1024x3"),
        (
            ["mlp:64x1", "--calibration", "none.json"],
            3,
            "(No such file or directory). Name a file that",
        ),
        (["mlp:64x1", "--calibration", "a", "--save", "b"], 2, "leave one out"),
        (["mlp:64x1", "--prices", "none.toml"], 3, "(No such file or directory). Name a TOML file"),
        (["mlp:64x1", "--workers", "cpu,host.example:7443"], 2, "give --cert, --key and --ca"),
        (["mlp:64x1", "--tee-per-hour", "-1"], 2, "0 or more"),
        (["mlp:64x1", "--workers", "gpu"], 2, "names no worker"),
        (["mlp:64x1", "--scheme", "none"], 2, ""),
        (["mlp:64x1", "--wire", "fp8"], 2, "expected one of fp32, bf16"),
        (["mlp:64x1", "--wire", "bf16", "--arithmetic", "tf32"], 2, "leave arithmetic out"),
        (["mlp:64x1", "--scheme", "shares", "--wire", "bf16"], 2, "wire"),
        (["mlp:64x1", "--batch", "0"], 2, ""),
        (["mlp:64x1", "--cert", "x.pem"], 2, "given together"),
        ([], 2, ""),
    ],
)
def test_bad_usage_of_the_verb(argv, code, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["plan", *argv]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in " ".join(printed.err.split())
    assert "Internal error" not in printed.err
