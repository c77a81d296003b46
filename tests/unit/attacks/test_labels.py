"""Attack 3 reads labels from a classifier's gradient under a monomial mask; mixed rows keep them."""

import pytest
import torch
from sealing import Wire

from tempo.attacks import NothingToAttack
from tempo.attacks.knowledge import Nothing
from tempo.attacks.labels import LabelRecovery
from tempo.attacks.score.labels import LabelsScorer
from tempo.secrecy.mixing import mixing_bases
from tempo.secrecy.monomial import monomial_bases
from tempo.secrecy.scheme import Scheme

ROWS, CLASSES, K = 256, 10, 64


class RowsOnlyPermuted(Scheme):
    """Mixing turned down: classes are mixed, rows are not."""

    name, blurs_rows = "rows only permuted", False

    def features(self, stream, lengths):
        return mixing_bases(stream, lengths, spread=2**0.5, rounds=2, block=64)

    def _stretches(self, stream, lengths):
        return monomial_bases(stream, lengths, spread=2**0.5)


def scores(folder, scheme, sure=1.0, **options):
    torch.manual_seed(4)
    wire = Wire(folder, scheme, **options)
    for _ in range(2):
        labels = torch.randint(CLASSES, (ROWS,))
        onehot = torch.nn.functional.one_hot(labels, CLASSES)
        dy = ((sure * (torch.randn(ROWS, CLASSES) + onehot)).softmax(1) - onehot) / ROWS
        wire.layer(torch.randn(CLASSES, K), [(torch.randn(ROWS, K), dy)])
    guess = LabelRecovery().run(wire.transcript, Nothing())
    found = LabelsScorer().score(guess, wire.truth)
    return {name: (sum(t.values) / len(t.values), t.chance) for name, t in found.items()}


@pytest.mark.parametrize("scheme", ["unsafe_none", "monomial"])
def test_signs_give_labels(tmp_path, scheme):
    assert scores(tmp_path, scheme)["labels by signs"][0] == 1


def test_directions_give_labels_where_rows_are_only_permuted(tmp_path):
    found = scores(tmp_path, RowsOnlyPermuted(chunk=8192, smallest=1), sure=0.3)
    assert found["labels by clusters"][0] > 0.95


def test_mixed_rows_keep_labels(tmp_path):
    for score, chance in scores(tmp_path, "mixing", sure=0.3).values():
        assert 0.1 < chance < 0.2
        assert abs(score - chance) < 0.06


def test_without_a_classifier_it_says_so(tmp_path):
    wire = Wire(tmp_path)
    wire.layer(torch.randn(64, 64), [(torch.randn(64, 64), None)])
    with pytest.raises(NothingToAttack, match="unsafe_offload"):
        LabelRecovery().run(wire.transcript, Nothing())
