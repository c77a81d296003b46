"""The checks as an object: what they accept, what they count, and that probes serve once."""

import copy
import hashlib
import pickle
import threading

import pytest
import torch

from tempo.errors import IntegrityError, KeySpentError, UsageError
from tempo.integrity import Verifier, Witness
from tempo.ops import Arithmetic, Job, Op, Operand, Unverified, compute
from tempo.secrecy.keys import SessionKey, Stream

DTYPES = [torch.float32, torch.float64]


def key_of(seed):
    key = SessionKey()
    key._secret = hashlib.sha256(repr(seed).encode()).digest()
    return key


def job_of(op, rows, k=20, n=30, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    t = sum(rows)
    x = torch.randn(t, k, generator=g).to(dtype)
    w = torch.randn(len(rows), n, k, generator=g).to(dtype)
    dy = torch.randn(t, n, generator=g).to(dtype)
    left, right = {Op.PRODUCT: (x, w), Op.GRAD_X: (dy, w), Op.GRAD_W: (dy, x)}[op]
    return Job(
        op, *(Operand(i, tuple(t.shape), t.dtype, t) for i, t in enumerate((left, right))), tuple(rows)
    )


def honest(job):
    return compute(job.op, job.left.tensor, job.right.tensor, job.rows)


def accept(verifier, job, tensor, witness=None):
    checks = verifier.begin()
    checks.expect(job, witness)
    return checks.accept(job, Unverified(tensor))


@pytest.mark.security
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [(7,), (4, 4), (5, 0, 2), (0,), (0, 0), (1,)])
@pytest.mark.parametrize("op", Op)
def test_an_honest_reply_is_returned_as_it_came(op, rows, dtype):
    job = job_of(op, rows, dtype=dtype)
    reply = honest(job)
    before = [t.clone() for t in (job.left.tensor, job.right.tensor, reply)]
    value = accept(Verifier(key_of(0), 2), job, reply)
    assert value is reply
    # Regression: float64 operands were squared in place.
    for t, old in zip((job.left.tensor, job.right.tensor, reply), before, strict=True):
        assert torch.equal(t, old)


@pytest.mark.security
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_witness_leaves_x_alone_and_stands_for_it(dtype):
    job = job_of(Op.GRAD_W, (40, 25), dtype=dtype)
    x = job.right.tensor
    before = x.clone()
    verifier = Verifier(key_of(1), 2)
    witness = verifier.witness(x, job.rows)
    assert torch.equal(x, before)
    reply = honest(job)
    gone = Job(Op.GRAD_W, job.left, Operand(1, tuple(x.shape), x.dtype, None), job.rows)
    assert accept(verifier, gone, reply, witness) is reply
    witness = verifier.witness(x, job.rows)
    forged = reply.clone()
    forged[1, 3, 4] *= -1
    with pytest.raises(IntegrityError):
        accept(verifier, gone, forged, witness)


@pytest.mark.security
def test_a_witness_serves_one_reply():
    job = job_of(Op.GRAD_W, (40,))
    verifier = Verifier(key_of(2), 2)
    witness = verifier.witness(job.right.tensor, job.rows)
    verifier.begin().expect(job, witness)
    with pytest.raises(KeySpentError):
        verifier.begin().expect(job, witness)
    twin = job_of(Op.GRAD_W, (40,))
    with pytest.raises(KeySpentError):
        verifier.begin().expect(twin, witness)


@pytest.mark.security
def test_probes_of_two_jobs_and_two_sessions_differ():
    verifier, probes = Verifier(key_of(3), 2), []
    for job in [job_of(op, (7,)) for op in Op for _ in range(3)]:
        checks = verifier.begin()
        checks.expect(job)
        checks.expect(job)  # again: even the same job gets another one
        probes.append(checks._proofs[job].probe)
    probes.append(verifier.witness(torch.ones(7, 20), (7,)).probe_KP)
    other = Verifier(key_of(4), 2)
    probes.append(other.probe(20))
    values = [v for p in probes for v in p.flatten().tolist()]
    assert len(values) == len(set(values))
    assert all(p.dtype == torch.float64 and p.shape[1] == 2 for p in probes)


