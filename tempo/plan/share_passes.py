"""Times the master's passes of the scheme `shares`, by the functions that its engine calls.

    encode    to integers, and those to shares: two keystreams, the last share by residues
    check     one projection of an operand's integers modulo 2^61 - 1
    decode    three replies added up, the projection of their integers, and these unscaled

Where a scheme of bases has keys, features and a centre, this one has nothing: its seeds are in `encode`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from tempo.integrity.exact import ExactVerifier
from tempo.integrity.mersenne import draw, results_times
from tempo.kernels import threads_for
from tempo.ops import PRIMES
from tempo.plan.fit import cost, seconds_of
from tempo.plan.machine import Cost, Pass, Passes
from tempo.plan.passes import SHAPES, Shape, Work, random_like
from tempo.secrecy.chinese import whole
from tempo.secrecy.fixed import HALF, fixed_rows, values_of
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.rows import row_norms
from tempo.secrecy.shares import REPLICATED, ShareKey

_FREE = Cost(call_seconds=0.0, group_seconds=0.0, row_seconds=0.0, element_seconds=0.0)
_NONE = ("keys", "features", "centre")


def measure_share_passes() -> Passes:
    """In two or three seconds on two cores."""
    key, labels = SessionKey(), itertools.count()
    measured: dict[str, dict[str, Cost]] = {name: {} for name in _NONE}
    for regime, (shapes, threads) in SHAPES.items():
        taken: dict[str, list[float]] = {}
        for shape in shapes:
            with threads_for(threads):
                for name, work in _works(key, labels, shape).items():
                    taken.setdefault(name, []).append(seconds_of(work))
        amounts = [(groups, 0.0, groups * rows * width) for groups, rows, width in shapes]
        for name, seconds in taken.items():
            measured.setdefault(name, {})[regime] = cost(amounts, seconds)
        for name in _NONE:
            measured[name][regime] = _FREE
    return Passes(**{name: Pass(**regimes) for name, regimes in measured.items()})


def _works(key: SessionKey, labels: Iterator[int], shape: Shape) -> dict[str, Work]:
    groups, rows, width = shape
    x_GRF, counts = random_like(*shape), [rows] * groups
    x_TF = x_GRF.view(-1, width)
    partners = torch.full((groups,), float(HALF) ** 0.5, dtype=torch.float64)
    verifier = ExactVerifier(key)
    integers = fixed_rows(x_TF, counts, partners, summed=True)
    replies = [
        torch.randint(0, 229, (len(PRIMES), *x_TF.shape), dtype=torch.uint8) for _ in range(REPLICATED)
    ]
    probe = draw(key.stream(("probe", next(labels))), width)

    def encode() -> None:
        shared = fixed_rows(x_TF, counts, partners, summed=True)
        ShareKey(key, ("plan", next(labels)), REPLICATED).split(shared)

    def decode() -> None:
        result = whole(replies)
        results_times(result, probe, HALF)
        values_of(result, integers.exponents, torch.float32)

    return {
        "encode": encode,
        "check": lambda: verifier.witness(integers),
        "decode": decode,
        "scan": lambda: row_norms(x_GRF),
    }
