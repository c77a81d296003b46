"""What a product needs besides operands and result, against what the allocator hands out."""

import itertools

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tempo.ops import Arithmetic, Op, compute, devices, temporary_bytes

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
SHAPES = {
    Op.PRODUCT: ((640, 96), (2, 48, 96)),
    Op.GRAD_X: ((640, 48), (2, 48, 96)),
    Op.GRAD_W: ((640, 48), (640, 96)),
}
ROWS = (320, 320)
CASES = [
    *((F32, F32, arithmetic) for arithmetic in Arithmetic),
    (F64, F64, Arithmetic.FP32),
    (BF16, BF16, Arithmetic.FP32),
    (BF16, F32, Arithmetic.FP32),
    (F32, BF16, Arithmetic.FP32),
]


def peak(run):
    """Most bytes at once, over those before, that `run` takes from PyTorch's CPU allocator."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        run()
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


@pytest.mark.parametrize(("left", "right", "arithmetic"), CASES)
@pytest.mark.parametrize("op", Op)
def test_the_bytes_are_those_that_the_allocator_hands_out(op, left, right, arithmetic):
    specs = [(shape, dtype) for shape, dtype in zip(SHAPES[op], (left, right), strict=True)]
    a, b = (torch.ones(shape, dtype=dtype) for shape, dtype in specs)
    result = compute(op, a, b, ROWS, arithmetic)
    claimed = temporary_bytes(op, *specs, ROWS, arithmetic, device="cpu")
    measured = peak(lambda: compute(op, a, b, ROWS, arithmetic))
    # The result is counted apart; where only copies are large it is not there at the same moment.
    assert claimed <= measured <= claimed + result.nbytes


def test_on_cuda_narrow_operands_stay_narrow(monkeypatch):
    monkeypatch.setattr(devices, "_WIDENS", True)
    specs = [(shape, F32) for shape in SHAPES[Op.PRODUCT]]
    n = 640 * 96 + 2 * 48 * 96
    assert temporary_bytes(Op.PRODUCT, *specs, ROWS, Arithmetic.BF16, device="cuda") == 2 * n
    assert temporary_bytes(Op.PRODUCT, *specs, ROWS, Arithmetic.TF32, device="cuda") == 0
    narrow = [(shape, BF16) for shape, _ in specs]
    assert temporary_bytes(Op.PRODUCT, *narrow, ROWS, Arithmetic.FP32, device="cuda") == 0
    monkeypatch.setattr(devices, "_WIDENS", False)
    assert temporary_bytes(Op.PRODUCT, *specs, ROWS, Arithmetic.BF16, device="cuda") == 6 * n


@pytest.mark.parametrize(("left", "right", "arithmetic"), CASES)
@pytest.mark.parametrize("rows", [ROWS, (600, 40), (0, 640)])
@pytest.mark.parametrize("op", Op)
def test_a_result_goes_where_it_is_told_and_is_the_same(op, rows, left, right, arithmetic):
    """Bit for bit, whatever lay there before; where it is rounded at the end, memory is not asked for."""
    a, b = (
        torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
        for seed, (shape, dtype) in enumerate(zip(SHAPES[op], (left, right), strict=True))
    )
    given = []

    def empty(shape, dtype):
        given.append(torch.full(shape, float("nan"), dtype=dtype))
        return given[-1]

    expected = compute(op, a, b, rows, arithmetic)
    found = compute(op, a, b, rows, arithmetic, empty)
    assert torch.equal(found, expected)
    assert [each.data_ptr() for each in given] in ([], [found.data_ptr()])
    assert given or found.dtype == BF16
