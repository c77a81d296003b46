"""A transcript holds what workers saw, and the truth explains it: same ids, same order, same numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tempo.attacks import Transcript
from tempo.attacks.record import recorded, transcript_of, truth_of
from tempo.attacks.truth import matrix
from tempo.errors import DataError
from tempo.ops import Op


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(80, 96), nn.ReLU(), nn.Linear(96, 72), nn.ReLU(), nn.Linear(72, 10))
    x, labels = torch.randn(200, 80), torch.randint(0, 10, (200,))
    with recorded(folder, workers=2) as session:
        session.protect(model)
        F.cross_entropy(model(x), labels).backward()
        assert any("unsafe_truth" in note for note in session.report().notes)
    return folder, x, model


def test_the_truth_explains_what_workers_saw(run):
    folder, _, _ = run
    transcript, truth = transcript_of(folder), truth_of(folder)
    assert len(transcript.layers()) == 2
    for seen in transcript.passes():
        x, w, dy = truth.of(seen.x_id), truth.of(seen.w_id), truth.of(seen.dy_id)
        assert (x.kind, w.kind, dy.kind) == ("x", "w", "dy")
        assert x.weight == w.weight == dy.weight != ""
        for plain, sealed in ((w, seen.w[0]), (dy, seen.dy)):
            again = matrix(plain.left[0]) @ plain.groups[0].double() @ matrix(plain.right[0]).T
            assert torch.allclose(again, sealed.double(), rtol=1e-4, atol=1e-5 * float(again.abs().max()))
        # X is sealed less its centre, which has rank one.
        plain = matrix(x.left[0]).inverse() @ seen.x.double() @ matrix(x.right[0]).T.inverse()
        assert torch.linalg.matrix_rank(x.groups[0].double() - plain, rtol=1e-3) == 1


def test_results_are_those_of_the_jobs(run):
    for seen in transcript_of(run[0]).seen:
        if seen.op is Op.PRODUCT:
            assert torch.allclose(seen.result, seen.left @ seen.right[0].mT, atol=1e-3)


def test_the_rows_of_all_workers_are_the_batch(run):
    folder, x, _ = run
    transcript, truth = transcript_of(folder), truth_of(folder)
    rows = torch.cat([truth.of(p.x_id).plain for p in transcript.layers()[0]])
    assert torch.equal(rows.sort(0).values, x.sort(0).values)


def test_one_worker_alone_saw_its_share(run):
    folder, _, _ = run
    alone = Transcript.read(folder / "worker-0")
    assert 0 < len(alone.seen) < len(transcript_of(folder).seen)
    assert {frame.worker for frame in alone.frames} == {"worker-0"}


def test_no_recording_is_an_error_with_words(tmp_path):
    with pytest.raises(DataError, match="--record"):
        Transcript.read(tmp_path)


def test_no_truth_is_an_error_with_words(tmp_path):
    with pytest.raises(DataError, match="unsafe_truth"):
        truth_of(tmp_path)
