"""Tensors whose values are not what lies at their address."""

import pytest
import torch

from tempo.kernels import Axis, Transform, norms, project, resolved, transform
from tempo.kernels.plainness import plain_memory

T = torch.arange(1.0, 25.0).view(4, 6)
LAZY = {
    "pending sign": torch._neg_view(T),
    "zeros without memory": torch._efficientzerotensor((4, 6)),
}


@pytest.mark.parametrize("name", LAZY)
def test_checks_read_the_values(name):
    lazy = LAZY[name]
    v = torch.ones(6, 2, dtype=torch.float64)
    exact = (lazy + 0.0).double()
    assert torch.equal(project(lazy, v)[0], exact @ v)
    assert torch.equal(norms(lazy), torch.linalg.vector_norm(exact, dim=1))


@pytest.mark.parametrize("name", LAZY)
def test_transforms_refuse_them_and_resolving_helps(name):
    lazy = LAZY[name]
    assert plain_memory(T)
    assert not plain_memory(lazy)
    with pytest.raises(ValueError, match="plain main memory"):
        Transform(lazy, torch.empty(4, 6), [Axis(4)], Axis(6))
    out = torch.empty(4, 6)
    transform([Transform(resolved(lazy), out, [Axis(4)], Axis(6))])
    assert torch.equal(out, lazy + 0.0)
    assert resolved(T) is T
