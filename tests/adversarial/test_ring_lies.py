"""Lies about products of shares: in good form they pass the wire and are wrong in some entry; in bad form the
wire finds them. The liar is named and left alone, and another worker gives the right result."""

import pytest
import torch
from test_wire import FORGED, FORM, NUMBERS, SETTINGS, Socketed

from tempo.errors import IntegrityError
from tempo.fleet import DeviceWorker, Done, EventKind, Fleet, Task
from tempo.ops import KEY_BYTES, PRIMES, Op, RingJob, RingOperand, Seed, ring_compute
from tempo.worker import Lie, LieKind

pytestmark = pytest.mark.security

P = len(PRIMES)


def operand(shape):
    sent = torch.randint(0, 229, (P, *shape), dtype=torch.uint8)
    return RingOperand(next(NUMBERS), shape, (Seed(bytes([next(NUMBERS) % 256]) * KEY_BYTES), sent), True)


def jobs():
    """A training step. Different sizes, so that no reply fits another's request."""
    x, w, dy = operand((8, 5)), operand((1, 7, 5)), operand((8, 7))
    return [
        RingJob(op, left, right, (8,))
        for op, left, right in ((Op.PRODUCT, x, w), (Op.GRAD_X, dy, w), (Op.GRAD_W, dy, x))
    ]


def exact(job):
    return ring_compute(job.op, job.left.expanded(), job.right.expanded(), job.rows)


def check(job, reply):
    result = reply.open_for_check()
    if not torch.equal(result, exact(job)):
        raise IntegrityError("the reply is not the product")
    return result


def run(kind):
    """The outcomes of two steps, the second lied about from its second job on; and what was told."""
    events = []
    liar = Socketed("liar", Lie(LieKind(kind), first=4, count=100))
    steps = [jobs(), jobs()]
    with Fleet([liar, DeviceWorker("cpu", name="honest")], SETTINGS, events.append) as fleet:
        for step in steps:
            outcomes = fleet.run([Task(job, 0) for job in step], check)
            for job, outcome in zip(step, outcomes, strict=True):
                assert isinstance(outcome, Done)
                assert torch.equal(outcome.value, exact(job))
    return events


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_result_is_wrong_and_only_a_check_finds_it(kind):
    events = run(kind)
    assert EventKind.CHECK_FAILED in {event.kind for event in events if event.worker == "liar"}
    assert {event.worker for event in events if event.kind is EventKind.QUARANTINED} == {"liar"}


@pytest.mark.parametrize("kind", FORM)
def test_a_lie_in_bad_form_is_found_on_the_wire(kind):
    events = run(kind)
    assert FORM[kind] in {event.kind for event in events if event.worker == "liar"}
    assert not [event for event in events if event.kind is EventKind.CHECK_FAILED]


def test_a_flipped_residue_is_one_residue():
    """The smallest lie: one residue of one entry, still below its prime."""
    from tempo.worker.malicious import _flipped

    result = exact(jobs()[0])
    forged = _flipped(result)
    (place,) = (forged != result).nonzero().tolist()
    assert int(forged[tuple(place)]) == PRIMES[place[0]] - int(result[tuple(place)])
    zero = torch.zeros_like(result)
    assert int((_flipped(zero) != zero).sum()) == 1
