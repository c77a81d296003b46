"""What one worker of `shares` sees is uniform, whatever the operands are: a chi-square test over many steps
with the same plaintext, of every share by itself, of both shares of an operand together, of shares of
different operands together, and of all of a worker's shares of one step against each other.

The same test finds the plaintext at once where it is to be found: in what two workers see.
"""

import itertools
from functools import cache

import pytest
import torch
from sharing_bench import Bench, Seen

from tempo.lowering import Linear
from tempo.nn.autograd import Call, offloaded
from tempo.ops import PRIMES, Op

pytestmark = pytest.mark.security

R, K, N = 12, 10, 8
STEPS = 120
#: Deviations of chi-square from its mean, in its own: exceeded once in 1e9 for a normal variable.
FAR = 6.0


def plaintexts(kind):
    torch.manual_seed(5)
    if kind == "constant":
        return torch.full((R, K), 0.5), torch.full((N, K), -0.25), torch.ones(R, N)
    if kind == "zeros":
        return torch.zeros(R, K), torch.full((N, K), 1.0), torch.zeros(R, N)
    return torch.randn(R, K), torch.randn(N, K), torch.randn(R, N)


@cache
def views(kind):
    """For each worker, by operand, its shares of all steps: (steps, halves, P, entries)."""
    x, w, dy = plaintexts(kind)
    workers = [Seen(f"w{i}") for i in range(3)]
    with Bench(*[[worker] for worker in workers]) as made:
        for _ in range(STEPS):
            a, b = x.clone().requires_grad_(), torch.nn.Parameter(w.clone())
            y, _ = offloaded(Call(made.engine, Linear((R, K), (N, K)), lambda *_: None), a, b)
            y.backward(dy)
        assert made.stats.count("checks_failed") == 0
    out = []
    for worker in workers:
        operands = {"X": [], "W": [], "dY": []}
        for job, (left, right) in worker.views:
            if job.op is Op.PRODUCT:
                operands["X"].append(left.flatten(2))
                operands["W"].append(right.flatten(2))
            elif job.op is Op.GRAD_X:
                operands["dY"].append(left.flatten(2))
        out.append({name: torch.stack(shares) for name, shares in operands.items()})
    assert all(shares.shape[:3] == (STEPS, 2, len(PRIMES)) for view in out for shares in view.values())
    return out


def distance(observed, expected):
    """Chi-square against its mean, in deviations."""
    free = observed.numel() - 1
    return float((((observed - expected) ** 2 / expected).sum() - free) / (2 * free) ** 0.5)


def single(values, p):
    """Of residues by themselves."""
    counts = torch.bincount(values.flatten().long(), minlength=p).double()
    assert counts.numel() == p
    return distance(counts, counts.sum() / p)


def pairs(a, b, p, cells=12):
    """Of two residues together, on a grid of cells; cells differ in size as residues do not divide evenly."""
    edge = torch.arange(p) * cells // p
    size = torch.bincount(edge, minlength=cells).double()
    joint = edge[a.flatten().long()] * cells + edge[b.flatten().long()]
    counts = torch.bincount(joint, minlength=cells**2).double()
    return distance(counts, counts.sum() * torch.outer(size, size).flatten() / p**2)


@pytest.mark.parametrize("kind", ["random", "constant", "zeros"])
def test_one_workers_view_is_uniform(kind):
    for view in views(kind):
        for i, p in enumerate(PRIMES):
            shares = {(name, h): v[:, h, i] for name, v in view.items() for h in (0, 1)}
            for values in shares.values():
                assert abs(single(values, p)) < FAR
            least = min(values.shape[1] for values in shares.values())
            for a, b in itertools.combinations(shares.values(), 2):
                assert abs(pairs(a[:, :least], b[:, :least], p)) < FAR
            # Entry against its neighbour, and one step against the next: nothing repeats.
            for values in shares.values():
                assert abs(pairs(values[:, 1:], values[:, :-1], p)) < FAR
                assert abs(pairs(values[1:], values[:-1], p)) < FAR


def test_any_entry_by_itself_is_uniform_over_steps():
    """The place of an entry says nothing: each entry of each share, on eight cells, over all steps."""
    for view in views("constant"):
        worst = 0.0
        for v in view.values():
            for i, p in enumerate(PRIMES):
                edge = torch.arange(p) * 8 // p
                size = torch.bincount(edge, minlength=8).double() / p
                for entry in range(0, v.shape[-1], 7):
                    for h in (0, 1):
                        counts = torch.bincount(edge[v[:, h, i, entry].long()], minlength=8).double()
                        worst = max(worst, distance(counts, counts.sum() * size))
        # Some 1,000 tests on few counts, whose chi-square has a longer tail than a normal variable.
        assert worst < 9.0


def test_the_test_would_find_the_plaintext():
    """Two workers together have all three shares; so the scheme's assumption is that they do not pool them.
    The same chi-square is hundreds of deviations away there."""
    first, second, _ = views("random")
    for i, p in enumerate(PRIMES):
        total = (first["X"][:, 0, i].long() + first["X"][:, 1, i].long() + second["X"][:, 1, i].long()) % p
        assert single(total, p) > 20 * FAR
        assert torch.equal(total, total[:1].expand_as(total)), "the same plaintext in every step"


def test_a_seed_that_were_used_twice_would_be_found():
    """Differences of two operands under one seed are those of the plaintexts: constant here, not uniform."""
    v = views("constant")[1]["X"]  # the worker that gets the data share
    for i, p in enumerate(PRIMES):
        assert abs(single((v[1:, 1, i].long() - v[:-1, 1, i].long()) % p, p)) < FAR
        reused = (v[:1, 1, i].long() - v[:1, 1, i].long()) % p
        assert single(reused.expand(STEPS, -1), p) > 20 * FAR


def test_views_of_different_plaintexts_look_alike():
    """Two-sample chi-square between steps on random numbers and steps on zeros."""
    for a, b in zip(views("random"), views("zeros"), strict=True):
        for name in a:
            for i, p in enumerate(PRIMES):
                x, y = (
                    torch.bincount(v[name][:, :, i].flatten().long(), minlength=p).double() for v in (a, b)
                )
                both = (x + y).clamp(min=1)
                free = p - 1
                assert abs(float(((x - y) ** 2 / both).sum()) - free) / (2 * free) ** 0.5 < FAR
