"""Times what the TEE does by itself: copies, products, convolutions, and the work between them."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tempo.plan.fit import non_negative, seconds_of
from tempo.plan.machine import Plain, Tee
from tempo.plan.other import OtherWork
from tempo.plan.passes import random_like

#: Seconds within which the next larger product must be expected to end.
_PATIENCE_S = 0.5


def measure_tee() -> Tee:
    threads = torch.get_num_threads()
    rates = {"float32": _fastest_matmul(torch.float32), "bfloat16": _fastest_matmul(torch.bfloat16)}
    return Tee(
        cpu=_cpu(),
        threads=threads,
        memcpy_elements_per_second=_memcpy(),
        matmul_flops_per_second=rates,
        plain={"linear": _linear(), "conv": _convolution(), "bmm": _batched()},
        other_element_seconds=_other(),
    )


def _memcpy() -> float:
    """float32 elements copied per second into memory already touched, larger than any cache."""
    x = random_like(1 << 24)
    copy = torch.empty_like(x)
    return x.numel() / seconds_of(lambda: copy.copy_(x), repeats=9, enough_s=0.2)


def _fastest_matmul(dtype: torch.dtype) -> float:
    """Best flop per second over square products of growing size."""
    best, size = 0.0, 256
    while size <= 2048:
        a = random_like(size, size).to(dtype)
        out = torch.empty_like(a)
        seconds = seconds_of(lambda a=a, out=out: torch.mm(a, a, out=out))  # type: ignore[misc]
        best = max(best, 2 * size**3 / seconds)
        if 4 * 8 * seconds > _PATIENCE_S:  # four runs of eight times the work
            break
        size *= 2
    return best


def _linear() -> Plain:
    cases = [(256, 256, 256), (2048, 256, 256), (1024, 768, 1024)]
    taken = []
    for rows, k, n in cases:
        x, w = random_like(rows, k).requires_grad_(), random_like(n, k).requires_grad_()
        taken.append(seconds_of(lambda x=x, w=w: _step(F.linear(x, w), x, w)))  # type: ignore[misc]
    return _plain([6.0 * rows * k * n for rows, k, n in cases], taken)


def _convolution() -> Plain:
    cases = [(4, 64, 14), (8, 64, 28), (4, 256, 14)]
    taken = []
    for batch, channels, side in cases:
        x = random_like(batch, channels, side, side).requires_grad_()
        w = random_like(channels, channels, 3, 3).requires_grad_()
        taken.append(seconds_of(lambda x=x, w=w: _step(F.conv2d(x, w, padding=1), x, w)))  # type: ignore[misc]
    return _plain([6.0 * b * c * c * 9 * s * s for b, c, s in cases], taken)


def _batched() -> Plain:
    cases = [(8, 64, 64), (48, 128, 64)]
    taken = []
    for groups, rows, k in cases:
        a, b = random_like(groups, rows, k).requires_grad_(), random_like(groups, k, rows).requires_grad_()
        taken.append(seconds_of(lambda a=a, b=b: _step(a @ b, a, b)))  # type: ignore[misc]
    return _plain([6.0 * g * r * k * r for g, r, k in cases], taken)


def _step(y: Tensor, *operands: Tensor) -> None:
    torch.autograd.grad(y, operands, torch.ones_like(y))


def _plain(flops: list[float], taken: list[float]) -> Plain:
    """Three products a step: forward and two gradients."""
    call, flop = non_negative([(3.0, each) for each in flops], taken)
    # Where calls seem to be all of it, the largest case bounds the flops.
    return Plain(call_seconds=call, flop_seconds=flop or taken[-1] / flops[-1])


def _other() -> float:
    x = random_like(2048, 512).requires_grad_()
    scale, shift = torch.ones(512, requires_grad=True), torch.zeros(512, requires_grad=True)

    def forward() -> Tensor:
        y = F.gelu(F.layer_norm(x, (512,), scale, shift))
        return F.relu(x + y)

    with OtherWork() as counter:
        forward()
    elements: int = max(1, counter.elements)
    return seconds_of(lambda: _step(forward(), x, scale, shift)) / elements


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return os.uname().machine
