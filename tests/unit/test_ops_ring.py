"""Operands and jobs on shares: what is refused, what is counted, what is never shown."""

import pickle

import pytest
import torch

from tempo.errors import UsageError
from tempo.ops import KEY_BYTES, PRIMES, Job, Op, Operand, RingJob, RingOperand, Seed, expand, ring_compute

P = len(PRIMES)
KEY = b"\xa7" * KEY_BYTES


def residues(*shape, value=1):
    return torch.full((P, *shape), value, dtype=torch.uint8)


def operand(number, shape, halves=2, *, keep=False):
    return RingOperand(number, shape, (Seed(KEY), residues(*shape))[2 - halves :], keep)


@pytest.mark.parametrize(
    ("op", "left", "right", "result"),
    [
        (Op.PRODUCT, (5, 4), (2, 3, 4), (5, 3)),
        (Op.GRAD_X, (5, 3), (2, 3, 4), (5, 4)),
        (Op.GRAD_W, (5, 3), (5, 4), (2, 3, 4)),
    ],
)
def test_what_a_job_counts(op, left, right, result):
    job = RingJob(op, operand(1, left), operand(2, right), (2, 3))
    assert job.result_shape == (P, *result)
    assert job.result_dtype == torch.uint8
    assert job.result_nbytes == residues(*result).numel()
    plain = Job(op, Operand(1, left, torch.float32, None), Operand(2, right, torch.float32, None), (2, 3))
    assert job.flops == 2 * P * plain.flops
    public = RingJob(op, operand(1, left, 1), operand(2, right, 1), (2, 3))
    assert public.flops == P * plain.flops
    referred = RingJob(op, operand(1, left, 1), RingOperand(2, right, ()), (2, 3))
    assert referred.flops == P * plain.flops
    assert RingJob(op, RingOperand(1, left, ()), RingOperand(2, right, ()), (2, 3)).flops == job.flops


def test_what_shipping_an_operand_takes():
    assert operand(1, (4, 3)).nbytes == KEY_BYTES + P * 12
    assert RingOperand(1, (4, 3), (Seed(KEY), Seed(KEY))).nbytes == 2 * KEY_BYTES
    gone = RingOperand(1, (4, 3), ())
    assert (gone.nbytes, gone.here, operand(1, (4, 3)).here) == (0, False, True)


def test_what_a_worker_computes_with():
    expanded = operand(1, (4, 3)).expanded()
    assert expanded.shape == (2, P, 4, 3)
    assert torch.equal(expanded[0], expand(KEY, (4, 3)))
    assert torch.equal(expanded[1], residues(4, 3))


def test_an_expanded_operand_is_a_copy():
    half = residues(2, 2)
    expanded = RingOperand(1, (2, 2), (half,)).expanded()
    half.zero_()
    assert int(expanded.min()) == 1


@pytest.mark.parametrize(
    "half",
    [
        torch.zeros(P, 4, 3),
        torch.zeros(P, 3, 4, dtype=torch.uint8),
        torch.zeros(4, 3, dtype=torch.uint8),
        torch.zeros(P + 1, 4, 3, dtype=torch.uint8),
    ],
)
def test_a_share_in_another_form_is_refused(half):
    with pytest.raises(UsageError, match="a share of"):
        RingOperand(1, (4, 3), (half,))


@pytest.mark.security
def test_nobody_is_sent_all_three_shares():
    with pytest.raises(UsageError, match="at most 2 shares"):
        RingOperand(1, (4, 3), (Seed(KEY), Seed(KEY), residues(4, 3)))


def test_one_share_and_two_do_not_go_together():
    with pytest.raises(UsageError, match="one share or both have two"):
        RingJob(Op.PRODUCT, operand(1, (5, 4)), operand(2, (1, 3, 4), 1), (5,))
    with pytest.raises(UsageError, match="2 and 1 halves"):
        ring_compute(Op.PRODUCT, operand(1, (5, 4)).expanded(), operand(2, (1, 3, 4), 1).expanded(), (5,))


def test_shapes_that_do_not_fit_are_refused():
    left, right = operand(1, (5, 4)).expanded(), operand(2, (1, 3, 7)).expanded()
    with pytest.raises(UsageError, match="features"):
        ring_compute(Op.PRODUCT, left, right, (5,))
    with pytest.raises(UsageError, match="sum of the rows"):
        ring_compute(Op.GRAD_W, left, left, (4,))


@pytest.mark.security
def test_a_seed_is_neither_shown_nor_pickled():
    seed, job = Seed(KEY), RingJob(Op.PRODUCT, operand(1, (5, 4)), operand(2, (1, 3, 4)), (5,))
    for shown in (repr(seed), str(seed), repr(job), f"{job.left}"):
        assert "a7" not in shown
        assert "\xa7" not in shown
        assert "tensor" not in shown
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(seed)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(operand(1, (5, 4)))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_seed_has_one_length(length):
    with pytest.raises(UsageError, match="32 bytes"):
        Seed(bytes(length))
