"""Attack 22: sizes alone give rows and steps away, under the default scheme and under `shares` as well."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tempo.attacks import NothingToAttack, Transcript
from tempo.attacks.knowledge import LayerFacts, Nothing
from tempo.attacks.record import recorded, transcript_of, truth_of
from tempo.attacks.score.traffic import TrafficScorer
from tempo.attacks.traffic import Traffic, explained, tell
from tempo.attacks.transcript import Frame

LAYERS = (LayerFacts("0", "linear", 1, 80, 96), LayerFacts("2", "linear", 1, 96, 72))


def trained(folder, sizes, **options):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(80, 96), nn.ReLU(), nn.Linear(96, 72), nn.ReLU(), nn.Linear(72, 10))
    optimizer = torch.optim.Adam(model.parameters())
    with recorded(folder, **options) as session:
        session.protect(model)
        for size in sizes:
            loss = F.cross_entropy(model(torch.randn(size, 80)), torch.randint(0, 10, (size,)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return transcript_of(folder), truth_of(folder)


SIZES = [200, 130, 164, 90, 111]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shares")
    return folder, trained(folder, SIZES, scheme="shares")


@pytest.fixture(scope="module", params=["mixing", "shares"])
def run(request, tmp_path_factory, shared):
    return shared[1] if request.param == "shares" else trained(tmp_path_factory.mktemp("run"), SIZES)


def test_rows_and_steps_are_read_from_sizes(run):
    transcript, truth = run
    found = TrafficScorer().score(Traffic().run(transcript, Nothing(architecture=LAYERS)), truth)
    for trials in found.values():
        assert trials.values == [1.0] * 10
        assert trials.chance < 0.3


def test_contents_are_not_read(run):
    """The frames alone give the same numbers."""
    transcript, _ = run
    products = explained(transcript.frames, LAYERS)
    assert [p.rows for p in products] == [200, 200, 130, 130, 164, 164, 90, 90, 111, 111]
    assert [p.step for p in products] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("owner", ["worker-0", "owner-1", "owner-2"])
def test_every_owner_of_a_share_reads_them(shared, owner):
    """One gets seeds alone, the others a seed and residues of each operand."""
    products = explained(Transcript.read(shared[0] / owner).frames, LAYERS)
    assert [p.rows for p in products] == [size for size in SIZES for _ in LAYERS]
    assert [p.step for p in products] == [step for step in range(len(SIZES)) for _ in LAYERS]


def test_batches_of_one_size_say_nothing_about_lengths(tmp_path):
    """The remedy: shapes that never change. Steps stay visible."""
    transcript, truth = trained(tmp_path, [128, 128, 128])
    found = TrafficScorer().score(Traffic().run(transcript, Nothing(architecture=LAYERS)), truth)
    rows = found["rows of a product"]
    assert sum(rows.values) / len(rows.values) == rows.chance == 1.0


def frames(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(0, len(sizes), (60,), generator=generator).tolist()
    return [Frame("w", "arrived", float(i), 4 * sizes[p] * 80 + 120, "compute") for i, p in enumerate(picks)]


def test_data_sets_with_other_lengths_are_told_apart_and_padded_ones_are_not():
    short, long = range(64, 160), range(120, 400)
    examples = [frames(short, 1), frames(long, 2)]
    runs = [(tell(frames((short, long)[i % 2], 10 + i), examples), i % 2) for i in range(40)]
    assert all(told == kind for told, kind in runs)
    padded = [frames([256], 1), frames([256], 2)]
    assert {tell(frames([256], 10 + i), padded) for i in range(10)} == {0}


def test_without_architecture_it_says_so():
    with pytest.raises(NothingToAttack, match="architecture"):
        Traffic().run(Transcript(()), Nothing())
