"""The check on integers: what is a product passes, what is not is refused, and judged reply by reply."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tempo.errors import IntegrityError, KeySpentError
from tempo.integrity import ExactVerifier
from tempo.ops import PRIMES, Op, RingJob, Unverified, ring_compute
from tempo.secrecy.fixed import fixed_rows, fixed_weight
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.shares import REPLICATED, ShareKey, dealt

pytestmark = pytest.mark.security

G, R, K, N = 2, 12, 10, 9
ROWS = (R,) * G


class Made:
    """Operands in fixed point, shared, and the honest replies to all three products."""

    def __init__(self):
        torch.manual_seed(4)
        x, w, dy = torch.randn(G * R, K), torch.randn(G, N, K), torch.randn(G * R, N)
        self.key = SessionKey()
        self.verifier = ExactVerifier(self.key)
        self.w = fixed_weight(w)
        self.x = fixed_rows(x, ROWS, self.w.rows, summed=True)
        self.dy = fixed_rows(dy, ROWS, self.w.columns, others=self.x.columns, summed=True)
        x_, w_, dy_ = (
            dealt(i, ShareKey(self.key, (i,), REPLICATED).split(operand), operand, keep=False)
            for i, operand in enumerate((self.x, self.w, self.dy))
        )
        pairs = {Op.PRODUCT: (x_, w_), Op.GRAD_X: (dy_, w_), Op.GRAD_W: (dy_, x_)}
        self.jobs = {
            op: [RingJob(op, a, b, ROWS) for a, b in zip(*both, strict=True)] for op, both in pairs.items()
        }
        self.results = {
            op: [ring_compute(op, j.left.expanded(), j.right.expanded(), ROWS) for j in jobs]
            for op, jobs in self.jobs.items()
        }

    def proof(self, op):
        if op is Op.GRAD_W:
            return self.verifier.grad_w(self.dy, self.verifier.witness(self.x), ROWS)
        return self.verifier.rows(op, self.x if op is Op.PRODUCT else self.dy, self.w, ROWS)

    def replies(self, op, changed=None, worker=0):
        results = list(self.results[op])
        if changed is not None:
            results[worker] = changed
        return [Unverified(result) for result in results]


MADE = Made()
ops = pytest.mark.parametrize("op", list(Op))


@ops
def test_honest_replies_pass_and_nobody_is_blamed(op):
    whole = MADE.proof(op).accept(MADE.replies(op))
    assert whole.dtype == torch.float64
    assert torch.equal(whole, whole.round())
    assert MADE.verifier.liars(MADE.jobs[op], MADE.replies(op)) == []


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(Op)),
    st.integers(0, 2),
    st.integers(0, 4),
    st.integers(0, 2**31),
    st.integers(1, 228),
)
def test_any_changed_residue_is_found_and_its_sender(op, worker, prime, place, by):
    changed = MADE.results[op][worker].clone()
    entry = changed[prime].view(-1)[place % changed[prime].numel() :][:1]
    entry.copy_((entry.long() + by) % PRIMES[prime])
    replies = MADE.replies(op, changed, worker)
    with pytest.raises(IntegrityError, match="1 of "):
        MADE.proof(op).accept(replies)
    assert MADE.verifier.liars(MADE.jobs[op], replies) == [worker]


@ops
def test_a_residue_that_is_not_reduced_is_no_lie(op):
    changed = MADE.results[op][1].clone()
    low = changed[4] < 256 - PRIMES[4]
    changed[4][low] += PRIMES[4]
    assert bool(low.any())
    replies = MADE.replies(op, changed, 1)
    honest = MADE.proof(op).accept(MADE.replies(op))
    assert torch.equal(MADE.proof(op).accept(replies), honest)
    assert MADE.verifier.liars(MADE.jobs[op], replies) == []


@ops
def test_changes_that_cancel_change_nothing(op):
    """Two owners who agree can move a share from one reply to the other: the sum is what counts."""
    one, other = (MADE.results[op][i].clone() for i in (0, 1))
    one[0] = ((one[0].long() + 5) % PRIMES[0]).to(torch.uint8)
    other[0] = ((other[0].long() - 5) % PRIMES[0]).to(torch.uint8)
    replies = [Unverified(one), Unverified(other), Unverified(MADE.results[op][2])]
    honest = MADE.proof(op).accept(MADE.replies(op))
    assert torch.equal(MADE.proof(op).accept(replies), honest)


@ops
def test_a_reply_of_another_shape_or_dtype_is_refused(op):
    right = MADE.results[op][0]
    for wrong in (right[:, :-1], right.int(), right[:4], right.flatten(1)[:, :, None]):
        with pytest.raises(IntegrityError, match="the request asked for"):
            MADE.proof(op).accept(MADE.replies(op, wrong))


def test_a_wrong_result_of_another_product_is_refused():
    """Freivalds on the wrong operands: replies to a product with another W."""
    other = Made()
    with pytest.raises(IntegrityError):
        MADE.proof(Op.PRODUCT).accept([*MADE.replies(Op.PRODUCT)[:2], *other.replies(Op.PRODUCT)[2:]])


def test_a_witness_serves_once():
    witness = MADE.verifier.witness(MADE.x)
    MADE.verifier.grad_w(MADE.dy, witness, ROWS)
    with pytest.raises(KeySpentError):
        MADE.verifier.grad_w(MADE.dy, witness, ROWS)


def test_no_two_probes_are_alike():
    proofs = [MADE.proof(Op.PRODUCT) for _ in range(3)]
    probes = {tuple(proof._probe.tolist()) for proof in proofs}
    assert len(probes) == 3
