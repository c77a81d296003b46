"""Which numbers a product is computed in: dtypes of results, rounding of operands, torch's switches."""

import itertools
import threading

import pytest
import torch

from tempo.errors import UsageError
from tempo.ops import (
    Arithmetic,
    Job,
    Op,
    Operand,
    compute,
    devices,
    grad_w,
    grad_x,
    product,
    result_dtype,
    result_shape,
)
from tempo.ops.precision import precision

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
SHAPES = {
    Op.PRODUCT: ((70, 96), (2, 48, 96)),
    Op.GRAD_X: ((70, 48), (2, 48, 96)),
    Op.GRAD_W: ((70, 48), (70, 96)),
}
ROWS = [(35, 35), (50, 20), (70, 0)]


def pair(op, left=F32, right=F32):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=g).to(dtype) for s, dtype in zip(SHAPES[op], (left, right))]


def exact(op, left, right, rows):
    return compute(op, left.double(), right.double(), rows)


# ---- dtypes --------------------------------------------------------------------------------------

DTYPES = {
    (F32, F32): (F32, F32),
    (F64, F64): (F64, F64),
    (BF16, BF16): (BF16, F32),
    (BF16, F32): (F32, F32),
    (F32, BF16): (F32, F32),
}


@pytest.mark.parametrize("op", Op)
def test_the_table_of_results(op):
    """Frozen: master, worker and verifier all ask this one function."""
    for (left, right), (rows, dw) in DTYPES.items():
        assert result_dtype(op, left, right, Arithmetic.FP32) == (dw if op is Op.GRAD_W else rows)
        operands = [Operand(1, t.shape, t.dtype, t) for t in pair(op, left, right)]
        job = Job(op, *operands, (35, 35))
        result = compute(op, *pair(op, left, right), job.rows)
        assert (result.dtype, tuple(result.shape)) == (job.result_dtype, job.result_shape)
        assert result.nbytes == job.result_nbytes


@pytest.mark.parametrize("op", Op)
def test_what_does_not_go_together_is_refused(op):
    every = [F32, F64, BF16, torch.float16, torch.int32]
    for left, right in itertools.product(every, every):
        if left != right and {left, right} != {F32, BF16}:
            with pytest.raises(UsageError, match="share a dtype"):
                result_dtype(op, left, right, Arithmetic.FP32)
        elif not left == right == F32:
            for arithmetic in (Arithmetic.TF32, Arithmetic.BF16):
                with pytest.raises(UsageError, match="for float32 operands"):
                    result_dtype(op, left, right, arithmetic)


def test_the_stricter_of_two():
    order = [Arithmetic.FP32, Arithmetic.TF32, Arithmetic.BF16]
    for a, b in itertools.product(order, order):
        assert a.stricter(b) is order[min(order.index(a), order.index(b))]


# ---- products ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("op", Op)
def test_bfloat16_operands_are_multiplied_as_sent_and_rounded_once(op, rows):
    left, right = pair(op, BF16, BF16)
    wide = compute(op, left.float(), right.float(), rows)
    assert torch.equal(compute(op, left, right, rows), wide if op is Op.GRAD_W else wide.to(BF16))
    for a, b in ((left, right.float()), (left.float(), right)):
        assert torch.equal(compute(op, a, b, rows), wide)


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("op", Op)
def test_bf16_arithmetic_rounds_operands_and_nothing_else(op, rows):
    left, right = pair(op)
    rounded = compute(op, left.to(BF16).float(), right.to(BF16).float(), rows)
    result = compute(op, left, right, rows, Arithmetic.BF16)
    assert torch.equal(result, rounded)
    assert result.dtype == F32
    error = (result - exact(op, left, right, rows)).norm() / exact(op, left, right, rows).norm()
    assert 1e-3 < float(error) < 1e-2


@pytest.mark.parametrize("op", Op)
def test_on_the_cpu_tf32_is_float32(op):
    left, right = pair(op)
    for arithmetic in (Arithmetic.FP32, Arithmetic.TF32):
        result = compute(op, left, right, (35, 35), arithmetic)
        assert float((result - exact(op, left, right, (35, 35))).norm()) < 1e-3


def test_operands_stay_as_they_were():
    for arithmetic in Arithmetic:
        left, right = pair(Op.PRODUCT)
        before = left.clone(), right.clone()
        compute(Op.PRODUCT, left, right, (35, 35), arithmetic)
        assert torch.equal(left, before[0])
        assert torch.equal(right, before[1])


