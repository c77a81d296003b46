"""Every suite from end to end, on tiny shapes, with real worker processes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tempo.bench import crypto, generate, kernels, layers, paper, scale
from tempo.bench.budget import named
from tempo.bench.calibrate import SMALL
from tempo.bench.crew import Crew
from tempo.bench.figures import draw
from tempo.bench.layers import ConvCase, LinearCase
from tempo.bench.report import markdown, short_table
from tempo.bench.result import KERNEL_FIELDS, SCALE_FIELDS, STEP_FIELDS, Result
from tempo.bench.timing import Repeats
from tempo.bench.trace import Tracer
from tempo.bench.variant import variants
from tempo.cli.output import document, to_json
from tempo.errors import UsageError

ONCE = Repeats(1, 1, 0.0)
ONE = (Crew.parse("1"),)
MIXING = variants("mixing")


def quietly(_: str) -> None:
    pass


def whole(result: Result, fields: tuple[str, ...]) -> None:
    """What holds of every result: fields in order, sane figures, and it can be printed and written."""
    assert result.rows
    for row in result.rows:
        assert list(row) == list(fields)
        assert row["seconds"] > 0
        for name, value in row.items():
            if isinstance(value, float):
                assert math.isfinite(value), name
                assert value >= 0, name
        if row.get("seconds_min") is not None:
            assert row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
    fields_of = document(f"bench {result.suite}", result.rows, **result.more())
    to_json(fields_of)
    text = markdown(fields_of, result, [])
    for name in ("Machine", "CPU flags", "ISA", "Threads", "Versions", "Commit", "Command"):
        assert f"- **{name}:**" in text
    titles, cells = short_table(result)
    assert all(len(row) == len(titles) for row in cells)


def by(result: Result, **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in result.rows if all(row[name] == value for name, value in wanted.items())]


def test_kernels(tmp_path: Path) -> None:
    settings = kernels.Settings(
        matrices=((1, 256, 128), (2, 128, 64)), images=((2, 64, 12, 12),), repeats=Repeats(2, 2, 0.0)
    )
    result = kernels.run(settings, quietly)
    whole(result, KERNEL_FIELDS)
    passes = ["keys", "encode", "encode", "decode", "check-expect", "check-accept", "check"]
    for rounds in (2, 1):
        rows = by(result, scheme="mixing", row_rounds=rounds, shape=[256, 128])
        assert [row["pass"] for row in rows] == passes
        assert [row["dtype"] for row in rows] == ["float32"] * 2 + ["bfloat16"] + ["float32"] * 4
    (convolution,) = by(result, scheme="monomial", shape=[2, 64, 12, 12])
    assert convolution["lowering"] == "winograd F(4,3)"
    for row in result.rows:
        assert row["memcpy_ratio"] == pytest.approx(row["seconds"] / row["memcpy_seconds"])
        assert (row["roofline_seconds"] is None) == (row["pass"] == "keys")
    assert [path.name for path in draw(result, tmp_path)] == ["bench-kernels.png"]


def test_kernels_lists_what_did_not_fit() -> None:
    settings = kernels.Settings(matrices=((1, 64, 64),), images=((1, 64, 8, 8),), budget_s=1e-6)
    result = kernels.run(settings, quietly)
    assert result.rows == []
    assert len(result.skipped) == 3 * (7 + 1)


def test_layers(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "step.json")
    settings = layers.Settings(
        cases=(LinearCase(256, 128, 192), ConvCase(4, 64, 16), LinearCase(256, 32, 192)),
        crews=ONE,
        variants=variants("mixing,monomial"),
        repeats=ONCE,
        sizes=SMALL,
    )
    result = layers.run(settings, quietly, tracer)
    whole(result, STEP_FIELDS)
    for op in ("linear 128 to 192, 256 rows", "conv 3x3 64 to 64, 4 images of 16x16"):
        assert {row["mode"] for row in by(result, op=op)} == {"tee-only", "unprotected", "tempo"}
        for scheme in ("mixing", "monomial"):
            checked, unchecked = by(result, op=op, mode="tempo", scheme=scheme)
            assert (checked["verify"], unchecked["verify"]) == (True, False)
            assert unchecked["seconds"] <= checked["seconds"]
            assert checked["law_share"] > 0
            assert checked["bytes"] > 0
    fastest = min(row["seconds"] for row in by(result, mode="tee-only", shape=[256, 128, 192]))
    for row in by(result, shape=[256, 128, 192]):
        assert row["speedup_over_tee_only"] == pytest.approx(fastest / row["seconds"])
    assert [each["what"] for each in result.skipped] == ["linear 32 to 192, 256 rows, workers 1"]
    assert [each["scheme"] for each in result.extra["break_even"]] == ["mixing", "monomial"]
    tracer.write()
    events = json.loads((tmp_path / "step.json").read_text())["traceEvents"]
    assert {"encode", "decode", "check", "send", "worker", "receive"} <= {each["name"] for each in events}
    lanes = {each["args"]["name"] for each in events if each["name"] == "thread_name"}
    assert lanes == {"MainThread", "local-0", "local-0 link"}
    assert {path.name for path in draw(result, tmp_path)} == {"bench-layers.png", "bench-layers-law.png"}


def test_layers_takes_the_cases_that_are_asked_for() -> None:
    assert named(layers.CASES, "768 TO 3072") == [LinearCase(25088, 768, 3072)]
    assert all(isinstance(case, ConvCase) for case in named(layers.CASES, "conv"))
    with pytest.raises(UsageError, match="linear 256 to 1024"):
        layers.run(replace(layers.FAST, only="transformer"), quietly)
    assert [case.batch for case in named(paper.CASES, "resnet-50, training, 32 images of 224")] == [32]
    with pytest.raises(UsageError, match="ViT, 1 block"):
        paper.run(replace(paper.FAST, only="transformer"), quietly)


def test_paper() -> None:
    cases = (
        paper.Case("ResNet, 2 blocks", 16, 2, True),
        paper.Case("ViT, 1 block", 32, 4, False),
        paper.Case("ViT-B/16", 224, 1 << 20, True),  # no memory holds that
    )
    settings = replace(
        paper.FAST, cases=cases, crews=ONE, variants=MIXING, repeats=ONCE, typical=(1, 128, 64, 64)
    )
    result = paper.run(settings, quietly)
    whole(result, STEP_FIELDS)
    assert result.extra["images"] == "digits 8x8"
    for op, phase in (("ResNet, 2 blocks", "training"), ("ViT, 1 block", "inference")):
        (checked,) = by(result, op=op, mode="tempo", verify=True)
        assert (checked["phase"], checked["bytes"] > 0) == (phase, True)
        assert checked["law_speedup"] > 0
    (skipped,) = result.skipped
    assert "of memory" in skipped["why"]


def test_the_papers_models_are_of_their_size() -> None:
    """25.6 M and 86 M parameters with 1,000 classes and images of 224 pixels, as published."""
    with torch.device("meta"):
        resnet, vit = (paper.MODELS[name](224, 1000) for name in ("ResNet-50", "ViT-B/16"))
    assert sum(p.numel() for p in resnet.parameters()) == 25_557_032
    assert sum(p.numel() for p in vit.parameters()) == 86_567_656


def test_images_are_never_passed_off_as_real(monkeypatch: pytest.MonkeyPatch) -> None:
    from tempo.errors import DataError

    def none() -> None:
        raise DataError("there are none here")

    monkeypatch.setattr(paper, "digits", none)
    result = paper.run(
        replace(paper.FAST, cases=(), crews=(), variants=MIXING, typical=(1, 64, 64, 64), repeats=ONCE),
        quietly,
    )
    assert result.extra["images"] == "random"
    assert any("random numbers" in note for note in result.notes)


def test_generate() -> None:
    settings = replace(
        generate.FAST,
        cases=(generate.Case(64, 4, 2),),
        variants=MIXING,
        repeats=ONCE,
        model=(97, 16, 64, 1, 2),
    )
    result = generate.run(settings, quietly)
    whole(result, STEP_FIELDS)
    prompt, tokens = by(result, mode="tempo", verify=True)
    assert (prompt["phase"], tokens["phase"]) == ("prompt", "prompt and tokens")
    assert tokens["samples_per_second"] == pytest.approx(64 * 2 / tokens["seconds"])
    assert tokens["bytes"] > prompt["bytes"] > 0


def test_generate_draws_what_the_model_itself_would() -> None:
    model = generate.gpt2((97, 32, 64, 2, 2))
    prompts = torch.randint(97, (2, 5), generator=torch.Generator().manual_seed(1))
    drawn, seen = generate.Generate(model, 3)(prompts), prompts
    with torch.no_grad():
        for _ in range(4):
            seen = torch.cat([seen, model(seen).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(drawn, seen[:, 5:])


def test_scale() -> None:
    settings = scale.Settings(
        rows=128,
        width=64,
        doublings=1,
        crews=(Crew.parse("1"), Crew.parse("2")),
        training=None,  # test_bench_masters.py
        repeats=ONCE,
        sizes=SMALL,
    )
    result = scale.run(settings, quietly)
    whole(result, SCALE_FIELDS)
    checked = by(result, mode="tempo", verify=True)
    assert [(row["phase"], row["shape"][0], row["workers"]) for row in checked] == [
        *(("strong", 128, 1), ("weak", 128, 1), ("rows", 128, 1), ("rows", 256, 1)),
        *(("strong", 128, 2), ("weak", 256, 2)),
    ]
    assert len(result.extra["efficiency"]) == len(checked)


RECORDED = [
    {
        "system": "Some MPC 1.0",
        "op": op,
        "shape": shape,
        "seconds": 12.5,
        "date": "2026-11-20",
        "machine": "4 cores",
        "command": "python run.py",
    }
    for op, shape in (("linear forward", [128, 96, 64]), ("mlp training step", [128, 96, 64, 10]))
]


def test_crypto_says_what_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "recorded.json"
    path.write_text(json.dumps(RECORDED))
    result = crypto.run(crypto.Settings(path, variants=MIXING, repeats=ONCE), quietly)
    whole(result, crypto.CRYPTO_FIELDS)
    assert list(crypto.CRYPTO_FIELDS) == [
        *(
            "system",
            "op",
            "shape",
            "mode",
            "scheme",
            "verify",
            "workers",
            "seconds",
            "master_seconds",
            "bytes",
        ),
        *("seconds_min", "seconds_max", "repeats", "offloaded", "times_tempo"),
        *("recorded", "recorded_date", "recorded_machine", "recorded_command"),
    ]
    recorded = by(result, recorded=True)
    assert [row["system"] for row in recorded] == ["Some MPC 1.0"] * 2
    tempo = by(result, system="Tempo")
    assert [row["offloaded"] for row in tempo] == [True, True]
    for row, ours in zip(recorded, tempo, strict=True):
        assert row["seconds"] == 12.5
        assert row["times_tempo"] == pytest.approx(12.5 / ours["seconds"])
        assert (row["recorded_date"], row["recorded_command"]) == ("2026-11-20", "python run.py")
    assert len(by(result, mode="tee-only")) == 2
    assert any("NOT run now" in note for note in result.notes)


def test_crypto_computes_the_stated_step() -> None:
    """W <- W - RATE dW with the gradients written out, in the module's own words."""
    step = crypto.build("training step", (128, 96, 64, 10))
    w1, w2 = (p.detach().clone().double() for p in step.module.parameters())
    x = step.x.double()
    assert step.loss is not None
    target = None
    for cell in step.loss.__closure__ or ():
        if isinstance(cell.cell_contents, torch.Tensor):
            target = cell.cell_contents.double()
    assert target is not None
    a = x @ w1.T
    dy = (a.clamp(min=0) @ w2.T - target) / 128
    da = (dy @ w2) * (a > 0)
    step.run()
    new1, new2 = (p.detach().double() for p in step.module.parameters())
    torch.testing.assert_close(new1, w1 - 0.1 * da.T @ x, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(new2, w2 - 0.1 * dy.T @ a.clamp(min=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON"),
        ("[]", "a list of rows"),
        ('[{"system": "x"}]', "no usable 'op'"),
        (json.dumps([RECORDED[0] | {"seconds": "fast"}]), "no usable 'seconds'"),
        (json.dumps([RECORDED[0] | {"op": "sorting"}]), "a linear layer or a training step"),
        (json.dumps([RECORDED[0] | {"shape": [1, 2]}]), "expected 3 sizes"),
        (json.dumps([RECORDED[1] | {"shape": [1, 2, 3, 1 << 40]}]), "expected 4 sizes"),
    ],
)
def test_recorded_files_that_are_none(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "recorded.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        crypto.read(path)


def test_a_missing_recorded_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--recorded"):
        crypto.read(tmp_path / "none.json")
