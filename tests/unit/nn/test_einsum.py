"""einsum against torch.einsum in float64: values, shapes, gradients and refusals."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from tempo.nn.einsum import einsum


def r(*shape):
    return torch.randn(shape, dtype=torch.float64)


class Spy:
    """Strict about what it is given, and keeps it."""

    def __init__(self):
        self.matmuls = []
        self.linears = []

    def matmul(self, a, b):
        assert a.dim() == b.dim() == 3
        assert a.shape[0] == b.shape[0]
        assert a.shape[2] == b.shape[1]
        self.matmuls.append((a, b))
        return torch.bmm(a, b)

    def linear(self, x, w):
        assert w.dim() == 2
        assert x.shape[-1] == w.shape[1]
        self.linears.append((x, w))
        return F.linear(x, w)


def agree(equation, operands):
    """Both give one result and one set of gradients, or both raise one error."""
    spy = Spy()
    refusal = None
    try:
        want = torch.einsum(equation, *operands)
    except (RuntimeError, ValueError) as error:
        refusal = error
    if refusal is not None:
        with pytest.raises(type(refusal), match=f"^{re.escape(str(refusal))}$"):
            einsum(spy.matmul, spy.linear, equation, *operands)
        return spy
    got = einsum(spy.matmul, spy.linear, equation, *operands)
    assert got.shape == want.shape
    torch.testing.assert_close(got, want)
    leaves = [x for x in operands if x.requires_grad]
    if leaves:
        dy = torch.randn_like(want)
        theirs = torch.autograd.grad(want, leaves, dy, allow_unused=True)
        for mine, other in zip(torch.autograd.grad(got, leaves, dy, allow_unused=True), theirs):
            torch.testing.assert_close(mine, other)
    return spy


SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 2, "i": 3, "j": 4, "k": 5, "A": 3, "B": 2, "Z": 4}

EQUATIONS = """
    ->  i->i  i->  ij->  ij->j  ij->ji  ii  ii->i  iij->j  iij->ji  iii->i  ij  ji  ...->...  i,->i  ,->
    ,i  i,i  i,i->  i,i->i  i,j->ij  i,j->ji  i,j->  i,j->j  i,j  ij,j  ij,j->i  j,ij  ij,jk  ij,jk->ik
    ij,jk->ki  ij,kj->ik  ji,jk->ik  ji,kj->ki  ij,ij  ij,ij->  ij,ij->ij  ij,ji->  ij,ij->i  ij,ij->j
    ij,kl->ijkl  ij,k->ijk  ij,k->kji  ij,k->  ij,k->k  bij,bjk->bik  bij,bkj->bik  bij,bjk->ijk  bij,bjk
    bij,bjk->  bij,bij->b  bij,jk->bik  bij,kj->ikb  ij,bjk->bik  aij,bjk->abik  abij,abjk->abik
    abij,bjk->abik  abij,abkj->abik  abij,bakj->kbai  bij,cji->bc  bij,cij->bc  abcd,cdij->abij
    abcd,dcij->jiba  abc,cbd->ad  abc,dbc->ad  abc,bd->adc  ii,ij->j  ii,ii->  ii,ii->i  iji,jk->ik
    ij,jj->i  iij,jkk->ik  ii,i  iijj,ij->ij  ij,jk,kd->id  ij,jk,kd  ij,ij,ij->ij  ij,ij,ij->  i,j,k->ijk
    i,i,i  ab,bc,cd,de->ae  ab,bc,ca->  ab,ac,ad->bcd  bn,anm,bm->ba  b,b,bc,cd->d  a,b,c,d->dcba
    ab,b,bc->ac  ,i,->i  ,,  ij,,jk->ik  aij,i,j->a  AB,BZ->AZ  Ab,bA  aA,Aa->aA  Zb,bA  Ba,aA  ...  ...i
    ...i->...  ...ij->...ji  i...->...i  ...,...  ...,...->  ...i,...i  ...i,i  ...ij,...jk->...ik
    ...ij,jk->...ik  ij,...jk->...ik  i...j,jk...->ik...  ...i,...j->...ij  ...i,j...->...  ...ij,...jk->ik
    a...,b...->...ab  ...ij,...jk  i...,i...->...  ...b,...b,...c->...c  ...ii->...i  ...ii,...i->...
    ...,i->i...
