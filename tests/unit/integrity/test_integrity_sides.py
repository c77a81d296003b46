"""One reading of W' for many replies: what each gets is its own, and right."""

import pytest
import torch

from tempo.integrity.sides import Sides
from tempo.ops import Op


class Drawn:
    def __init__(self) -> None:
        self.probes: list[torch.Tensor] = []

    def __call__(self, width: int) -> torch.Tensor:
        self.probes.append(torch.randn(width, 2, dtype=torch.float64))
        return self.probes[-1]


@pytest.mark.parametrize("op", [Op.PRODUCT, Op.GRAD_X])
@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("ahead", [1, 3])
def test_every_reply_has_a_probe_of_its_own_through_w(op: Op, rounded: bool, ahead: int) -> None:
    w = torch.randn(2, 7, 5)
    draw = Drawn()
    sides = Sides(draw, ahead)
    taken = [sides.take(w, op, rounded=rounded) for _ in range(5)]
    assert [id(t.probe_OP) for t in taken] == [id(p) for p in draw.probes]
    for side in taken:
        for g, each in enumerate(w.double()):
            through = each if op is Op.GRAD_X else each.mT
            torch.testing.assert_close(side.v_GIP[g], through @ side.probe_OP, rtol=1e-12, atol=1e-12)
            assert side.norms_G[g].item() == pytest.approx(each.norm().item())
            if rounded:
                assert side.h_GIP is not None
                h = (through @ side.probe_OP).square() + through.square() @ side.probe_OP.square()
                torch.testing.assert_close(side.h_GIP[g], h, rtol=1e-10, atol=1e-10)
    assert rounded or all(side.h_GIP is None for side in taken)


def test_no_probe_is_drawn_for_a_w_that_no_reply_meets() -> None:
    draw = Drawn()
    Sides(draw, 4)
    assert draw.probes == []


def test_each_w_and_each_product_has_probes_of_its_own() -> None:
    draw = Drawn()
    sides = Sides(draw, 2)
    one, other = torch.randn(1, 4, 4), torch.randn(1, 4, 4)
    found = [sides.take(w, op, rounded=False) for w in (one, other) for op in (Op.PRODUCT, Op.GRAD_X)]
    assert len({id(side.probe_OP) for side in found}) == 4
    assert len(draw.probes) == 8


def test_a_side_is_in_no_error_message_and_no_pickle() -> None:
    import pickle

    sides = Sides(Drawn(), 1)
    with pytest.raises(TypeError):
        pickle.dumps(sides)
    assert "tensor" not in repr(sides) + repr(sides.take(torch.randn(1, 3, 3), Op.PRODUCT, rounded=False))
