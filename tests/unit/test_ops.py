"""The one operation against naive loops; shapes that do not fit; what may be printed."""

import copy
import itertools
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tempo.errors import UsageError
from tempo.ops import Job, Op, Operand, Unverified, compute, grad_w, grad_x, product, result_shape, spans

few = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def group_of(t, rows):
    return next(g for g, (lo, hi) in enumerate(spans(rows)) if lo <= t < hi)


def naive(op, left, right, rows):
    """The three sums of the docstring, one term at a time."""
    out = torch.zeros(result_shape(op, tuple(left.shape), tuple(right.shape), rows), dtype=torch.float64)
    for t in range(left.shape[0]):
        g = group_of(t, rows)
        for a in range(left.shape[1]):
            for b in range(out.shape[-1]):
                match op:
                    case Op.PRODUCT:
                        out[t, b] += left[t, a] * right[g, b, a]
                    case Op.GRAD_X:
                        out[t, b] += left[t, a] * right[g, a, b]
                    case Op.GRAD_W:
                        out[g, a, b] += left[t, a] * right[t, b]
    return out


def operands(op, rows, k, n, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    total, groups = sum(rows), len(rows)
    x = torch.randn(total, k, dtype=dtype, generator=g)
    w = torch.randn(groups, n, k, dtype=dtype, generator=g)
    dy = torch.randn(total, n, dtype=dtype, generator=g)
    return {Op.PRODUCT: (x, w), Op.GRAD_X: (dy, w), Op.GRAD_W: (dy, x)}[op]


ROWS = [(1,), (4,), (2, 2), (3, 1), (0,), (0, 0), (0, 3), (3, 0), (2, 0, 3), (1, 1, 1, 0)]
PURE = {Op.PRODUCT: product, Op.GRAD_X: grad_x, Op.GRAD_W: grad_w}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("op", Op)
def test_each_op_is_its_naive_sum(op, rows):
    for k, n in ((1, 1), (3, 2), (2, 5)):
        left, right = operands(op, rows, k, n)
        expected = naive(op, left, right, rows)
        for result in (compute(op, left, right, rows), PURE[op](left, right, rows)):
            assert tuple(result.shape) == result_shape(op, tuple(left.shape), tuple(right.shape), rows)
            torch.testing.assert_close(result, expected, rtol=0, atol=1e-13)


@few
@given(st.sampled_from(list(Op)), st.lists(st.integers(0, 5), min_size=1, max_size=4), st.data())
def test_any_groups(op, rows, data):
    k, n = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    left, right = operands(op, tuple(rows), k, n, seed=data.draw(st.integers(0, 99)))
    torch.testing.assert_close(
        compute(op, left, right, tuple(rows)), naive(op, left, right, tuple(rows)), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("op", Op)
def test_operands_in_any_layout_and_unchanged(op):
    rows = (3, 0, 2)
    left, right = operands(op, rows, 4, 3)
    expected = naive(op, left, right, rows)
    turned = left.mT.contiguous().mT, right.mT.contiguous().mT
    wide = torch.zeros(*left.shape[:-1], 2 * left.shape[1], dtype=left.dtype)
    wide[..., ::2] = left
    for a, b in ((left, right), turned, (wide[..., ::2], right)):
        before = a.clone(), b.clone()
        torch.testing.assert_close(compute(op, a, b, rows), expected, rtol=0, atol=1e-13)
        assert torch.equal(a, before[0])
        assert torch.equal(b, before[1])


@pytest.mark.parametrize("op", Op)
def test_float32_stays_float32(op):
    left, right = operands(op, (3, 2), 4, 3, dtype=torch.float32)
    assert compute(op, left, right, (3, 2)).dtype == torch.float32


def test_an_empty_group_has_a_zero_gradient():
    dy, x = operands(Op.GRAD_W, (2, 0, 3), 4, 3)
    assert torch.equal(grad_w(dy, x, (2, 0, 3))[1], torch.zeros(3, 4, dtype=torch.float64))


def test_the_gradients_are_autograds():
    rows = (3, 0, 2)
    x, w = (t.requires_grad_() for t in operands(Op.PRODUCT, rows, 4, 3))
    dy, _ = operands(Op.GRAD_X, rows, 4, 3)
    y = torch.cat([x[lo:hi] @ w[g].mT for g, (lo, hi) in enumerate(spans(rows))])
    dx, dw = torch.autograd.grad(y, (x, w), dy)
    with torch.no_grad():
        torch.testing.assert_close(grad_x(dy, w, rows), dx, rtol=0, atol=1e-13)
        torch.testing.assert_close(grad_w(dy, x, rows), dw, rtol=0, atol=1e-13)


def test_spans():
    assert spans(()) == []
    assert spans((3,)) == [(0, 3)]
    assert spans((2, 0, 1)) == [(0, 2), (2, 2), (2, 3)]


MISMATCHES = [
    (Op.PRODUCT, (4, 3), (1, 2, 5), (4,)),  # inner length
    (Op.PRODUCT, (4, 3), (1, 3, 2), (4,)),  # W the other way round
    (Op.PRODUCT, (4, 3), (2, 2, 3), (4,)),  # groups
    (Op.PRODUCT, (4, 3), (1, 2, 3), (2, 2)),
    (Op.PRODUCT, (4, 3), (1, 2, 3), (5,)),  # rows
    (Op.PRODUCT, (4, 3), (1, 2, 3), (3,)),
    (Op.PRODUCT, (4, 3), (2, 2, 3), (5, -1)),
    (Op.PRODUCT, (0, 3), (0, 2, 3), ()),  # no group at all
    (Op.PRODUCT, (4, 3), (2, 3), (4,)),  # ranks
    (Op.PRODUCT, (4, 3), (1, 1, 2, 3), (4,)),
    (Op.PRODUCT, (1, 4, 3), (1, 2, 3), (4,)),
    (Op.PRODUCT, (4,), (1, 2, 3), (4,)),
    (Op.PRODUCT, (), (1, 2, 3), (4,)),
    (Op.PRODUCT, (4, -3), (1, 2, -3), (4,)),
    (Op.PRODUCT, (4, 3), (1, -2, 3), (4,)),
    (Op.GRAD_X, (4, 3), (1, 2, 3), (4,)),  # dY has N features, not K
    (Op.GRAD_X, (4, 2), (2, 2, 3), (4,)),
    (Op.GRAD_X, (4, 2), (1, 2, 3), (2,)),
    (Op.GRAD_X, (4, 2), (4, 3), (4,)),
    (Op.GRAD_W, (4, 2), (5, 3), (4,)),  # rows of X
    (Op.GRAD_W, (4, 2), (4, 3), (5,)),
    (Op.GRAD_W, (4, 2), (1, 4, 3), (4,)),
    (Op.GRAD_W, (4, 2), (4,), (4,)),
    (Op.GRAD_W, (0, 2), (0, 3), ()),
    (Op.GRAD_W, (4, 2), (4, -3), (4,)),
]


@pytest.mark.parametrize(("op", "left", "right", "rows"), MISMATCHES)
def test_shapes_that_do_not_fit_are_refused(op, left, right, rows):
    with pytest.raises(UsageError, match=op.value):
        result_shape(op, left, right, rows)


def test_whatever_is_let_through_can_be_computed():
    """Exhaustive over small shapes: result_shape refuses, or compute agrees with it."""
    sizes = (0, 1, 2)
    admitted = 0
    for op in Op:
        for rows in [(), (0,), (2,), (1, 1), (0, 2), (2, 0)]:
            for left in itertools.product(sizes, (1, 2)):
                for right in [
                    *itertools.product(sizes, (1, 2)),
                    *itertools.product((0, 1, 2), (1, 2), (1, 2)),
                ]:
                    try:
                        shape = result_shape(op, left, right, rows)
                    except UsageError:
                        continue
                    admitted += 1
                    result = compute(op, torch.ones(left), torch.ones(right), rows)
                    assert tuple(result.shape) == shape, (op, left, right, rows)
    assert admitted > 50


@pytest.mark.parametrize(
    ("op", "left", "right"), [(Op.PRODUCT, (3, 4), (1, 0, 4)), (Op.GRAD_X, (3, 4), (1, 4, 0))]
)
def test_no_features_at_all(op, left, right):
    # Regression: admitted, and then failed on (which got an honest worker quarantined).
    shape = result_shape(op, left, right, (3,))
    assert tuple(compute(op, torch.ones(left), torch.ones(right), (3,)).shape) == shape


# ---- what a job says of itself -----------------------------------------------------------------


SECRET = 0.7182818284590452


def operand(number=1, shape=(2, 3), tensor=None):
    tensor = torch.full(shape, SECRET, dtype=torch.float64) if tensor is None else tensor
    return Operand(number, tuple(tensor.shape), tensor.dtype, tensor)


def test_sizes_of_operands_and_jobs():
    assert operand().nbytes == 48
    assert Operand(1, (0, 3), torch.float32, None).nbytes == 0
    x, w, dy = operand(1, (5, 3)), operand(2, (1, 4, 3)), operand(3, (5, 4))
    jobs = [Job(Op.PRODUCT, x, w, (5,)), Job(Op.GRAD_X, dy, w, (5,)), Job(Op.GRAD_W, dy, x, (5,))]
    assert [job.result_shape for job in jobs] == [(5, 4), (5, 3), (1, 4, 3)]
    assert [job.flops for job in jobs] == [2 * 5 * 4 * 3] * 3
    assert jobs[0].operands == (x, w)


def test_jobs_are_told_apart_by_identity():
    x, w = operand(1, (5, 3)), operand(2, (1, 4, 3))
    a, b = Job(Op.PRODUCT, x, w, (5,)), Job(Op.PRODUCT, x, w, (5,))
    assert a != b
    assert len({a, b}) == 2


def shows_no_content(text):
    return "0.718" not in text and "tensor(" not in text


def test_an_unverified_reply_shows_no_content():
    reply = Unverified(torch.full((2, 3), SECRET))
    for text in (repr(reply), str(reply), f"{[reply]}"):
        assert shows_no_content(text)
        assert "(2, 3)" in text


def test_operands_and_jobs_show_no_content():
    job = Job(Op.PRODUCT, operand(1, (5, 3)), operand(2, (1, 4, 3)), (5,))
    for text in (repr(job), str(job), repr(job.left), f"{job.operands}"):
        assert shows_no_content(text)


def test_an_unverified_reply_is_not_pickled_or_copied():
    reply = Unverified(torch.zeros(2))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="unverified"):
            pickle.dumps(reply, protocol)
    for dup in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            dup(reply)


def test_an_unverified_reply_is_no_tensor():
    reply = Unverified(torch.ones(2))
    for use in (
        lambda: reply + 1,
        lambda: torch.add(reply, 1),
        lambda: reply[0],
        lambda: torch.as_tensor(reply),
        lambda: torch.ones(2).copy_(reply),
        lambda: float(reply),
    ):
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            use()
    with pytest.raises(AttributeError):
        reply.anything = 1
