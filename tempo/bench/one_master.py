"""`python -m tempo.bench.one_master FOLDER`, alone or under torchrun: one master of `tempo/bench/masters.py`.

It reads FOLDER/plan.json and writes FOLDER/SIZE-RANK.json. In this order:

    curve      the same steps of training on the same batches as plainly; all but the first are timed
    own part   of a step, by turns, the other masters idle and its workers still (tempo/bench/quiet.py)
    exchange   a tensor of the gradients' size summed round the ring, with nothing else under way

One master alone also trains plainly: in float32, in bfloat16 and in float64, which the allowance for the
losses is made of.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self, final

import msgspec
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tempo.bench.baselines import Step
from tempo.bench.crew import Crew
from tempo.bench.protected import Bench, Protected
from tempo.bench.timing import Repeats, Spread, timed
from tempo.bench.variant import Variant
from tempo.masters import Attested, join, traffic
from tempo.trust.vault import UnsafeSimulated
from tempo.wire import TlsFiles

PLAN: Final = "plan.json"
POLICY: Final = "policy.toml"
#: What a master says that it runs: there is no TEE here to say it.
MEASUREMENT: Final = bytes([7]) * 48
_CLASSES: Final = 10
_RATE: Final = 1e-3
#: What one master trains in without Tempo.
PLAIN: Final = ("fp32", "bf16", "fp64")
_EXCHANGES: Final = 5


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """rows: of a batch, of all masters together. layers of width x width, and one to the classes. steps: of
    the curve. repeats: of a master's own part. cores: of each master in turn; empty: they are not divided."""

    rows: int
    width: int
    layers: int
    steps: int
    repeats: int
    crew: str
    scheme: str
    arithmetic: str
    cores: Sequence[Sequence[int]]

    @property
    def flops(self) -> float:
        """Of a step's linear layers: forward, dX (but for the first layer) and dW."""
        return self.rows * self.width * (self.width * (6.0 * self.layers - 2) + 6.0 * _CLASSES)

    def write(self, folder: Path) -> None:
        (folder / PLAN).write_bytes(msgspec.json.encode(self))

    @classmethod
    def read(cls, folder: Path) -> Self:
        return msgspec.json.decode((folder / PLAN).read_bytes(), type=cls)


@final
@dataclass(frozen=True, slots=True)
class Trained:
    """losses: of every step; of all masters, once they are in `Found`. seconds: of all steps but the first.
    cpu_seconds: of this process, its workers' not counted, a step. sent, received: bytes to and from the
    other masters, a step."""

    losses: list[float]
    seconds: Spread
    cpu_seconds: float
    sent: float
    received: float


@final
@dataclass(frozen=True, slots=True)
class Found:
    """own_seconds: of a step on this master's rows, as tempo/bench/protected.py takes them. check_seconds:
    within them. bytes: to and from its workers, a step. exchange_seconds: of the gradients. checks, failed:
    of workers' replies. plain: by arithmetic, of one master alone."""

    trained: Trained
    own_seconds: float
    check_seconds: float
    bytes: float
    exchange_seconds: float
    checks: int
    failed: int
    plain: dict[str, Trained] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, size: int, rank: int) -> Self:
        return msgspec.json.decode((folder / f"{size}-{rank}.json").read_bytes(), type=cls)


def build(plan: Plan) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(plan.layers):
        layers += [nn.Linear(plan.width, plan.width), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(plan.width, _CLASSES))


