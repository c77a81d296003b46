"""The constants of a roofline, measured: copies, products in the TEE, the link, the workers.

A roofline must not be beaten, so each rate is that of the fastest run, at sizes where a call costs nothing
beside its work, and what is no transfer (a round trip, a product) is subtracted from a transfer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch

from tempo.bench import far
from tempo.bench.crew import Crew
from tempo.bench.link import link_rates
from tempo.bench.roofline import Constants
from tempo.bench.timing import Repeats, interleaved, measure
from tempo.fleet import Worker
from tempo.ops import Job

_REPEATS = Repeats(least=3, most=7, seconds=1.0)


@final
@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the calibration itself. copy: elements. side: of square products. transfer: bytes. outer: of a
    worker's product. inner: its two inner lengths, whose difference in time holds no transfer."""

    copy: int = 1 << 24
    side: int = 2048
    transfer: int = 16 << 20
    outer: int = 1024
    inner: tuple[int, int] = (1024, 4096)
    repeats: Repeats = _REPEATS


#: Quick, and still large enough that a rate is one.
SMALL = Sizes(side=1024, inner=(512, 2048), repeats=Repeats(3, 5, 0.2))
LARGE = Sizes(1 << 25, 4096, 64 << 20, 4096, (4096, 32768))  # for a GPU


def constants(crew: Crew, workers: Sequence[Worker], sizes: Sizes | None = None) -> Constants:
    """Of this machine and these workers, which must be free."""
    sizes = sizes or (Sizes() if crew.shared else LARGE)
    for worker in workers:
        worker.connect()
    link = link_rates(workers, sizes.transfer, sizes.repeats, bare=not crew.in_process)
    return Constants(
        copy=copy_rate(sizes.copy, sizes.repeats),
        tee_flops=tee_flops(sizes.side, sizes.repeats),
        up=link.up,
        down=link.down,
        alone=link.alone,
        round_trip=None if link.alone is None else 2 / (1 / link.up + 1 / link.down),
        worker_flops=worker_flops(workers, sizes),
        shared=crew.shared,
    )


def copy_rate(elements: int, repeats: Repeats) -> float:
    """float32 elements a second, into memory already touched."""
    source = torch.ones(elements)
    target = torch.empty_like(source)
    return elements / measure(lambda: target.copy_(source), repeats).low


def tee_flops(side: int, repeats: Repeats) -> dict[str, float]:
    """flop/s of a square product here, by arithmetic. bf16 is left out where the CPU only emulates it (a
    small product is slower than in float32 by half), since a large one would then take minutes."""
    a = torch.randn(side, side)
    small = torch.randn(256, 256)
    probe = interleaved(
        {"fp32": lambda: small @ small, "bf16": _product(small.bfloat16())}, Repeats(3, 5, 0.2)
    )
    works: dict[str, Callable[[], object]] = {"fp32": lambda: a @ a}
    if probe["bf16"].median < 1.5 * probe["fp32"].median:
        works["bf16"] = _product(a.bfloat16())
    return {name: 2 * side**3 / took.low for name, took in interleaved(works, repeats).items()}


def _product(a: torch.Tensor) -> Callable[[], object]:
    return lambda: a @ a


def worker_flops(workers: Sequence[Worker], sizes: Sizes) -> float:
    """flop/s of all workers at once, from two products that differ in their inner length alone."""
    short, long = (_square(sizes.outer, inner) for inner in sizes.inner)
    for job in (short, long):
        far.together(workers, lambda worker, job=job: far.run(worker, job, far.all_of(job)))  # type: ignore[misc]
    took = interleaved(
        {
            "short": lambda: far.together(workers, lambda worker: far.run(worker, short)),
            "long": lambda: far.together(workers, lambda worker: far.run(worker, long)),
        },
        sizes.repeats,
    )
    far.release(workers, short, long)
    return len(workers) * (long.flops - short.flops) / took["long"].beyond(took["short"])


def _square(outer: int, inner: int) -> Job:
    return far.product(torch.randn(outer, inner), torch.randn(1, outer, inner))
