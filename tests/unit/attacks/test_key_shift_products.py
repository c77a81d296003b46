"""Attack 2 is exact where masks are monomial and gradients carry their duals."""

import dataclasses

import pytest
import torch
from sealing import Wire

from tempo.attacks import NothingToAttack, Transcript
from tempo.attacks.knowledge import Nothing
from tempo.attacks.products import KeyShiftProducts
from tempo.attacks.score.products import ProductsScorer
from tempo.ops import Op, grad_w, grad_x, product
from tempo.secrecy.mixing import mixing_bases
from tempo.secrecy.monomial import monomial_bases
from tempo.secrecy.scheme import Scheme


def recorded(folder, scheme, **options):
    torch.manual_seed(2)
    wire = Wire(folder, scheme, **options)
    for _ in range(4):
        x = torch.randn(2, 96, 80).relu()
        wire.layer(torch.randn(2, 72, 80), [(x, torch.randn(2, 96, 72))])
    return wire


def scores(wire):
    found = ProductsScorer().score(KeyShiftProducts().run(wire.transcript, Nothing()), wire.truth)
    assert len(found) == 6
    return {name: (sum(t.values) / len(t.values), t.chance, len(t.values)) for name, t in found.items()}


@pytest.mark.parametrize("scheme", ["monomial", "unsafe_none"])
def test_coefficients_cancel(tmp_path, scheme):
    for score, chance, n in scores(recorded(tmp_path, scheme)).values():
        assert score > 0.95
        assert chance < 0.2
        assert n == 8


def test_mixing_keeps_them_apart(tmp_path):
    for score, chance, _ in scores(recorded(tmp_path, "mixing")).values():
        assert score < chance + 0.1


def test_without_gradients_it_says_so(tmp_path):
    wire = Wire(tmp_path)
    wire.layer(torch.randn(64, 64), [(torch.randn(64, 64), None)])
    with pytest.raises(NothingToAttack, match="key shift is off"):
        KeyShiftProducts().run(wire.transcript, Nothing())


def test_a_planted_leak_is_found(tmp_path):
    """One operand of the mask is left out by mistake."""
    wire = recorded(tmp_path, "mixing")
    plain = [
        dataclasses.replace(s, left=truth(wire, s.left_id), right=truth(wire, s.right_id)) for s in wire.seen
    ]
    of = {Op.PRODUCT: product, Op.GRAD_X: grad_x, Op.GRAD_W: grad_w}
    leak = tuple(dataclasses.replace(s, result=of[s.op](s.left, s.right, s.rows)) for s in plain)
    found = ProductsScorer().score(KeyShiftProducts().run(Transcript(leak), Nothing()), wire.truth)
    assert all(min(t.values) > 0.99 for t in found.values())


def truth(wire, id_):
    return wire.truth.of(id_).plain.float()


class RowsOnlyPermuted(Scheme):
    """Mixing turned down: features are mixed with all blocks and rounds, rows are not."""

    name, blurs_rows = "rows only permuted", False

    def features(self, stream, lengths):
        return mixing_bases(stream, lengths, spread=2**0.5, rounds=2, block=64)

    def _stretches(self, stream, lengths):
        return monomial_bases(stream, lengths, spread=2**0.5)


def test_one_axis_that_is_only_permuted_is_enough(tmp_path):
    found = scores(recorded(tmp_path, RowsOnlyPermuted(chunk=8192, smallest=1)))
    assert found["sums for each row"][0] > 0.9
    for name in ("W and dW", "sums for each out-feature", "sums for each in-feature"):
        assert found[name][0] < found[name][1] + 0.1
