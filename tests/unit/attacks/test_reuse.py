"""Attack 11: a basis that serves many operands is found; repeats are seen under one key."""

from unittest import mock

import pytest
import torch
from sealing import Wire

from tempo.attacks import NothingToAttack, Transcript, reuse
from tempo.attacks.knowledge import Nothing
from tempo.attacks.reuse import KeyReuse
from tempo.attacks.score.reuse import ReuseScorer, reuse_curve
from tempo.secrecy.mixing import mixing_bases
from tempo.secrecy.monomial import monomial_bases
from tempo.secrecy.scheme import Scheme

N, K = 64, 64


class RowsOnlyPermuted(Scheme):
    """Mixing turned down: features are mixed, rows are not."""

    name, blurs_rows = "rows only permuted", False

    def features(self, stream, lengths):
        return mixing_bases(stream, lengths, spread=2**0.5, rounds=2, block=64)

    def _stretches(self, stream, lengths):
        return monomial_bases(stream, lengths, spread=2**0.5)


def many_uses(folder, scheme, uses=8, rows=256):
    """Sparse features, as after ReLU; batches that differ in which features are strong."""
    torch.manual_seed(11)
    wire = Wire(folder, scheme)
    sizes = [torch.rand(K) + 0.2 for _ in range(uses)]
    wire.layer(torch.randn(N, K), [((torch.randn(rows, K) - 1).relu() * s, None) for s in sizes])
    guess = KeyReuse().run(wire.transcript, Nothing())
    return {(p.way, p.uses): p for p in reuse_curve(guess, wire.truth)}


def test_a_key_wears_out_where_rows_are_only_permuted(tmp_path):
    curve = many_uses(tmp_path, RowsOnlyPermuted(chunk=8192, smallest=1))
    first, last = curve["components", 1], curve["components", 8]
    assert first.rank == last.rank == K
    assert last.score > 0.6 > 2 * last.chance
    assert curve["moments", 4].score > 2 * curve["moments", 4].chance


def test_mixed_rows_hide_a_basis_that_is_used_once(tmp_path):
    curve = many_uses(tmp_path, "mixing", uses=1, rows=2048)
    assert curve["components", 1].score < curve["components", 1].chance + 0.05


def test_moments_of_batches_that_differ_open_it_all_the_same(tmp_path):
    """A finding, kept as a test: mixed rows do not protect a basis of features that is used often."""
    curve = many_uses(tmp_path, "mixing", uses=16)
    assert curve["moments", 16].low > 2 * curve["moments", 16].chance
    assert curve["moments", 16].low > curve["moments", 2].high


def repeats(folder, scheme, rows, **options):
    """Eight batches, each twice, once with another first row; under one key and under fresh ones."""
    torch.manual_seed(12)
    wire = Wire(folder, scheme, **options)
    w, k = torch.randn(80, 96), 96
    batches = [torch.randn(rows, k) @ torch.randn(k, k) / k**0.5 for _ in range(8)]
    again = [torch.cat([torch.randn(1, k), x[1:]]) for x in batches]
    everything = [(x, None) for x in batches + again]
    wire.layer(w, everything)
    for i, one in enumerate(everything):
        wire.layer(w * (1 + 0.01 * i) + 0.01 * torch.randn(80, k), [one])
    with mock.patch.object(reuse, "USES", (1,)):  # the curve is another test's
        guess = KeyReuse().run(wire.transcript, Nothing())
    found = ReuseScorer().score(guess, wire.truth)
    return {name: (sum(t.values) / len(t.values), t.chance) for name, t in found.items()}


@pytest.mark.parametrize("scheme", ["unsafe_none", "monomial", "mixing"])
def test_under_one_key_a_repeat_is_recognised(tmp_path, scheme):
    found = repeats(tmp_path, scheme, rows=64)
    assert found["repeats, same key"][0] == 1
    score, chance = found["changed row, same key"]
    assert score > 0.5 > 3 * chance


def test_fresh_keys_hide_repeats_and_steps(tmp_path):
    found = repeats(tmp_path, "mixing", rows=128)
    assert found["repeats, fresh keys"][0] < 0.4
    assert abs(found["steps of W, fresh keys"][0] - found["steps of W, fresh keys"][1]) < 0.3
    assert "changed row, same key" not in found


def test_scales_of_one_show_repeats_and_steps_under_fresh_keys(tmp_path):
    found = repeats(tmp_path, "mixing", rows=128, spread=1.0000001)
    assert found["repeats, fresh keys"][0] > 0.6  # chance: one in sixteen
    assert found["steps of W, fresh keys"][0] > 0.9


def test_without_products_it_says_so():
    with pytest.raises(NothingToAttack, match="forward product"):
        KeyReuse().run(Transcript(()), Nothing())
