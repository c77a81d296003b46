"""Whether a device computes what Tempo assumes, and whether a liar on it is caught.

Each check has a figure and what it may be at most. Bounds, for a row c = a B of a product with inner length K
(docs/numerics.md, section 2, and Higham, Accuracy and Stability of Numerical Algorithms, section 3.1):

    fp32   ||e|| <= sqrt(K) 2^-24 ||a|| ||B||
    tf32   ||e|| <= (K 2^-23 + 2 2^-10) ||a|| ||B||      operands lose 13 of 23 bits first
    bf16   ||e|| <= K 2^-23 ||a|| ||B|| + 2^-8 ||c||     of bfloat16 operands; the result is rounded once

Tensor cores may cut sums off instead of rounding them (Fasi, Higham, Mikaitis and Pranesh, PeerJ Computer
Science 7, 2021), so sums of tf32 and bf16 get the sound bound of twice the round-off, not a random walk's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tempo
from tempo.bench.crew import Crew
from tempo.bench.variant import Variant
from tempo.errors import TempoError
from tempo.fleet import ProcessWorker, Worker
from tempo.numerics import loss_tolerance
from tempo.ops import Op, compute, spans
from tempo.worker import Lie

Say = Callable[[str], None]

#: Rows of each group, K, N: equal groups (one batched product), ragged ones, one large one.
_SHAPES = (((64, 64), 96, 80), ((70, 0, 129), 200, 64), ((1024,), 512, 768))
#: Relative difference of a float64 run: ten digits of its sixteen, after a few steps of a small network.
_EXACT = 1e-9
_FP32, _TF32, _BF16 = 2.0**-24, 2.0**-10, 2.0**-8


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """measured and allowed are errors over their bound, unless detail says otherwise."""

    check: str
    passed: bool
    measured: float
    allowed: float
    detail: str

    def fields(self) -> dict[str, Any]:
        return asdict(self)


# ---- products ---------------------------------------------------------------------------------


def products(device: str) -> Iterator[Finding]:
    """Every op in float32, in TF32 where the device has it, and in bfloat16, against float64 here."""
    arithmetics = ["fp32", "bf16"] + (["tf32"] if _has_tf32(device) else [])
    for arithmetic in arithmetics:
        for op in Op:
            worst = max(_error(op, arithmetic, device, *shape) for shape in _SHAPES)
            detail = "largest error of a row over its bound"
            yield Finding(f"{op.value} in {arithmetic} on {device}", worst <= 1.0, worst, 1.0, detail)
    for op in Op:
        # A bound that coarser arithmetic meets too would prove nothing.
        least = min(_error(op, "rounded", device, *shape) for shape in _SHAPES)
        detail = "operands rounded to bfloat16 must break the float32 bound"
        yield Finding(f"the bound of {op.value} has teeth", least > 1.0, least, 1.0, detail)


def _has_tf32(device: str) -> bool:
    return device.startswith("cuda") and torch.cuda.get_device_capability(device)[0] >= 8


@contextmanager
def _arithmetic(name: str) -> Iterator[None]:
    """As a worker computes: TF32 only where it is asked for, sums in float32 always."""
    cuda = torch.backends.cuda.matmul
    before = torch.get_float32_matmul_precision(), cuda.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    cuda.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cuda.allow_bf16_reduced_precision_reduction = before[1]


def _error(op: Op, arithmetic: str, device: str, rows: tuple[int, ...], k: int, n: int) -> float:
    """Largest ||e|| of a row over its bound."""
    generator = torch.Generator().manual_seed(1)
    total = sum(rows)
    x, dy = (torch.randn(total, width, generator=generator) for width in (k, n))
    w = torch.randn(len(rows), n, k, generator=generator)
    left, right = {Op.PRODUCT: (x, w), Op.GRAD_X: (dy, w), Op.GRAD_W: (dy, x)}[op]
    if arithmetic == "bf16":  # what is sent is bfloat16: its rounding is no error of the worker
        left, right = left.bfloat16(), right.bfloat16()
    exact = compute(op, left.double(), right.double(), rows)
    if arithmetic == "rounded":
        left, right = left.bfloat16().float(), right.bfloat16().float()
    with torch.no_grad(), _arithmetic(arithmetic):
        found = compute(op, left.to(device), right.to(device), rows).cpu().double()
    worst = 0.0
    for e, c, a, b, inner in _rows(op, found - exact, exact, left.double(), right.double(), rows):
        size = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b)
        coarse = arithmetic in ("tf32", "bf16")
        bound = (2 * inner if coarse else inner**0.5) * _FP32 * size
        if arithmetic == "tf32":
            bound += 2 * _TF32 * size
        if arithmetic == "bf16":
            bound += _BF16 * torch.linalg.vector_norm(c, dim=1)
        worst = max(worst, float((torch.linalg.vector_norm(e, dim=1) / bound).max()))
    return worst


def _rows(
    op: Op, error: Tensor, exact: Tensor, left: Tensor, right: Tensor, rows: tuple[int, ...]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, int]]:
    """Group by group: errors and results by row, the rows a, the matrix B, the inner length."""
    for g, (lo, hi) in enumerate(spans(rows)):
        if hi == lo:
            continue
        if op is Op.GRAD_W:
            yield error[g], exact[g], left[lo:hi].T, right[lo:hi], hi - lo
        else:
            yield error[lo:hi], exact[lo:hi], left[lo:hi], right[g], left.shape[1]


# ---- training ---------------------------------------------------------------------------------


def network() -> nn.Module:
    """A convolution by Winograd and two linear layers, without kinks."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(64, 64, 3, padding=1), nn.SiLU(), nn.AvgPool2d(4), nn.Flatten(),
        nn.Linear(64 * 4, 128), nn.SiLU(), nn.Linear(128, 10),
    )  # fmt: skip


