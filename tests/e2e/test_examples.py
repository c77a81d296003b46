"""The example scripts: at most five lines different from plain, and the same losses.

Each is run as it stands, with the worker processes it asks for; the plain one also in the precision that its
allowance is measured by (tempo.numerics.loss_tolerance).
"""

from __future__ import annotations

import contextlib
import difflib
import io
from pathlib import Path

import pytest
import torch

from tempo.numerics import loss_tolerance
from tempo.ops import Arithmetic
from tempo.secrecy.form import Precision

EXAMPLES = Path(__file__).parents[2] / "examples"
MOST_LINES = 5
#: What each needs beside Tempo, torch and scikit-learn.
NEEDS = {
    "accelerate": ["accelerate"],
    "generate": ["transformers"],
    "lightning": ["pytorch_lightning"],
    "lora": ["transformers", "peft"],
    "service": ["starlette", "uvicorn"],
    "trainer": ["transformers", "accelerate"],
}
#: What turns an example under autocast into one in float32.
AUTOCAST = {
    "autocast": [('torch.autocast("cpu", torch.bfloat16)', 'torch.autocast("cpu", enabled=False)')],
    "accelerate": [('mixed_precision="bf16"', 'mixed_precision="no"')],
}
#: And the others into float64, from the same first weights.
_DOUBLE = ("torch.Tensor(", "torch.DoubleTensor(")
EXACT = {
    "lightning": [("Digits()\n", "Digits().double()\n"), _DOUBLE],
    "loop": [("model = build()", "model = build().double()"), ("again = build()", "again = model"), _DOUBLE],
    "lora": [("LlamaForCausalLM(config)", "LlamaForCausalLM(config).double()")],
    "trainer": [("GPT2LMHeadModel(config)", "GPT2LMHeadModel(config).double()")],
}
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/plain.py"))
TRAINING = [name for name in NAMES if name not in ("generate", "service")]

pytestmark = [
    # Of the libraries themselves.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers:UserWarning"),
]


def run(path, changes=()):
    """The script's names after it ran. changes: (old, new) of its text."""
    for module in NEEDS.get(path.parent.name, []):
        pytest.importorskip(module)
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    _forget_accelerate()
    names = {"__name__": "__main__", "__file__": str(path)}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(text, str(path), "exec"), names)
    return names


def _forget_accelerate():
    """It keeps one state for the whole process."""
    with contextlib.suppress(ImportError):
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(True)


def changed(name):
    lines = [(EXAMPLES / name / file).read_text().splitlines() for file in ("plain.py", "protected.py")]
    return [line for line in difflib.ndiff(*lines) if line[:2] in ("+ ", "- ")]


def test_there_are_examples_of_every_stack():
    assert NAMES == ["accelerate", "autocast", "generate", "lightning", "loop", "lora", "service", "trainer"]


@pytest.mark.parametrize("name", NAMES)
def test_at_most_five_lines_differ_from_plain(name):
    """Every line counts, whether it came or went, empty ones too."""
    lines = changed(name)
    assert 3 <= len(lines) <= MOST_LINES, lines
    assert any("import tempo" in line for line in lines)


@pytest.mark.parametrize("name", TRAINING)
def test_the_losses_are_those_of_plain_training(name):
    plain = run(EXAMPLES / name / "plain.py")
    protected = run(EXAMPLES / name / "protected.py")
    if name in AUTOCAST:
        single = run(EXAMPLES / name / "plain.py", AUTOCAST[name])
        allowed = loss_tolerance(
            single["losses"], plain["losses"], Precision(torch.bfloat16, Arithmetic.FP32)
        )
    else:
        exact = run(EXAMPLES / name / "plain.py", EXACT[name])
        allowed = loss_tolerance(plain["losses"], exact["losses"])
    losses, want = protected["losses"], plain["losses"]
    assert len(losses) == len(want) >= 8
    assert want[-1] < want[0], "it learns"
    gaps = [abs(a - b) for a, b in zip(losses, want, strict=True)]
    assert all(gap <= bound for gap, bound in zip(gaps, allowed)), list(zip(gaps, allowed))
    # A bound that a wrong result would fail: training one step behind differs by more.
    assert max(abs(a - b) for a, b in zip(want[1:], want)) > max(allowed)
    report = protected["session"].report()
    assert report.offloaded_flops > 0.5 * (report.offloaded_flops + report.kept_flops)
    assert (report.checks_failed, report.local_fallbacks, report.quarantined) == (0, 0, [])
    assert protected.get("unchanged", True)
    assert plain.get("unchanged", True)


def test_generated_tokens_are_those_of_plain_generation():
    plain = run(EXAMPLES / "generate" / "plain.py")
    protected = run(EXAMPLES / "generate" / "protected.py")
    assert torch.equal(protected["tokens"], plain["tokens"])
    assert torch.equal(protected["sampled"], plain["sampled"])
    assert not torch.equal(plain["sampled"], plain["tokens"])
    assert protected["losses"][0] == pytest.approx(plain["losses"][0], rel=1e-5)
    report = protected["session"].report()
    rows = [row for row in report.rows if row.offloaded]
    # Prompts are 64 x 12 rows; with the cache of keys and values a step has a row for each sequence.
    assert {row.shape.split()[0] for row in rows} >= {"768x64", "64x64"}
    assert report.checks_failed == 0
