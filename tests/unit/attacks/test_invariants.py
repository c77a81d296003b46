"""Attacks 6, 8 and 18 read what monomial masks leave."""

import pytest
import torch
from sealing import Wire

from tempo.attacks.invariants import MonomialInvariants
from tempo.attacks.knowledge import PublicWeights
from tempo.attacks.score.invariants import InvariantsScorer
from tempo.kernels import Axis, Monomial
from tempo.secrecy.basis import Basis
from tempo.secrecy.mixing import mixing_bases
from tempo.secrecy.monomial import monomial_bases
from tempo.secrecy.scheme import Scheme

N, K = 96, 256


class PowersOfTwo(Scheme):
    """A planted leak: coefficients that are cheap to invert."""

    name, blurs_rows = "powers of two", False

    def features(self, stream, lengths):
        permutations = stream.permutations(lengths)
        scales = [stream.coefficients(n, 4.0).log2().nan_to_num(1.0).round().exp2() for n in lengths]
        axes = zip(lengths, permutations, scales, strict=True)
        return [Basis([Axis(n, enter=Monomial(p, s))], 16.0) for n, p, s in axes]

    _stretches = features


def scores(folder, scheme, change=0.0, **options):
    torch.manual_seed(5)
    # Rows with tails of their own, as trained neurons have them.
    public = {
        f"{i}.weight": torch.randn(N, K) * torch.randn(N, K).abs() ** torch.rand(N, 1) for i in range(2)
    }
    wire = Wire(folder, scheme, **options)
    for name, w0 in public.items():
        wire.layer(w0 + change * w0.std() * torch.randn(N, K), [(torch.randn(64, K), None)], name=name)
    guess = MonomialInvariants().run(wire.transcript, PublicWeights(weights=public))
    found = InvariantsScorer().score(guess, wire.truth)
    return {n.split(",")[0]: sum(t.values) / len(t.values) for n, t in found.items()}, found


@pytest.mark.parametrize("change", [0.0, 0.05])
@pytest.mark.parametrize("scheme", ["monomial", "unsafe_none"])
def test_monomial_masks_leave_ratios_and_signatures(tmp_path, scheme, change):
    mean, found = scores(tmp_path, scheme, change)
    assert mean["W rows by cross ratios"] > 0.98
    assert mean["W columns by cross ratios"] > 0.98
    assert mean["W rows by signatures"] > 0.5
    if change == 0:
        assert found["W rows by cross ratios, linear layers"].details["median_deviation"] < 1e-5


def test_mixing_leaves_neither(tmp_path):
    mean, found = scores(tmp_path, "mixing")
    for name, value in mean.items():
        chance = next(t.chance for n, t in found.items() if n.startswith(name))
        assert value < chance + 0.03


def test_mantissas_survive_powers_of_two(tmp_path):
    assert scores(tmp_path, PowersOfTwo(chunk=8192, smallest=1))[0]["W by mantissas"] > 0.999


def test_real_coefficients_hide_mantissas(tmp_path):
    mean, _ = scores(tmp_path, "monomial")
    assert mean["W by mantissas"] < 0.01


class RowsOnlyPermuted(Scheme):
    """Mixing turned down: in-features are mixed, with scales of one; out-features are permuted."""

    name, blurs_rows = "rows only permuted", False

    def features(self, stream, lengths):
        if lengths[0] == K:
            return mixing_bases(stream, lengths, spread=1.0000001, rounds=2, block=64)
        return monomial_bases(stream, lengths, spread=1.0000001)

    _stretches = features


def test_norms_see_through_mixing_with_scales_of_one(tmp_path):
    mean, _ = scores(tmp_path, RowsOnlyPermuted(chunk=8192, smallest=1))
    assert mean["W rows by norms"] > 0.98
    assert mean["W columns by norms"] < 0.03