def batch(plan: Plan, step: int, rank: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """This master's rows of batch `step`: x_RK, and labels that a linear map of x decides, to be learned."""
    draw = torch.Generator().manual_seed(1 + step)
    teacher = torch.randn(plan.width, _CLASSES, generator=torch.Generator().manual_seed(0))
    x = torch.randn(plan.rows, plan.width, generator=draw)
    mine = x.chunk(size)[rank]
    return mine.to(dtype), (mine @ teacher).argmax(1)


#: Bytes sent to and received from other masters so far.
Bytes = Callable[[], tuple[int, int]]


def train(
    plan: Plan,
    model: nn.Module,
    rank: int,
    size: int,
    arithmetic: str = "fp32",
    moved: Bytes = lambda: (0, 0),
) -> Trained:
    """arithmetic: fp32, fp64 or (under autocast) bf16."""
    dtype = torch.float64 if arithmetic == "fp64" else torch.float32
    model.to(dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    losses: list[float] = []
    seconds: list[float] = []
    cpu: list[float] = []
    for step in range(plan.steps):
        x, labels = batch(plan, step, rank, size, dtype)
        if step == 1:
            before = moved()
        start, began = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if arithmetic == "bf16" else nullcontext():
            loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - began)
        losses.append(loss.item())
    runs, after = plan.steps - 1, moved()
    return Trained(
        losses,
        Spread.of(seconds[1:]),
        cpu_seconds=sum(cpu[1:]) / runs,  # the batch, which every master draws as a whole, is no part of it
        sent=(after[0] - before[0]) / runs,
        received=(after[1] - before[1]) / runs,
    )


def main(folder: Path) -> None:
    plan = Plan.read(folder)
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    _settle(plan, rank)
    plain = {each: train(plan, build(plan), 0, 1, each) for each in PLAIN} if size == 1 else {}
    with _joined(folder, rank, size):
        found = replace(_protected(plan, rank, size), plain=plain)
    (folder / f"{size}-{rank}.json").write_bytes(msgspec.json.encode(found))


def _protected(plan: Plan, rank: int, size: int) -> Found:
    with Bench(Crew.parse(plan.crew), **Variant(plan.scheme, plan.arithmetic).options) as bench:
        model = bench.session.protect(build(plan))
        whole = model if size == 1 else DistributedDataParallel(model)
        trained = train(plan, whole, rank, size, moved=_moved if size > 1 else lambda: (0, 0))
        report = bench.session.report()
        bench.session.unprotect(model)
        own = _by_turns(plan, bench, rank, size)
    mean = torch.tensor(trained.losses, dtype=torch.float64)
    if size > 1:
        dist.all_reduce(mean, dist.ReduceOp.AVG)
    return Found(
        trained=replace(trained, losses=mean.tolist()),
        own_seconds=own.master.median,
        check_seconds=own.check_quiet,
        bytes=own.sent + own.received,
        exchange_seconds=_exchange(plan) if size > 1 else 0.0,
        checks=report.checks,
        failed=report.checks_failed,
    )


def _by_turns(plan: Plan, bench: Bench, rank: int, size: int) -> Protected:
    """A step on this master's rows, the update included, while the others wait for their turn."""
    model = build(plan)
    x, labels = batch(plan, 0, rank, size, torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    step = Step(model, x, loss=lambda y: F.cross_entropy(y, labels), after=optimizer.step)
    for turn in range(size):
        if turn == rank:
            found = bench.measure(step, Repeats(plan.repeats, plan.repeats, 0.0))
        if size > 1:
            dist.barrier()
    return found


def _exchange(plan: Plan) -> float:
    """Seconds: the median."""
    gradients = torch.ones(sum(parameter.numel() for parameter in build(plan).parameters()))
    seconds: list[float] = []
    for _ in range(_EXCHANGES):
        dist.barrier()
        seconds.append(timed(lambda: dist.all_reduce(gradients)))
    return Spread.of(seconds[1:]).median


def _settle(plan: Plan, rank: int) -> None:
    """This master and the workers that it starts stay on cores of their own, if there are enough."""
    if plan.cores:
        os.sched_setaffinity(0, plan.cores[rank])
        torch.set_num_threads(len(plan.cores[rank]))


@contextmanager
def _joined(folder: Path, rank: int, size: int) -> Iterator[None]:
    """As docs/masters.md says, but for evidence, which is simulated."""
    if size == 1:
        yield
        return
    attested = Attested(UnsafeSimulated(MEASUREMENT), folder / POLICY)
    join(_files(folder, f"tee-{rank}"), _files(folder, f"tee-{rank}-peer"), "127.0.0.1:0", attested)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _files(folder: Path, name: str) -> TlsFiles:
    return TlsFiles(folder / f"{name}.pem", folder / f"{name}.key", folder / "ca.pem")


def _moved() -> tuple[int, int]:
    so_far = traffic()
    return so_far.bytes_sent, so_far.bytes_received


if __name__ == "__main__":
    main(Path(sys.argv[1]))