#: That a small network is trained in.
DTYPES = (torch.float64, torch.float32)


def training(
    crew: Crew, variants: Sequence[Variant], steps: int, dtypes: Sequence[torch.dtype] = DTYPES
) -> Iterator[Finding]:
    """A small network trains as plainly: in float64 to its last digits, in float32 within the derived bound.
    No check of an honest device fails."""
    exact, exact_moved = _train(network().double(), steps)
    plain, _ = _train(network(), steps)
    for variant in variants:
        for dtype in dtypes:
            if dtype == torch.float64 and variant.arithmetic != "fp32":
                continue
            name = f"training, {variant}, {str(dtype).removeprefix('torch.')}, {crew}"
            with tempo.Session(list(crew.start()), **variant.options) as session:
                losses, moved = _train(session.protect(network().to(dtype)), steps)
                report = session.report()
            sent = report.bytes_sent > 0 and report.local_fallbacks == 0
            clean = report.checks > 0 and report.checks_failed == 0
            detail = f"{report.checks} checks, {report.checks_failed} failed"
            detail += "" if sent else ", NOT offloaded"
            if variant.arithmetic != "fp32":  # coarser by choice: its checks are what is asked here
                yield Finding(name, sent and clean, float(report.checks_failed), 0.0, detail)
                continue
            if dtype == torch.float64:
                far = _distance(moved, exact_moved)
                what = f"how far parameters moved, relative difference; {detail}"
                yield Finding(name, sent and clean and far <= _EXACT, far, _EXACT, what)
                continue
            allowed = loss_tolerance(plain, exact)
            share = max(abs(a - b) / c for a, b, c in zip(losses, plain, allowed, strict=True))
            yield Finding(
                name, sent and clean and share <= 1.0, share, 1.0, f"loss difference over its bound; {detail}"
            )


def _train(model: nn.Module, steps: int) -> tuple[list[float], list[Tensor]]:
    """Losses, and how far each parameter moved."""
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    dtype = next(model.parameters()).dtype
    losses = []
    for _ in range(steps):
        x, y = _batch(generator, dtype)
        loss = F.cross_entropy(model(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses, [p.detach() - s for p, s in zip(model.parameters(), start, strict=True)]


def _distance(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Largest relative difference of a tensor, 2-norm."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True))


def _batch(generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = torch.randn(128, 64, 8, 8, generator=generator)
    return x.to(dtype), torch.randint(10, (128,), generator=generator)


# ---- liars ------------------------------------------------------------------------------------

#: Every lie that only a check finds; told from the first job on, or (":2") in the backward pass.
LIES = ("scale:0", "flip_entry:2", "zeros:0", "nan:2", "inf:0", "swap:2")


def liars(device: str, lies: Sequence[str]) -> Iterator[Finding]:
    """A worker process on the device that lies: it is caught, and no parameter moves. Beside an honest one,
    training goes on as if it had not been there."""
    for lie in lies:
        worker = ProcessWorker("liar", device=device, threads=1, unsafe_lie=Lie.parse(f"{lie}:1000000"))
        refused, changed = _alone([worker])
        detail = f"{refused} false replies refused, {changed} parameters moved"
        passed = refused > 0 and changed == 0
        yield Finding(f"liar ({lie}) on {device} is caught", passed, float(changed), 0.0, detail)
    pair: list[Worker] = [
        ProcessWorker("liar", device=device, threads=1, unsafe_lie=Lie.parse(f"{lies[0]}:1000000")),
        ProcessWorker("honest", device=device, threads=1),
    ]
    steps = 3
    _, exact = _train(network().double(), steps)
    with tempo.Session(pair) as session:
        _, moved = _train(session.protect(network().double()), steps)
        report = session.report()
    worst = _distance(moved, exact)
    right = worst <= _EXACT and report.quarantined == ["liar"]
    caught = ", ".join(report.quarantined) or "nobody"
    detail = f"how far parameters moved, relative difference; quarantined: {caught}"
    yield Finding(f"training beside a liar on {device}", right, worst, _EXACT, detail)


def _alone(workers: Sequence[Worker]) -> tuple[int, int]:
    """(false replies refused, parameters that moved) in a step that must not come to its end."""
    model = network()
    before = copy.deepcopy(model.state_dict())
    with tempo.Session(list(workers), local_fallback=False) as session:
        session.protect(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        try:
            x, y = _batch(torch.Generator().manual_seed(3), torch.float32)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        except TempoError:
            pass
        caught = session.report().checks_failed
        session.unprotect(model)
    moved = sum(not torch.equal(before[name], value) for name, value in model.state_dict().items())
    return caught, moved
