"""Models by name: what is found, and what a name must not be."""

from __future__ import annotations

import pytest
import torch

from tempo.errors import OutsideError, UsageError
from tempo.plan.models import load

SCRIPT = """
import torch
from helper import WIDTH
def pair(): return torch.nn.Linear(WIDTH, 8), torch.zeros(5, WIDTH)
def batched(batch=3): return torch.nn.Linear(WIDTH, 8), {"input": torch.zeros(batch, WIDTH)}
def odd(): return torch.nn.Linear(4, 4), (torch.zeros(2, 4), torch.zeros(3, 4))
def alone(): return torch.nn.Linear(WIDTH, 8)
number = 3
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "helper.py").write_text("WIDTH = 16\n")
    path = tmp_path / "mine.py"
    path.write_text(SCRIPT)
    return path


def test_a_factory_of_a_script(script):
    model, x, size = load(f"{script}:pair", None)
    assert (model.in_features, tuple(x.shape), size) == (16, (5, 16), 5)
    _, x, size = load(f"{script}:pair", 12)
    assert (tuple(x.shape), size) == ((12, 16), 12)
    _, inputs, size = load(f"{script}:batched", 7)
    assert (tuple(inputs["input"].shape), size) == ((7, 16), 7)


def test_a_perceptron():
    model, x, size = load("mlp:96x3", None)
    assert [m.in_features for m in model if isinstance(m, torch.nn.Linear)] == [96] * 4
    assert (tuple(x.shape), size) == ((4096, 96), 4096)


@pytest.mark.parametrize("name", ["gpt2", "vit-b16", "resnet50"])
def test_examples_without_transformers(name, monkeypatch):
    def gone(wanted):
        raise ImportError(wanted)

    monkeypatch.setattr("tempo.plan.models.importlib.import_module", gone)
    with pytest.raises(UsageError, match=f"example {name} needs transformers: pip install transformers"):
        load(name, None)


def test_what_is_no_model(script):
    for name, error, says in [
        ("resnet9000", UsageError, "names no model: expected module:factory"),
        ("mlp:0x3", UsageError, "a width from 1 to 999999 .* such as mlp:1024x3"),
        ("mlp:-1x3", UsageError, "such as mlp:1024x3"),
        ("mlp:64", UsageError, "such as mlp:1024x3"),
        ("mlp:", UsageError, "such as mlp:1024x3"),
        ("mlp:build", UsageError, "no module named 'mlp'"),
        ("no_such_module:f", UsageError, "no module named 'no_such_module'"),
        (f"{script}:gone", UsageError, "no callable 'gone'"),
        (f"{script}:number", UsageError, "no callable 'number'"),
        (f"{script}:alone", UsageError, "returned Linear; expected"),
        (f"{script.parent / 'none.py'}:f", OutsideError, "there is no script"),
    ]:
        with pytest.raises(error, match=says):
            load(name, None)
    with pytest.raises(UsageError, match="take a parameter named batch"):
        load(f"{script}:odd", 8)
