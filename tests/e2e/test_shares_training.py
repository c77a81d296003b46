"""Training on shares, on worker processes: the demo's model and an MLP, against plain training."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tempo import Session
from tempo.demo.model import resnet
from tempo.numerics import fixed_loss_tolerance

STEPS, BATCH, SIDE = 4, 16, 28


def setup():
    """The demo's model and noisy patterns of ten classes."""
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (STEPS, BATCH), generator=g)
    patterns = torch.randn(10, 1, SIDE, SIDE, generator=g)
    images = patterns[labels] + torch.randn(STEPS, BATCH, 1, SIDE, SIDE, generator=g)
    return resnet(1, 10), images, labels


def train(model, images, labels, *, autocast=False):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for x, y in zip(images, labels, strict=True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(model(x).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_the_demos_model_trains_as_plainly():
    plain = train(*setup())
    rounded = train(*setup(), autocast=True)
    model, images, labels = setup()
    with Session("local:3", scheme="shares", unsafe_one_owner=True) as session:
        losses = train(session.protect(model), images, labels)
        report = session.report()
    allowed = fixed_loss_tolerance(plain, rounded, inner=BATCH * 7 * 7)
    gaps = [abs(a - b) for a, b in zip(losses, plain, strict=True)]
    print(
        f"greatest gap {max(gaps):.1e}, allowed {max(allowed):.1e}, autocast's own "
        f"{max(abs(a - b) for a, b in zip(plain, rounded, strict=True)):.1e}"
    )
    assert all(gap <= bound for gap, bound in zip(gaps, allowed, strict=True))
    # A bound that a wrong result would fail: one step missed differs by far more.
    assert max(abs(a - b) for a, b in zip(plain[1:], plain, strict=False)) > 10 * max(allowed)
    offloaded = [row for row in report.rows if row.offloaded]
    assert [row.operation for row in offloaded] == [
        "winograd F(2,3)",
        "winograd F(2,3)",
        "winograd F(2,3)",
        "conv 1x1",
    ]
    assert report.encodings == 3 * 4 * STEPS
    assert (report.checks_failed, report.retries, report.local_fallbacks) == (0, 0, 0)


@pytest.mark.parametrize("owners", [2, 3])
def test_inference_with_a_public_base(owners):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(96, 128), nn.SiLU(), nn.Linear(128, 64), nn.SiLU(), nn.Linear(64, 10))
    base.requires_grad_(False)
    x = torch.randn(256, 96)
    true = base(x)
    workers = {f"owner-{i}": "local:1" for i in range(owners)}
    with Session(workers=workers, scheme="shares", unsafe_one_owner=True) as session:
        y = session.protect(base, public=["*"], unsafe_offload=["4"], place={"4": "never"})(x)
        report = session.report()
    assert float((y - true).norm() / true.norm()) < 1e-5
    assert report.checks == 2
