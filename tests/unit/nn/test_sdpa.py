"""Attention in two products is PyTorch's: results and gradients, in float64, and it leaves the TEE only where
offload_attention says so."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tempo import Session
from tempo.nn.sdpa import dot_product_attention

BATCH, HEADS, L, S, D, V = 2, 4, 5, 7, 6, 3
TOLERANCE = 1e-12
SMALL = {"placement": "always", "min_size": 0, "unsafe_small": True}


def operands(heads=HEADS):
    draw = torch.Generator().manual_seed(1)
    shapes = ((BATCH, HEADS, L, D), (BATCH, heads, S, D), (BATCH, heads, S, V))
    return [torch.randn(s, dtype=torch.float64, generator=draw).requires_grad_() for s in shapes]


def bool_mask():
    mask = torch.rand(BATCH, 1, L, S, generator=torch.Generator().manual_seed(2)) > 0.4
    mask[0, 0, 2] = False  # a position that may look at nothing
    return mask


CASES = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "bool mask": {"attn_mask": bool_mask()},
    "float mask": {"attn_mask": torch.linspace(-2, 2, L * S, dtype=torch.float64).view(L, S)},
    "fewer heads of keys": {"enable_gqa": True},
    "dropout": {"dropout_p": 0.5},
}


def gradients(attend, **options):
    q, k, v = operands(2 if options.get("enable_gqa") else HEADS)
    torch.manual_seed(3)
    y = attend(q, k, v, **options)
    r = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    return [y.detach(), *torch.autograd.grad((y * r).sum(), (q, k, v))]


@pytest.mark.parametrize("case", CASES)
def test_it_is_pytorchs(case):
    got = gradients(lambda *a, **o: dot_product_attention(torch.matmul, *a, **o), **CASES[case])
    want = gradients(F.scaled_dot_product_attention, **CASES[case])
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= TOLERANCE


HEADLESS = torch.zeros(BATCH, 1, L, D), torch.zeros(BATCH, 2, S, D), torch.zeros(BATCH, 2, S, V)
PLAIN = torch.zeros(BATCH, 1, L, D), torch.zeros(BATCH, 1, S, D), torch.zeros(BATCH, 1, S, V)
REFUSED = {
    "both masks": (PLAIN, {"attn_mask": torch.ones(L, S, dtype=torch.bool), "is_causal": True}),
    "a mask of numbers": (PLAIN, {"attn_mask": torch.ones(L, S, dtype=torch.long)}),
    "fewer heads of queries": (HEADLESS, {"enable_gqa": True}),
    "more dropout than all": (PLAIN, {"dropout_p": 1.5}),
    "no matrices": (tuple(t[0, 0, 0] for t in PLAIN), {}),
}


class Bare(nn.Module):
    def forward(self, *args, **options):
        return F.scaled_dot_product_attention(*args, **options)


@pytest.mark.parametrize("case", REFUSED)
def test_what_pytorch_refuses_is_refused(case):
    args, options = REFUSED[case]
    with pytest.raises(RuntimeError) as want:
        F.scaled_dot_product_attention(*args, **options)
    with Session("cpu", offload_attention=True, **SMALL) as session, pytest.raises(RuntimeError) as got:
        session.protect(Bare())(*args, **options)
    assert str(got.value).splitlines()[0] == str(want.value).splitlines()[0]


def test_rounding_under_autocast_is_no_more_than_pytorchs():
    draw = torch.Generator().manual_seed(6)
    q, k, v = (size * torch.randn(1, 64, 64, generator=draw) for size in (3, 3, 1))
    with torch.autocast("cpu", torch.bfloat16):
        with Session("cpu", offload_attention=True, **SMALL) as session:
            got = session.protect(Bare())(q, k, v)
            sent = sum(row.calls for row in session.report().rows if row.offloaded)
        want = F.scaled_dot_product_attention(q, k, v)
    exact = F.scaled_dot_product_attention(*(t.double() for t in (q, k, v)))
    assert sent == 2
    assert got.dtype == want.dtype == torch.bfloat16
    # The result is rounded to bfloat16, with 8 bits: scores are not.
    assert float((got - exact).norm() / exact.norm()) < 2**-8


def test_other_numbers_than_tempos_stay():
    q, k, v = (t.detach().bfloat16() for t in operands())
    with Session("cpu", offload_attention=True, **SMALL) as session:
        got = session.protect(Bare())(q, k, v)
        (row,) = session.report().rows
    assert torch.equal(got, F.scaled_dot_product_attention(q, k, v))
    assert (row.operation, row.offloaded) == ("attention", False)


@pytest.mark.parametrize("options", [{"placement": "never"}, {"min_size": 8}], ids=["placement", "min_size"])
def test_it_is_taken_apart_only_where_a_product_is_sent(options):
    """Else one kernel is quicker, and never holds the scores of all positions."""
    q, k, v = operands()
    with Session("cpu", offload_attention=True, **SMALL | options) as session:
        got = session.protect(Bare())(q, k, v)
        (row,) = session.report().rows
    assert torch.equal(got, F.scaled_dot_product_attention(q, k, v))
    assert (row.operation, row.calls, row.offloaded) == ("attention", 1, False)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(D, D)

    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(self.project(q), k, v, is_causal=True)


@pytest.mark.parametrize("wanted", [True, False])
def test_it_leaves_the_tee_where_the_user_says_so(wanted):
    torch.manual_seed(5)
    model = Attention().double()
    want = gradients(model)
    with Session("cpu", offload_attention=wanted, **SMALL) as session:
        got = gradients(session.protect(model))
        rows = session.report().rows
    for a, b in zip(got, want, strict=True):
        assert float((a - b).abs().max()) <= 1e-10
    sent = [row for row in rows if row.operation != "linear" and row.offloaded]
    assert (sum(row.calls for row in sent), bool(sent)) == ((2, True) if wanted else (0, False))