"""


def shape_of(side, extra=(2, 3)):
    before, dots, after = side.partition("...")
    shape = [*(SIZES.get(x, 3) for x in before), *(extra if dots else ()), *(SIZES.get(x, 3) for x in after)]
    return shape


@pytest.mark.parametrize("equation", EQUATIONS.split())
@pytest.mark.parametrize("parameters", ["none", "last", "first", "all"])
def test_equation(equation, parameters):
    sides = equation.partition("->")[0].split(",")
    operands = [r(*shape_of(side)).requires_grad_() for side in sides]
    if parameters != "none":
        which = {"last": [-1], "first": [0], "all": range(len(sides))}[parameters]
        for i in which:
            operands[i] = nn.Parameter(operands[i].detach())
    agree(equation, operands)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(1, 4), (4, 3)]),
        ("ij,jk->ik", [(2, 1), (4, 3)]),
        ("ij,jk->ik", [(2, 4), (1, 3)]),
        ("ij,jk->ik", [(2, 1), (1, 3)]),
        ("bij,bjk->bik", [(1, 2, 3), (5, 3, 4)]),
        ("bij,bjk->bik", [(1, 2, 3), (1, 3, 4)]),
        ("bij,bjk->b", [(5, 2, 3), (1, 1, 4)]),
        ("i,i->i", [(1,), (3,)]),
        ("i,i", [(1,), (3,)]),
        ("ii,i->i", [(1, 1), (3,)]),
        ("...ij,...jk->...ik", [(2, 3), (5, 3, 4)]),
        ("...ij,...jk->...ik", [(2, 1, 2, 3), (5, 3, 4)]),
        ("...ij,...jk->...ik", [(1, 2, 3), (6, 5, 3, 4)]),
        ("...,...->...", [(), (2, 3)]),
        ("...ij,...j->...i", [(4, 2, 3), (3,)]),
        ("...,...", [(1, 3), (2, 1)]),
        ("ij,jk->ik", [(0, 4), (4, 3)]),
        ("ij,jk->ik", [(2, 0), (0, 3)]),
        ("ij,jk->ik", [(2, 0), (1, 3)]),
    ],
)
def test_broadcasting_and_empty(equation, shapes):
    for kind in (nn.Parameter, lambda x: x.requires_grad_()):
        agree(equation, [kind(r(*shape)) for shape in shapes])


BAD = [
    ("ij,jk->ik", [(2, 3), (4, 5)]),
    ("ij,jk->iz", [(2, 3), (3, 5)]),
    ("ij,jk->ii", [(2, 3), (3, 5)]),
    ("ij,jk", [(2, 3)]),
    ("ij", [(2, 3), (3, 4)]),
    ("ijk,jk", [(2, 3), (3, 4)]),
    ("i,jk", [(2, 3), (3, 4)]),
    ("ii,i", [(2, 3), (2,)]),
    ("ii,i", [(1, 3), (3,)]),
    ("i1,1j", [(2, 3), (3, 4)]),
    ("i\tj,jk", [(2, 3), (3, 4)]),
    ("ij;jk", [(2, 3), (3, 4)]),
    ("ij,jk-ik", [(2, 3), (3, 4)]),
    ("ij,jk->ik->", [(2, 3), (3, 4)]),
    ("ij,jk- >ik", [(2, 3), (3, 4)]),
    ("i.j,jk", [(2, 3), (3, 4)]),
    (". ..ij,jk", [(2, 3), (3, 4)]),
    ("...i...,jk", [(2, 3), (3, 4)]),
    ("ij,jk->...ik...", [(2, 3), (3, 4)]),
    ("...ij,jk", [(2,), (3, 4)]),
    ("...i,...i", [(2, 4), (3, 4)]),
    ("ij,jk->ik,", [(2, 3), (3, 4)]),
    ("", [(2,), (2,)]),
    ("\u00e9j,jk", [(2, 3), (3, 4)]),
]


@pytest.mark.parametrize(("equation", "shapes"), BAD, ids=[repr(equation) for equation, _ in BAD])
def test_what_pytorch_refuses_it_refuses_here_too(equation, shapes):
    operands = [r(*shape) for shape in shapes]
    with pytest.raises((RuntimeError, ValueError)):
        torch.einsum(equation, *operands)
    agree(equation, operands)


def test_no_operands():
    spy = Spy()
    with pytest.raises(ValueError, match="at least one operand"):
        einsum(spy.matmul, spy.linear, "i->i")


def test_spaces_lists_and_an_ellipsis_that_covers_nothing():
    for equation in ("ij, jk -> ik", " i j,jk->ik ", "ij ,j k", "ij,jk->...ik", "... ij,jk"):
        agree(equation, [r(2, 3), r(3, 4)])
    spy, a, b = Spy(), r(2, 3), r(3, 4)
    torch.testing.assert_close(einsum(spy.matmul, spy.linear, "ij,jk", [a, b]), a @ b)


def test_a_function_mode_sees_sublists_as_an_equation():
    spy = Spy()

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.einsum:
                return einsum(spy.matmul, spy.linear, *args)
            return func(*args, **(kwargs or {}))

    a, b = r(5, 2, 3), r(5, 3, 4)
    with Mode():
        y = torch.einsum(a, [..., 0, 30], b, [..., 30, 1], [..., 1, 0])
    torch.testing.assert_close(y, (a @ b).mT)
    assert len(spy.matmuls) == 1


def test_a_parameter_goes_by_identity():
    w_NK, w_KN = nn.Parameter(r(7, 5)), nn.Parameter(r(5, 7))
    x, x3 = r(4, 5), r(2, 4, 5)
    for equation, operands in {
        "rk,nk->rn": (x, w_NK),
        "nk,rk->nr": (w_NK, x),
        "bsk,nk->bsn": (x3, w_NK),
        "...k,nk->...n": (x3, w_NK),
    }.items():
        ((given_x, given_w),) = agree(equation, operands).linears
        assert given_w is w_NK
        assert given_x is x or given_x is x3
    ((given_x, given_w),) = agree("bsk,kn->bsn", (x3, w_KN)).linears
    assert given_x is x3
    assert given_w._base is w_KN
    assert given_w.shape == (7, 5)
    assert given_w.stride() == w_KN.mT.stride()


def test_parameters_of_more_axes_are_views():
    x, heads = r(2, 4, 5), r(2, 4, 3, 6)
    for equation, operand, w, nk in [
        ("bsd,dhe->bshe", x, nn.Parameter(r(5, 3, 6)), (18, 5)),
        ("bshe,hed->bsd", heads, nn.Parameter(r(3, 6, 5)), (5, 18)),
        ("bshe,dhe->bsd", heads, nn.Parameter(r(5, 3, 6)), (5, 18)),
        ("bsd,hed->bhse", x, nn.Parameter(r(3, 6, 5)), (18, 5)),
    ]:
        ((_, given_w),) = agree(equation, (operand, w)).linears
        assert given_w.shape == nk
        assert given_w._base is w
        assert given_w.data_ptr() == w.data_ptr()


def test_batched_parameters_and_plain_tensors_go_to_matmul():
    assert agree("bij,bjk->bik", (r(2, 3, 4), nn.Parameter(r(2, 4, 5)))).linears == []
    assert agree("ij,jk->ik", (r(3, 4), r(4, 5))).linears == []
    assert agree("i,j->ij", (r(3), nn.Parameter(r(4)))).linears == []


@pytest.mark.parametrize(
    "equation",
    ["ij,jk->ik", "bij,bjk->bik", "bij,cj->bci", "ij,ij->i", "i,j->ij", "ij,k->k", "aij,ajk,kb->aib"],
)
def test_pairs_cost_what_they_cost_in_pytorch(equation):
    operands = [r(*shape_of(side)) for side in equation.partition("->")[0].split(",")]
    with FlopCounterMode(display=False) as theirs:
        torch.einsum(equation, *operands)
    with FlopCounterMode(display=False) as mine:
        einsum(torch.bmm, F.linear, equation, *operands)
    assert mine.get_total_flops() == theirs.get_total_flops()


@st.composite
def calls(draw):
    """An equation, mostly a valid one, and its operands."""
    sizes = {letter: draw(st.integers(0, 3)) for letter in "abCD"}
    covered = [draw(st.integers(1, 3)) for _ in range(2)]
    sides, shapes = [], []
    for _ in range(draw(st.integers(1, 4))):
        letters = draw(st.lists(st.sampled_from("abCD"), max_size=3))
        tokens = [
            (x, [1 if letters.count(x) == 1 and draw(st.integers(0, 5)) == 0 else sizes[x]]) for x in letters
        ]
        if draw(st.integers(0, 2)) == 0:
            dims = [1 if draw(st.integers(0, 4)) == 0 else n for n in covered[draw(st.integers(0, 2)) :]]
            tokens.insert(draw(st.integers(0, len(tokens))), ("...", dims))
        sides.append("".join(token for token, _ in tokens))
        shapes.append([n for _, dims in tokens for n in dims])
    equation = ",".join(sides)
    if draw(st.booleans()):
        output = [x for x in draw(st.permutations("abCD")) if x in equation and draw(st.booleans())]
        if draw(st.booleans()):
            output.insert(draw(st.integers(0, len(output))), "...")
        equation += "->" + "".join(output)
    return equation, shapes, draw(st.lists(st.booleans(), min_size=4, max_size=4))


@settings(max_examples=400, deadline=None)
@given(calls())
def test_any_equation(call):
    equation, shapes, parameters = call
    operands = [nn.Parameter(r(*s)) if p else r(*s).requires_grad_() for s, p in zip(shapes, parameters)]
    agree(equation, operands)
