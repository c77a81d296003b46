"""Attack 13: under key shift a known batch is recognised whatever the basis, and without gradients hardly."""

import dataclasses

import pytest
import torch
from sealing import Wire

from tempo.attacks import NothingToAttack, Transcript
from tempo.attacks.knowledge import Candidates
from tempo.attacks.score.similarity import SimilarityScorer
from tempo.attacks.similarity import SimilarityInvariants, _expected, _spectrum, candidate
from tempo.ops import Op

N, K, R, BATCHES, STEPS = 80, 96, 128, 40, 24


def run(folder, scheme, *, gradients=True, change=0.01, rows=R, **options):
    """STEPS batches out of BATCHES, through one layer that is known up to a change."""
    torch.manual_seed(13)
    w, mix = torch.randn(N, K), torch.randn(K, K) / K**0.5
    triples = [((torch.randn(rows, K) @ mix + 0.5).relu(), w, torch.randn(rows, N)) for _ in range(BATCHES)]
    known = Candidates(operands=tuple(candidate([t]) for t in triples))
    wire = Wire(folder, scheme, **options)
    for i in torch.randperm(BATCHES)[:STEPS].tolist():
        x, _, dy = triples[i]
        wire.layer(w + change * torch.randn(N, K), [(x, dy if gradients else None)])
    return wire, known


def scores(wire, known, seen=None):
    guess = SimilarityInvariants().run(Transcript(tuple(seen)) if seen else wire.transcript, known)
    found = SimilarityScorer().score(guess, wire.truth)
    return {name: (sum(t.values) / len(t.values), t.chance) for name, t in found.items()}


@pytest.mark.parametrize("scheme", ["unsafe_none", "monomial", "mixing"])
def test_a_known_batch_is_recognised(tmp_path, scheme):
    found = scores(*run(tmp_path, scheme))
    name = "by products with gradients" if scheme != "mixing" else "by products, centre unknown"
    score, chance = found[name]
    assert score > 0.9
    assert chance == pytest.approx(1 / BATCHES)


def test_a_known_batch_of_a_known_model_is_recognised(tmp_path):
    """Eigenvalues are the same to the last bit."""
    found = scores(*run(tmp_path, "unsafe_none", rows=64, change=0.0))
    assert found["by products, centre unknown"][0] == 1


@pytest.mark.parametrize("scheme", ["unsafe_none", "mixing"])
def test_a_known_batch_of_few_rows_is_recognised(tmp_path, scheme):
    """Fewer rows than features: spectra are those of a product of rows."""
    found = scores(*run(tmp_path, scheme, rows=64, change=0.001))
    name = "by products with gradients" if scheme == "unsafe_none" else "by products, centre unknown"
    assert found[name][0] > 0.9


@pytest.mark.parametrize("few", [90, 40])
def test_candidates_need_not_be_of_one_size(tmp_path, few):
    """The last batch of an epoch is smaller; and a model that is known exactly needs no centre at all."""
    torch.manual_seed(15)
    w = torch.randn(N, K)
    triples = [((torch.randn(r, K) + 0.5).relu(), w, torch.randn(r, N)) for r in (*[R] * 7, few)]
    wire = Wire(tmp_path, "unsafe_none")
    for x, _, dy in triples:
        wire.layer(w, [(x, dy)])
    found = scores(wire, Candidates(operands=tuple(candidate([t]) for t in triples)))
    assert found["by products with gradients"][0] == found["by products, centre unknown"][0] == 1


@pytest.mark.parametrize(("n", "k", "r"), [(40, 50, 90), (50, 40, 90), (80, 96, 64)])
def test_the_effort_is_the_smallest_centre_that_explains_a_spectrum(n, k, r):
    """Against the equations written out and solved by a pseudo-inverse."""
    torch.manual_seed(14)
    x, w, dy = torch.randn(r, k).double(), torch.randn(n, k).double(), torch.randn(r, n).double()
    shifted = x - 0.05 * torch.randn(k).double()
    few = r < min(n, k)
    factors = (
        (shifted @ w.mT, dy.mT) if few else (w.mT, dy.mT @ shifted) if k <= n else (dy.mT @ shifted, w.mT)
    )
    seen = _spectrum(factors[0] @ factors[1])
    found = _expected([(x, w, dy)]).effort(seen)
    for one, about in zip(found.tolist(), (x, x - x.mean(0)), strict=True):
        wide = k > n and not few
        square, p = (dy.mT @ about @ w.mT, dy.sum(0)) if wide else (w.mT @ dy.mT @ about, w.mT @ dy.sum(0))
        eye = torch.eye(len(square), dtype=torch.complex128)
        rows = torch.stack([torch.linalg.solve(square - value * eye, p + 0j) for value in seen])
        size = about.square().mean().sqrt() * (w.norm() if wide else k**0.5)
        length = rows.norm(dim=1, keepdim=True)
        equations = torch.cat([(rows / length).real, (rows / length).imag])
        target = torch.cat([1 / length, torch.zeros_like(length)])
        q = torch.linalg.pinv(equations, rtol=1e-3) @ target
        assert one == pytest.approx(float(q.norm() / size), rel=1e-4)


def test_a_frozen_weight_is_no_help(tmp_path):
    """dX' alone was asked for: Y' and dY' carry duals all the same."""
    wire, known = run(tmp_path, "mixing")
    seen = [s for s in wire.seen if s.op is not Op.GRAD_W]
    assert scores(wire, known, seen)["by products, centre unknown"][0] > 0.9


def test_gradients_that_tell_nothing_name_nobody(tmp_path):
    wire, known = run(tmp_path, "mixing")
    noise = [dataclasses.replace(s, result=torch.randn_like(s.result)) for s in wire.seen]
    assert scores(wire, known, noise)["by products with gradients"][0] < 0.2


def test_without_gradients_singular_values_name_it_where_maps_only_rotate(tmp_path):
    found = scores(*run(tmp_path, "mixing", gradients=False, spread=1.0000001))
    assert "by products with gradients" not in found
    assert found["by singular values"][0] > 0.5


def test_without_gradients_coefficients_hide_it(tmp_path):
    assert scores(*run(tmp_path, "mixing", gradients=False))["by singular values"][0] < 0.25


def test_candidates_are_needed(tmp_path):
    wire, _ = run(tmp_path, "mixing")
    with pytest.raises(NothingToAttack, match="candidates"):
        SimilarityInvariants().run(wire.transcript, Candidates())
    with pytest.raises(NothingToAttack, match="every layer"):
        SimilarityInvariants().run(wire.transcript, Candidates(operands=((torch.ones(2, 2),),)))
