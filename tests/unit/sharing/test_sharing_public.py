"""Weights declared public: in the clear to two owners at a time, and secret again once changed."""

import pytest
import torch
from sharing_bench import Seen
from torch import nn

from tempo import Session
from tempo.errors import UsageError


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(70, 80), nn.Tanh(), nn.Linear(80, 66), nn.Tanh(), nn.Linear(66, 10))


def frozen():
    return net().requires_grad_(False)


@pytest.mark.security
def test_two_owners_suffice_for_public_weights_and_secret_ones_stay():
    workers = {owner: [Seen(owner)] for owner in ("a", "b")}
    plain, x = frozen(), torch.randn(96, 70)
    with Session(workers=workers, scheme="shares") as session:
        model = session.protect(frozen(), public=["0"])
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, true = model(ours), plain(theirs)
        y.sum().backward()
        true.sum().backward()
        report = session.report()
    assert float((y - true).detach().norm() / true.detach().norm()) < 1e-4
    assert float((ours.grad - theirs.grad).norm() / theirs.grad.norm()) < 1e-4
    where = {row.module: row.reason for row in report.rows}
    assert where["0"] == ""
    assert "takes workers of three owners" in where["2"]
    for own in workers.values():
        for job, (left, right) in own[0].views:
            assert len(left) == len(right) == 1
            assert right.shape[2:] == (1, 80, 70)
    # W is the same for both, X is not.
    a, b = (own[0].views[0][1] for own in workers.values())
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[0], b[0])


@pytest.mark.security
def test_with_three_owners_public_weights_go_to_two_at_a_time_in_the_clear():
    workers = {owner: [Seen(owner)] for owner in ("a", "b", "c")}
    with Session(workers=workers, scheme="shares") as session:
        model = session.protect(frozen(), public=["0"])
        model(torch.randn(96, 70))
        halves = {(job.right.shape, len(left)) for own in workers.values() for job, (left, _) in own[0].views}
    assert halves == {((1, 80, 70), 1), ((1, 66, 80), 2)}


@pytest.mark.security
def test_owners_take_turns_at_public_weights_and_views_of_one_stay_public():
    """Each request goes to two others, and each of three slices of one parameter is public by itself."""
    workers = {owner: [Seen(owner)] for owner in ("a", "b", "c")}
    with Session(workers=workers, scheme="shares") as session:
        attention = nn.MultiheadAttention(66, 2, batch_first=True, bias=False).requires_grad_(False)
        session.protect(attention, public=["*"], unsafe_offload=["out_proj"])
        x, memory = torch.randn(4, 20, 66), torch.randn(4, 24, 66)
        for _ in range(3):
            attention(x, memory, memory * 2)  # queries, keys and values of their own
    seen = {owner: [left for _, (left, _) in own[0].views] for owner, own in workers.items()}
    assert all(len(left) == 1 for views in seen.values() for left in views)
    assert min(map(len, seen.values())) > 4


@pytest.mark.security
@pytest.mark.parametrize("how", ["trained", "unfrozen", "written", "replaced"])
def test_what_changed_since_it_was_declared_is_secret(how):
    workers = {owner: [Seen(owner)] for owner in ("a", "b", "c")}
    base = frozen()
    if how == "trained":
        base[0].requires_grad_(True)
    with Session(workers=workers, scheme="shares") as session:
        model = session.protect(base, public=["*"])
        with torch.no_grad():
            match how:
                case "unfrozen":
                    model[0].weight.requires_grad_(True)
                case "written":
                    model[0].weight.mul_(2.0)
                case "replaced":
                    model[0].weight = nn.Parameter(torch.randn(80, 70), requires_grad=False)
            model(torch.randn(96, 70))
        first = {
            len(left)
            for own in workers.values()
            for job, (left, _) in own[0].views
            if job.right.shape[1] == 80
        }
        rest = {
            len(left)
            for own in workers.values()
            for job, (left, _) in own[0].views
            if job.right.shape[1] == 66
        }
    assert (first, rest) == ({2}, {1})


def test_public_names_a_module_that_is_there():
    with Session(workers="cpu") as session, pytest.raises(UsageError, match="public: no module is named"):
        session.protect(net(), public=["base"])


@pytest.mark.security
@pytest.mark.parametrize("owners", ["ab", "abc"])
def test_a_public_weight_that_was_changed_behind_pytorchs_back_is_secret(owners):
    workers = {owner: [Seen(owner)] for owner in owners}
    with Session(workers=workers, scheme="shares") as session:
        model, x = session.protect(frozen(), public=["*"]), torch.randn(96, 70)
        model(x)
        for own in workers.values():
            own[0].views.clear()
        model[0].weight.data.mul_(1.5)
        y = model(x)
        later = [view for own in workers.values() for view in own[0].views]
        session.unprotect(model)
        true = model(x)
    assert float((y - true).norm() / true.norm()) < 1e-4
    assert {len(left) for job, (left, _) in later if job.right.shape[1] == 80} <= {2}
    if len(owners) == 2:
        reasons = {row.reason for row in session.report().rows if row.module == "0"}
        assert "a secret weight takes workers of three owners, here are two" in reasons