class OnCuda:
    """Stands for a CUDA tensor where there is none: `_prepare` asks for dtype and device alone."""

    def __init__(self, dtype):
        self.dtype, self.device = dtype, torch.device("cuda:0")

    def bfloat16(self):
        return OnCuda(BF16)

    def float(self):
        return OnCuda(F32)


@pytest.mark.parametrize(
    ("dtypes", "result", "arithmetic", "multiplied", "tf32"),
    [
        ((F32, F32), F32, Arithmetic.FP32, F32, False),
        ((F32, F32), F32, Arithmetic.TF32, F32, True),
        ((F32, F32), F32, Arithmetic.BF16, BF16, False),
        ((BF16, BF16), BF16, Arithmetic.FP32, BF16, False),
        ((BF16, BF16), F32, Arithmetic.FP32, BF16, False),
        ((BF16, F32), F32, Arithmetic.FP32, F32, False),
        ((F64, F64), F64, Arithmetic.FP32, F64, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("widens", [True, False])
def test_what_cuda_multiplies(monkeypatch, dtypes, result, arithmetic, multiplied, tf32, widens):
    """Without bfloat16 products into float32, TF32 takes them: it holds a bfloat16 exactly."""
    monkeypatch.setattr(devices, "_WIDENS", widens)
    if not widens and multiplied == BF16 and result == F32:
        multiplied, tf32 = F32, True
    left, right, switched = devices._prepare(*map(OnCuda, dtypes), result, arithmetic)
    assert (left.dtype, right.dtype, switched) == (multiplied, multiplied, tf32)


@pytest.mark.skipif(not devices._WIDENS, reason="this torch has no wider results")
@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("op", Op)
def test_torch_takes_the_call_for_wider_results(op, rows):
    """The CPU has no such product, but torch says whether the call is one, and of what shape and dtype."""
    left, right = (t.to("meta") for t in pair(op, BF16, BF16))
    call = {Op.PRODUCT: product, Op.GRAD_X: grad_x, Op.GRAD_W: grad_w}[op]
    result = call(left, right, rows, F32)
    assert (result.dtype, tuple(result.shape)) == (F32, result_shape(op, left.shape, right.shape, rows))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("op", Op)
def test_cuda_agrees_with_the_cpu(op, rows):
    for dtypes in DTYPES:
        for arithmetic in Arithmetic if dtypes == (F32, F32) else [Arithmetic.FP32]:
            left, right = pair(op, *dtypes)
            here = compute(op, left, right, rows, arithmetic)
            there = compute(op, left.cuda(), right.cuda(), rows, arithmetic).cpu()
            assert there.dtype == here.dtype
            unit = {Arithmetic.TF32: 2.0**-10, Arithmetic.BF16: 1e-5}.get(arithmetic, 1e-5)
            unit = 2.0**-7 if here.dtype == BF16 else unit
            assert float((there.double() - here.double()).norm() / here.double().norm()) < unit


# ---- switches ------------------------------------------------------------------------------------


def switches():
    cuda = torch.backends.cuda.matmul
    precise = torch.get_float32_matmul_precision() == "highest"
    return cuda.allow_tf32, cuda.allow_bf16_reduced_precision_reduction, precise


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
@pytest.mark.parametrize("tf32", [False, True])
def test_switches_are_set_inside_and_put_back(before, tf32):
    torch.set_float32_matmul_precision(before)
    try:
        found = switches()
        with precision(tf32=tf32):
            assert switches()[:2] == (tf32, False)
            assert torch.backends.mkldnn.matmul.fp32_precision in ("ieee", "none")
        assert switches() == found
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_switches_are_put_back_after_an_error():
    found = switches()
    with pytest.raises(ZeroDivisionError), precision(tf32=True):
        1 / 0  # noqa: B018
    assert switches() == found


def test_threads_never_see_the_setting_of_another():
    wrong, done = [], []
    ready = threading.Barrier(6)

    def use(tf32):
        ready.wait(10)
        for _ in range(300):
            with precision(tf32=tf32):
                if switches()[0] is not tf32:
                    wrong.append(tf32)
        done.append(tf32)

    threads = [threading.Thread(target=use, args=(i % 2 == 0,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == [False] * 3 + [True] * 3
    assert wrong == []
    assert not switches()[0]


def test_products_with_one_setting_run_at_the_same_time():
    meet = threading.Barrier(2)

    def use():
        with precision(tf32=False):
            meet.wait(10)

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not meet.broken
