"""Maps of a convolution look like images where rows keep their order, and like noise where they are mixed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bench_lab import Lab, RowsPermuted, digits, scheme

from tempo.attacks import NothingToAttack, Transcript
from tempo.attacks.score.spatial import SpatialScorer
from tempo.attacks.seriation import ordered, symmetries
from tempo.attacks.spatial import Batch, Spatial, edges, natural
from tempo.secrecy.basis import identity

IMAGES, SIDE = 16, 14


class RowsInOrder(RowsPermuted):
    """A knob turned down: features mixed, rows as they are."""

    name = "rows in order"

    def _stretches(self, stream, lengths):
        return [identity(length) for length in lengths]


def scores(folder, chosen):
    torch.manual_seed(10)
    images = F.interpolate(digits()[0][:IMAGES].reshape(-1, 1, 8, 8), size=SIDE, mode="bilinear")
    x = torch.relu(F.conv2d(images, torch.randn(64, 1, 3, 3), padding=1))
    lab = Lab(chosen, folder)
    lab.forward(lab.weight(torch.randn(1, 64, 64)), x.permute(0, 2, 3, 1).reshape(1, -1, 64).contiguous())
    guess = Spatial().run(lab.transcript, Batch(images=IMAGES))
    found = SpatialScorer().score(guess, lab.truth)["maps of convolutions"]
    return float(np.mean(found.values)), found.chance, SpatialScorer().pictures(guess, lab.truth)


def test_undefended_maps_are_the_images(tmp_path):
    score, chance, pictures = scores(tmp_path, scheme("unsafe_none"))
    assert score > 0.999
    assert chance < 0.7
    name, recovered, true = pictures[0]
    assert name == "raw"
    assert recovered.shape == true.shape == (SIDE, SIDE)


def test_the_same_images_sent_twice_are_no_yardstick(tmp_path):
    """An epoch later, by moved weights, or sealed again for a gradient: chance would be the score."""
    torch.manual_seed(10)
    images = F.interpolate(digits()[0][:IMAGES].reshape(-1, 1, 8, 8), size=SIDE, mode="bilinear")
    kernel, lab = torch.randn(64, 1, 3, 3), Lab(scheme("unsafe_none"), tmp_path)
    weight = lab.weight(torch.randn(1, 64, 64))
    for moved in (0.0, 0.1):
        x = torch.relu(F.conv2d(images, kernel + moved * torch.randn(64, 1, 3, 3), padding=1))
        lab.forward(weight, x.permute(0, 2, 3, 1).reshape(1, -1, 64).contiguous())
    guess = Spatial().run(lab.transcript, Batch(images=IMAGES))
    found = SpatialScorer().score(guess, lab.truth)["maps of convolutions"]
    assert np.mean(found.values) > 0.999
    assert found.chance < 0.7


def test_mixed_features_do_not_hide_images_if_rows_keep_their_order(tmp_path):
    score, chance, _ = scores(tmp_path, RowsInOrder(block=64))
    assert score > chance + 0.15


def textures():
    """Images (M, I, J, C) whose places all differ and whose neighbours are alike."""
    torch.manual_seed(11)
    noise = F.interpolate(torch.randn(2 * IMAGES, 64, 4, 4), size=SIDE, mode="bicubic", align_corners=True)
    # Positive, as activations are, some channels stronger than others.
    return F.softplus(noise).permute(0, 2, 3, 1) * torch.logspace(0, -1, 64)


class RowsAlone(RowsPermuted):
    """A knob turned down: features as they are, rows permuted."""

    name = "rows alone"

    def features(self, stream, lengths):
        return [identity(length) for length in lengths]


@pytest.mark.parametrize("chosen", [RowsAlone(), scheme("monomial")])
def test_permuted_rows_are_put_in_order_where_neighbours_are_alike(tmp_path, chosen):
    """A planted leak: what keys permuted, the likeness of neighbours undoes."""
    x, lab = textures(), Lab(chosen, tmp_path)
    weight = lab.weight(torch.randn(1, 64, 64))
    for batch in x.split(IMAGES):
        lab.forward(weight, batch.reshape(1, -1, 64).contiguous())
    guess = Spatial().run(lab.transcript, Batch(images=IMAGES))
    found = SpatialScorer().score(guess, lab.truth)["maps of convolutions"]
    assert np.mean(found.values) > 0.9
    assert found.chance < 0.7


def test_the_grid_of_one_image_is_found():
    torch.manual_seed(11)
    noise = F.interpolate(torch.randn(1, 64, 3, 3), size=SIDE, mode="bicubic", align_corners=True)
    texture = noise[0].flatten(1).T.double().numpy()
    shuffled = np.random.default_rng(3).permutation(len(texture))
    np.random.seed(0)  # as a user's script does: SciPy warns then, where it is not given a generator
    _, places = ordered(texture[shuffled], 1, SIDE)
    whole = shuffled[places[0]].reshape(SIDE, SIDE)
    true = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    assert max(float((each == true).mean()) for each in symmetries(whole)) > 0.95


def test_mixed_rows_do(tmp_path):
    score, chance, _ = scores(tmp_path, scheme("mixing"))
    assert abs(score - chance) < 0.05


def test_ways_to_sharpen_keep_what_they_should():
    rng = np.random.default_rng(0)
    image = np.zeros((1, 16, 16))
    image[0, 4:10, 5:12] = 1.0
    assert np.corrcoef(edges(image).ravel(), image.ravel())[0, 1] > 0.7
    blurred = np.fft.ifft2(np.fft.fft2(image) * (1 + rng.random((16, 16)))).real
    assert np.corrcoef(natural(blurred).ravel(), natural(image).ravel())[0, 1] > 0.5


def test_nothing_to_attack():
    with pytest.raises(NothingToAttack, match="square maps"):
        Spatial().run(Transcript(()), Batch(images=4))
