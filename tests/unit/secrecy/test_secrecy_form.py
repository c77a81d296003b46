"""In which numbers operands are sent: by setting, by layer, by how even the rows are."""

import pytest
import torch

from tempo import Config
from tempo.lowering import lower_conv, lower_linear
from tempo.ops import Arithmetic
from tempo.secrecy.form import EVEN, FULL, Form, Precision, even
from tempo.secrecy.rows import Selection

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
LINEAR = lower_linear((100, 64), (64, 64))
F4 = lower_conv((8, 64, 14, 14), (64, 64, 3, 3), padding=1)
F2 = lower_conv((20, 64, 6, 6), (64, 64, 3, 3), padding=1, smallest=128)
ALL = Selection.everything(1, 4)
LEVEL = torch.tensor([[1.0, 2.0, 1.0, EVEN]], dtype=F64)
STEEP = torch.tensor([[1.0, 2.0, 1.0, EVEN * 1.001]], dtype=F64)


def test_even_is_thirty_times_group_by_group():
    assert EVEN == 30.0, "DESIGN.md, Scales"
    assert even(LEVEL, ALL)
    assert not even(STEEP, ALL)
    groups = torch.cat([LEVEL, 1000 * LEVEL])
    assert even(groups, Selection.everything(2, 4)), "rows of different groups never meet"
    assert not even(torch.cat([LEVEL, STEEP]), Selection.everything(2, 4))


def test_only_rows_that_are_sent_count():
    norms = torch.tensor([[0.0, 1.0, 20.0, 1e9]], dtype=F64)
    assert even(norms, Selection.where(torch.tensor([[False, True, True, False]])))
    assert not even(norms, Selection.where(torch.tensor([[True, True, True, False]])))
    assert even(norms, Selection.where(torch.zeros(1, 4, dtype=torch.bool)))
    assert not even(torch.tensor([[1.0, float("nan")]]), Selection.everything(1, 2))


# settings -> even rows, uneven rows of a linear layer; even rows of F(4,3)
TABLE = {
    ("fp32", "fp32"): ((F32, "fp32"), (F32, "fp32"), (F32, "fp32")),
    ("fp32", "tf32"): ((F32, "tf32"), (F32, "fp32"), (F32, "tf32")),
    ("fp32", "bf16"): ((F32, "bf16"), (F32, "fp32"), (F32, "tf32")),
    ("bf16", "fp32"): ((BF16, "fp32"), (F32, "fp32"), (F32, "fp32")),
    ("bf16", "bf16"): ((BF16, "fp32"), (F32, "fp32"), (F32, "fp32")),
}


@pytest.mark.parametrize(("wire", "arithmetic"), TABLE)
def test_the_table(wire, arithmetic):
    precision = Config(wire=wire, arithmetic=arithmetic).precision
    level, steep, delicate = TABLE[wire, arithmetic]
    for lowering in (LINEAR, F2):
        assert precision.rows(lowering, LEVEL, ALL, F32) == Form(level[0], Arithmetic(level[1]))
        assert precision.rows(lowering, STEEP, ALL, F32) == Form(steep[0], Arithmetic(steep[1]))
    assert F4.name == "winograd F(4,3)"
    assert precision.rows(F4, LEVEL, ALL, F32) == Form(delicate[0], Arithmetic(delicate[1]))
    assert precision.rows(F4, STEEP, ALL, F32) == Form(F32)
    for lowering in (LINEAR, F4):  # float64 is never narrowed
        assert precision.rows(lowering, LEVEL, ALL, F64) == Form(F64)


def test_the_default_rounds_nothing():
    assert Config().precision == FULL == Precision()
    assert FULL.full
    assert not Precision(wire=BF16).full
    assert not Precision(arithmetic=Arithmetic.TF32).full