@pytest.mark.security
@pytest.mark.parametrize("op", Op)
def test_a_second_reply_to_the_same_job_meets_a_fresh_probe(op):
    """A worker that learnt the first probe from an answer gains nothing."""
    job = job_of(op, (40,))
    checks = Verifier(key_of(5), 2).begin()
    checks.expect(job)
    probe = checks._proofs[job].probe
    reply = honest(job)
    # A large error that the first probe cannot see: orthogonal to both of its columns.
    basis = torch.linalg.qr(probe).Q
    error = torch.ones(reply.shape[-1], dtype=torch.float64)
    error -= basis @ (basis.mT @ error)
    forged = reply + error
    assert checks.accept(job, Unverified(forged)) is forged, "the probe is what stands between"
    with pytest.raises(IntegrityError):
        checks.accept(job, Unverified(forged))
    assert checks.accept(job, Unverified(reply)) is reply
    assert (checks.made, checks.failed) == (3, 1)


@pytest.mark.security
def test_a_job_that_was_not_expected_is_checked_all_the_same():
    job = job_of(Op.PRODUCT, (40,))
    checks = Verifier(key_of(6), 2).begin()
    with pytest.raises(IntegrityError):
        checks.accept(job, Unverified(honest(job) * 1.01))
    checks.accept(job, Unverified(honest(job)))
    assert (checks.made, checks.failed) == (2, 1)


@pytest.mark.security
def test_what_cannot_be_checked_is_not_accepted():
    job = job_of(Op.GRAD_W, (40,))
    gone = Operand(1, job.right.shape, job.right.dtype, None)
    checks = Verifier(key_of(7), 2).begin()
    with pytest.raises(UsageError, match="witness"):
        checks.expect(Job(Op.GRAD_W, job.left, gone, job.rows))
    for op in Op:
        job = job_of(op, (40,))
        left = Operand(0, job.left.shape, job.left.dtype, None)
        with pytest.raises(UsageError):
            checks.expect(Job(op, left, job.right, job.rows))
        with pytest.raises(UsageError):
            checks.accept(Job(op, left, job.right, job.rows), Unverified(honest(job)))
        if op is not Op.GRAD_W:
            right = Operand(1, job.right.shape, job.right.dtype, None)
            with pytest.raises(UsageError):
                checks.accept(Job(op, job.left, right, job.rows), Unverified(honest(job)))


@pytest.mark.parametrize("probes", [0, -1])
def test_no_probe_no_check(probes):
    with pytest.raises(UsageError):
        Verifier(key_of(8), probes)


@pytest.mark.security
def test_a_reply_in_any_layout_is_judged_by_its_values():
    job = job_of(Op.PRODUCT, (40,))
    reply = honest(job)
    verifier = Verifier(key_of(9), 2)
    accept(verifier, job, reply.mT.contiguous().mT)
    wide = torch.zeros(40, 60, dtype=torch.float64)
    wide[:, ::2] = reply
    accept(verifier, job, wide[:, ::2])
    with pytest.raises(IntegrityError):
        accept(verifier, job, reply[:1].expand(40, 30))


@pytest.mark.security
@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("op", Op)
def test_operands_that_are_not_finite_admit_no_reply(op, bad):
    """Regression: an infinite row allowed an infinite difference, and so any reply."""
    job = job_of(op, (40,))
    for side in (job.left.tensor, job.right.tensor):
        kept = side.flatten()[5].clone()
        side.view(-1)[5] = bad
        true = honest(job)
        for reply in (true, torch.zeros_like(true), true.nan_to_num(0, 0, 0), torch.full_like(true, bad)):
            with pytest.raises(IntegrityError):
                accept(Verifier(key_of(10), 2), job, reply)
        side.view(-1)[5] = kept


