"""A training step on shares with real processes: three owners, a fleet each, kept operands, exact results."""

import os

import pytest
import torch

from tempo.fleet import Done, Fleet, FleetSettings, ProcessWorker, Task
from tempo.ops import KEY_BYTES, PRIMES, Op, RingJob, RingOperand, Seed, expand, grad_w, grad_x, product

ROWS = (20, 0, 44)
OPS = {Op.PRODUCT: ("x", "w"), Op.GRAD_X: ("dy", "w"), Op.GRAD_W: ("dy", "x")}


@pytest.fixture(scope="module")
def owners():
    """One fleet for each owner: a share never goes to another's worker, not even when its own is late."""
    fleets = [Fleet([ProcessWorker(f"owner-{i}")], FleetSettings(hedge_least_s=60)) for i in range(3)]
    yield fleets
    for fleet in fleets:
        fleet.close()


def shares(integers, count):
    """Halves that add up to the integers modulo each prime; all but the last are seeds."""
    seeds = [Seed(os.urandom(KEY_BYTES)) for _ in range(count - 1)]
    rest = torch.stack([integers.remainder(p) for p in PRIMES])
    for seed in seeds:
        rest = rest - expand(seed.key, integers.shape)
    last = torch.stack([row.remainder(p) for row, p in zip(rest, PRIMES, strict=True)])
    return [*seeds, last.to(torch.uint8)]


def joined(replies):
    """The integers, by the Chinese remainder theorem: Garner's digits."""
    residues = sum(reply.long() for reply in replies)
    value, modulus = torch.zeros_like(residues[0]), 1
    for row, p in zip(residues, PRIMES, strict=True):
        value = value + modulus * ((row - value) * pow(modulus, -1, p)).remainder(p)
        modulus *= p
    return torch.where(value > modulus // 2, value - modulus, value)


def integers():
    g = torch.Generator().manual_seed(5)
    x = torch.randint(-5000, 5001, (64, 80), generator=g)
    w = torch.randint(-5000, 5001, (3, 48, 80), generator=g)
    dy = torch.randint(-5000, 5001, (64, 48), generator=g)
    return {"x": x, "w": w, "dy": dy}


def truth(op, values):
    times = {Op.PRODUCT: product, Op.GRAD_X: grad_x, Op.GRAD_W: grad_w}[op]
    left, right = (values[name].double() for name in OPS[op])
    return times(left, right, ROWS).long()  # exact below 2^53


def ask(fleet, job):
    (outcome,) = fleet.run([Task(job, 0)], lambda job, reply: reply.open_for_check())
    assert isinstance(outcome, Done)
    return outcome.value


def test_a_step_of_three_workers_is_exact(owners):
    values = integers()
    split = {name: shares(value, 3) for name, value in values.items()}
    numbers = {name: number for number, name in enumerate(values, 1)}
    sent = set()
    for op, names in OPS.items():
        replies = []
        for i, fleet in enumerate(owners):
            pair = []
            for name in names:
                halves = (split[name][i], split[name][(i + 1) % 3]) if (i, name) not in sent else ()
                pair.append(RingOperand(numbers[name], tuple(values[name].shape), halves, True))
                sent.add((i, name))
            replies.append(ask(fleet, RingJob(op, *pair, ROWS)))
        assert torch.equal(joined(replies), truth(op, values))
    # The two expanded shares went as 32 bytes each: residues went to two workers of three.
    largest = max(sum(v.numel() for v in values.values()) * len(PRIMES), 1)
    sizes = sorted(fleet.stats.bytes_sent for fleet in owners)
    assert sizes[0] < 5000
    assert all(largest < size < largest + 5000 for size in sizes[1:])


def test_public_weights_need_two_workers_and_one_half(owners):
    values = integers()
    halves = shares(values["x"], 2)
    clear = torch.stack([values["w"].remainder(p) for p in PRIMES]).to(torch.uint8)
    replies = [
        ask(
            owners[i],
            RingJob(
                Op.PRODUCT,
                RingOperand(11, tuple(values["x"].shape), (halves[i],)),
                RingOperand(12, tuple(values["w"].shape), (clear,)),
                ROWS,
            ),
        )
        for i in range(2)
    ]
    assert torch.equal(joined(replies), truth(Op.PRODUCT, values))
