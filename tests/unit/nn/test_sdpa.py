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


def test_both_masks_at_once_are_pytorchs_error():
    q, k, v = operands()
    with pytest.raises(RuntimeError, match="is_causal"):
        dot_product_attention(torch.matmul, q, k, v, torch.ones(L, S, dtype=torch.bool), 0.0, True)


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
    options = {"placement": "always", "min_size": 0, "unsafe_small": True}
    with Session("cpu", offload_attention=wanted, **options) as session:
        got = gradients(session.protect(model))
        rows = session.report().rows
    for a, b in zip(got, want, strict=True):
        assert float((a - b).abs().max()) <= 1e-10
    sent = [row for row in rows if row.operation != "linear" and row.offloaded]
    assert (sum(row.calls for row in sent), bool(sent)) == ((2, True) if wanted else (0, False))
