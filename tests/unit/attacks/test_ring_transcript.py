"""Of shares a transcript holds what one worker adds up: integers that say nothing. Three have the truth."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tempo.attacks.record import recorded, transcript_of, truth_of
from tempo.attacks.ring import held, integers
from tempo.attacks.transcript import Transcript
from tempo.ops import PRIMES, Op, product
from tempo.secrecy.chinese import residues_of

M = 251 * 241 * 239 * 233 * 229


def test_integers_are_those_that_residues_stand_for():
    torch.manual_seed(0)
    values = torch.randint(-(2**23), 2**23, (7, 5)).float()
    assert torch.equal(integers(residues_of(values)), values.double())
    ends = [0, 1, -1, (M - 1) // 2, -((M - 1) // 2)]
    residues = torch.tensor([[v % p for v in ends] for p in PRIMES], dtype=torch.uint8)
    assert integers(residues).tolist() == ends


def test_halves_add_up():
    values = torch.tensor([[3.0, -70_000.0]])
    first, second = residues_of(values), residues_of(values + 11)
    assert held(torch.stack([first, second])).tolist() == [[17.0, -139_989.0]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shares")
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(80, 96), nn.ReLU(), nn.Linear(96, 72), nn.ReLU(), nn.Linear(72, 10))
    x, labels = torch.randn(200, 80), torch.randint(0, 10, (200,))
    with recorded(folder, scheme="shares") as session:
        session.protect(model)
        F.cross_entropy(model(x), labels).backward()
        assert any("unsafe_truth" in note for note in session.report().notes)
    return folder, x, model


@pytest.mark.security
def test_one_worker_sees_integers_that_fill_the_range_evenly(run):
    transcript, truth = transcript_of(run[0]), truth_of(run[0])
    assert {seen.worker for seen in transcript.seen} == {"worker-0"}
    assert len(transcript.layers()) == 2
    for seen in transcript.passes():
        for id_, t in ((seen.x_id, seen.x), (seen.w_id, seen.w), (seen.dy_id, seen.dy)):
            about = truth.of(id_)
            assert about.weight != ""
            assert t.numel() == about.plain.numel()
            unit = t.flatten() / M + 0.5
            counts = torch.histc(unit, 16, 0, 1)
            assert ((counts - len(unit) / 16).square() / (len(unit) / 16)).sum() < 60  # 16 cells
            both = torch.stack([unit, about.plain.flatten().double()])
            assert abs(float(torch.corrcoef(both)[0, 1])) < 6 / len(unit) ** 0.5


def test_what_is_plain_is_the_batch(run):
    folder, x, model = run
    first, second = transcript_of(folder).passes()
    truth = truth_of(folder)
    assert torch.equal(truth.of(first.x_id).plain, x)
    assert torch.equal(truth.of(second.w_id).plain[0], model[2].weight)


def test_three_owners_together_have_it_all(run):
    folder, x, _ = run
    each = [Transcript.read(folder / name) for name in ("worker-0", "owner-1", "owner-2")]
    products = [[s for s in t.seen if s.op is Op.PRODUCT][0] for t in each]
    total = sum(s.result for s in products) % M
    whole = torch.where(total > M // 2, total - M, total)
    y = product(x, run[2][0].weight.detach()[None], (200,)).double()
    # Fixed point: equal up to a power of two.
    scale = whole.norm() / y.norm()
    assert torch.allclose(whole / scale, y, atol=1e-4 * float(y.abs().max()))
    assert abs(float(scale.log2()) - round(float(scale.log2()))) < 1e-3
