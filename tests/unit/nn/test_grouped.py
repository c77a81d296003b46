"""Grouped products, which experts of a mixture are made of, taken apart, against PyTorch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tempo import Session
from tempo.numerics import GROWTH

OFFS = {"all": [2, 5, 9, 12], "one expert idle": [2, 2, 9, 12], "rows of nobody": [2, 5, 6, 9]}


class Experts(nn.Module):
    """transposed: the weight lies as (E,N,K), as most models of Hugging Face have it."""

    def __init__(self, transposed, function):
        super().__init__()
        shape = (4, 24, 16) if transposed else (4, 16, 24)
        self.weight = nn.Parameter(torch.randn(shape) / 4)
        self.transposed, self.function = transposed, function

    def forward(self, x, offs):
        w = self.weight.mT if self.transposed else self.weight
        return self.function(x, w, offs=offs)


def run(model, x, offs):
    model.zero_grad()
    x = x.clone().requires_grad_()
    y = model(x, offs)[: int(offs[-1])]  # what comes after is not defined
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(2)))
    return y.detach(), x.grad[: int(offs[-1])], model.weight.grad.clone()


@pytest.mark.parametrize("function", [torch._grouped_mm, nn.functional.grouped_mm])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("ends", list(OFFS.values()), ids=list(OFFS))
def test_grouped_products(function, transposed, ends):
    torch.manual_seed(0)
    plain, x, offs = Experts(transposed, function), torch.randn(12, 16), torch.tensor(ends, dtype=torch.int32)
    model = copy.deepcopy(plain)
    want = run(plain, x, offs)
    with Session("cpu", min_size=0, unsafe_small=True, repeats=1.0) as session:
        got = run(session.protect(model), x, offs)
        report = session.report()
    for a, b in zip(got, want, strict=True):
        assert float((a - b).norm()) <= GROWTH * 2**-24 * float(b.norm())
    rows = ends[-1]
    assert report.offloaded_flops == 3 * 2 * rows * 16 * 24
    assert report.kept_flops == 0
    assert {row.module for row in report.rows} == {"Experts"}


def test_other_forms_stay_and_are_listed():
    class Weights(nn.Module):
        def forward(self, a, b, offs):
            return torch._grouped_mm(a, b, offs)

    a, b, offs = torch.randn(16, 12), torch.randn(12, 24), torch.tensor([4, 12], dtype=torch.int32)
    want = torch._grouped_mm(a, b, offs)
    with Session("cpu", min_size=0, unsafe_small=True) as session:
        got = session.protect(Weights())(a, b, offs)
        (row,) = session.report().rows
    assert torch.equal(got, want)
    assert (row.operation, row.reason) == ("grouped_mm", "not lowered")


def test_nobodys_rows_alone():
    """Not one expert has a row: PyTorch's own kernel answers."""
    model, x, offs = Experts(False, torch._grouped_mm), torch.randn(12, 16), torch.zeros(4, dtype=torch.int32)
    with Session("cpu", min_size=0, unsafe_small=True) as session:
        assert session.protect(model)(x, offs).shape == (12, 24)


@pytest.mark.parametrize("function", [torch._grouped_mm, nn.functional.grouped_mm])
def test_autocast_leaves_grouped_products_alone(function):
    torch.manual_seed(0)
    plain, x = Experts(False, function), torch.randn(12, 16)
    offs = torch.tensor(OFFS["all"], dtype=torch.int32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        want = plain(x, offs).detach()
        with Session("cpu", min_size=0, unsafe_small=True, repeats=1.0) as session:
            got = session.protect(plain)(x, offs).detach()
    assert got.dtype == want.dtype == torch.float32
    assert float((got - want).norm()) <= GROWTH * 2**-24 * float(want.norm())