@pytest.mark.security
def test_norms_that_overflow_admit_no_reply():
    # Regression: 1e160 squared is infinite in float64, and zeros passed for the product.
    job = job_of(Op.PRODUCT, (40,))
    job.left.tensor.mul_(1e160)
    with pytest.raises(IntegrityError):
        accept(Verifier(key_of(11), 2), job, torch.zeros_like(honest(job)))


@pytest.mark.security
def test_the_message_says_how_much_is_wrong_and_shows_no_value():
    job = job_of(Op.PRODUCT, (40,))
    forged = honest(job)
    forged[3] += 1.2345678
    forged[7] += 1.2345678
    with pytest.raises(
        IntegrityError, match=r"product: 2 of 40 rows .* 2 of them by more than any"
    ) as caught:
        accept(Verifier(key_of(12), 2), job, forged)
    assert "1.234" not in str(caught.value)
    assert "tensor" not in str(caught.value)


def test_the_framework_generator_plays_no_part():
    job = job_of(Op.PRODUCT, (7,))
    drawn = []
    state = torch.get_rng_state()
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        checks = Verifier(key_of(13), 2).begin()
        checks.expect(job)
        drawn.append(checks._proofs[job].probe)
        assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(state)
    assert torch.equal(*drawn)


def test_a_witness_is_not_printed():
    witness = Verifier(key_of(14), 2).witness(torch.ones(4, 3), (4,))
    assert repr(witness) == "Witness(hidden)"


