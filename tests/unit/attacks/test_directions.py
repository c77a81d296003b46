"""Attack 7 names rows that a mask does not turn, and rows that it turns alike."""

import pytest
import torch
from sealing import Wire

from tempo.attacks.directions import DirectionMatching, procrustes
from tempo.attacks.knowledge import PublicWeights
from tempo.attacks.score.directions import DirectionsScorer
from tempo.secrecy.basis import identity
from tempo.secrecy.mixing import mixing_bases
from tempo.secrecy.monomial import monomial_bases
from tempo.secrecy.scheme import Scheme

N, K = 192, 96


class Features(Scheme):
    """out-features: monomial; in-features: as each subclass says."""

    name, blurs_rows = "planted", False
    spread = 1.2  # the mixed axis; with the default of 1.41 rows are no longer matched

    def features(self, stream, lengths):
        if lengths[0] == N:
            return monomial_bases(stream, lengths, spread=2**0.5)
        return self.inner(stream, lengths)

    def _stretches(self, stream, lengths):
        return monomial_bases(stream, lengths, spread=2**0.5)


class InPlain(Features):
    def inner(self, stream, lengths):
        return [identity(n) for n in lengths]


class InMixed(Features):
    def inner(self, stream, lengths):
        return mixing_bases(stream, lengths, spread=self.spread, rounds=2, block=32)


class InRotated(InMixed):
    spread = 1.0000001


def scores(folder, scheme, change=0.05, **options):
    torch.manual_seed(7)
    public = {f"{i}.weight": torch.randn(N, K) * torch.linspace(2, 0.2, K) for i in range(2)}
    wire = Wire(folder, scheme, **options)
    for name, w0 in public.items():
        wire.layer(w0 + change * w0.std() * torch.randn(N, K), [(torch.randn(64, K), None)], name=name)
    guess = DirectionMatching().run(wire.transcript, PublicWeights(weights=public))
    found = DirectionsScorer().score(guess, wire.truth)
    return {n.split(",")[0].split()[-1]: sum(t.values) / len(t.values) for n, t in found.items()}


def planted(folder, scheme, **options):
    return scores(folder, scheme(chunk=8192, smallest=1), **options)


def test_in_the_clear_every_row_is_named(tmp_path):
    found = scores(tmp_path, "unsafe_none")
    assert found["rows"] == found["aligned"] == 1


def test_a_mask_on_rows_alone_turns_nothing(tmp_path):
    found = planted(tmp_path, InPlain)
    assert found["rows"] == found["aligned"] == 1


def test_permuted_in_features_keep_profiles(tmp_path):
    assert scores(tmp_path, "monomial", change=0.01)["profiles"] > 0.3


def test_rotated_in_features_keep_spectra(tmp_path):
    found = planted(tmp_path, InRotated, change=0.01)
    assert found["aligned"] > 0.9
    assert found["rows"] < 0.05


def test_in_features_near_a_rotation_are_aligned(tmp_path):
    assert planted(tmp_path, InMixed, change=0.01)["aligned"] > 0.4


def test_mixing_on_both_axes_turns_every_row(tmp_path):
    assert max(scores(tmp_path, "mixing").values()) < 0.03


@pytest.mark.parametrize("rows", [12, 40, 90])
def test_the_map_that_rows_say_is_found_whether_few_or_many(rows):
    torch.manual_seed(6)
    q = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64)).Q
    public = torch.randn(rows, 40, dtype=torch.float64)
    left, right = procrustes(public, public @ q)
    assert left.shape[1] == right.shape[1] == min(rows, 40)
    assert torch.allclose(public @ left @ right.mT, public @ q, atol=1e-9)
    # Where rows say nothing the map is zero.
    other = torch.linalg.svd(public).Vh[rows:]
    assert float((other @ left).abs().amax() if len(other) else 0) < 1e-9