@pytest.mark.parametrize("dup", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_witness_is_not_copied(dup):
    witness = Verifier(key_of(14), 2).witness(torch.ones(4, 3), (4,))
    assert isinstance(witness, Witness)
    with pytest.raises(TypeError):
        dup(witness)


def test_threads_may_share_a_verifier():
    verifier, errors, entered = Verifier(key_of(15), 2), [], threading.Barrier(4)

    def draw():
        entered.wait()
        try:
            for _ in range(200):
                verifier.probe(4000)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_probes_do_not_run_out():
    """256 GiB are 50,000 steps of BERT base. Here the stream starts 64 bytes before its end."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

    verifier = Verifier(key_of(16), 2)
    stream = getattr(verifier, "_stream", None)
    if isinstance(stream, Stream):
        nearly = (2**32 - 1).to_bytes(4, "little") + bytes(12)
        stream._keystream = Cipher(ChaCha20(bytes(32), nearly), mode=None).encryptor()
    for _ in range(3):
        verifier.probe(8)


@pytest.mark.security
@pytest.mark.parametrize("arithmetic", [Arithmetic.TF32, Arithmetic.BF16])
def test_a_witness_for_a_worker_that_may_round(arithmetic):
    """A kept X is judged as one that is at hand; a witness taken for less is not enough."""
    job = job_of(Op.GRAD_W, (40, 25), dtype=torch.float32)
    x, verifier = job.right.tensor, Verifier(key_of(20), 2)
    gone = Job(Op.GRAD_W, job.left, Operand(1, tuple(x.shape), x.dtype, None), job.rows, arithmetic)
    reply = compute(Op.GRAD_W, job.left.tensor, x, job.rows, arithmetic)
    assert accept(verifier, gone, reply, verifier.witness(x, job.rows, arithmetic)) is reply
    forged = reply.clone()
    forged[1, 3] *= 1.1
    with pytest.raises(IntegrityError):
        accept(verifier, gone, forged, verifier.witness(x, job.rows, arithmetic))
    with pytest.raises(UsageError, match="does not round X"):
        accept(verifier, gone, reply, verifier.witness(x, job.rows))
    # The other way round is fine: dY is uneven, so that nothing of this job may be rounded.
    exact = Job(Op.GRAD_W, job.left, gone.right, job.rows)
    with pytest.raises(IntegrityError):
        accept(verifier, exact, reply + 1e-3, verifier.witness(x, job.rows, arithmetic))
    accept(verifier, exact, honest(job), verifier.witness(x, job.rows, arithmetic))


# ---- one reading for several checks --------------------------------------------------------------

ARITHMETICS = [Arithmetic.FP32, Arithmetic.BF16]


def forged(reply):
    """One entry has the other sign."""
    lie = reply.clone()
    flat = lie.view(-1)
    flat[flat.abs().argmax()] *= -1
    return lie


def step_of(rows, arithmetic, k=20, n=30):
    """The three jobs of a training step on one X, W, dY: Y, dW without X, dX."""
    g = torch.Generator().manual_seed(1)
    t = sum(rows)
    x, dy = torch.randn(t, k, generator=g), torch.randn(t, n, generator=g)
    w = torch.randn(len(rows), n, k, generator=g)
    x, w, dy = (Operand(i, tuple(each.shape), each.dtype, each) for i, each in enumerate((x, w, dy)))
    gone = Operand(x.id, x.shape, x.dtype, None)
    return (
        Job(Op.PRODUCT, x, w, rows, arithmetic),
        Job(Op.GRAD_W, dy, gone, rows, arithmetic),
        Job(Op.GRAD_X, dy, w, rows, arithmetic),
    ), compute(Op.GRAD_W, dy.tensor, x.tensor, rows, arithmetic)


@pytest.mark.security
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("rows", [(40,), (30, 0, 25)])
@pytest.mark.parametrize("liar", [None, 0, 1, 2])
def test_checks_that_share_a_reading_each_refuse_their_own_lie(rows, arithmetic, liar):
    (forward, of_w, of_x), dw = step_of(rows, arithmetic)
    truth = [compute(j.op, j.left.tensor, j.right.tensor, rows, arithmetic) for j in (forward, of_x)]
    checks = Verifier(key_of(30), 2).begin()
    witness = checks.expect_and_keep(forward)
    checks.expect_all([of_w, of_x], witness)
    for i, (job, reply) in enumerate(zip((forward, of_w, of_x), (truth[0], dw, truth[1]), strict=True)):
        if i == liar:
            with pytest.raises(IntegrityError):
                checks.accept(job, Unverified(forged(reply)))
        else:
            assert checks.accept(job, Unverified(reply)) is reply
    assert (checks.made, checks.failed) == (3, 0 if liar is None else 1)


@pytest.mark.security
def test_checks_that_share_a_reading_share_no_probe():
    (forward, of_w, of_x), _ = step_of((40,), Arithmetic.FP32)
    checks = Verifier(key_of(31), 2).begin()
    witness = checks.expect_and_keep(forward)
    checks.expect_all([of_w, of_x], witness)
    probes = [checks._proofs[job].probe for job in (forward, of_w, of_x)]
    assert probes[1] is witness.probe_KP
    values = [v for p in probes for v in p.flatten().tolist()]
    assert len(values) == len(set(values)) == 2 * (30 + 20 + 20)


@pytest.mark.security
def test_a_shared_reading_expects_what_separate_ones_do():
    """With the same probes: only how often the operand is read differs."""
    rows = (30, 25)
    (forward, of_w, of_x), _ = step_of(rows, Arithmetic.BF16)
    together, apart = Verifier(key_of(32), 2), Verifier(key_of(32), 2)
    checks = together.begin()
    witness = checks.expect_and_keep(forward)
    checks.expect_all([of_w, of_x], witness)
    other = apart.begin()
    other.expect(forward)
    other.expect(of_w, apart.witness(forward.left.tensor, rows, Arithmetic.BF16))
    other.expect(of_x)
    for job in (forward, of_w, of_x):
        ours, theirs = checks._proofs[job], other._proofs[job]
        assert torch.equal(ours.probe, theirs.probe)
        for a, b in [
            (ours.expected, theirs.expected),
            (ours.tolerance.calibrated, theirs.tolerance.calibrated),
            (ours.tolerance.sound, theirs.tolerance.sound),
            (ours.tolerance.largest, theirs.tolerance.largest),
        ]:
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_only_jobs_with_one_left_operand_are_prepared_together():
    (forward, _, of_x), _ = step_of((40,), Arithmetic.FP32)
    with pytest.raises(UsageError, match="one left operand"):
        Verifier(key_of(33), 2).begin().expect_all([forward, of_x])
