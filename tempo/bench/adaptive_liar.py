"""A liar that learns: it knows the bound, the arithmetic, the number of probes, everything but the keys, is
told of every reply whether it was accepted, and searches for the largest lie that is not found.

What there would be to learn is r: a lie orthogonal to every probe passes whatever its size. Lies of a few
tolerances in random directions pass the oftener the less they have of r, so the directions in which accepted
ones vary least are those of the probes, were they used again:

    C = mean of g g^T over accepted lies g          the P least eigenvectors of C are the span of r_1 ... r_P

It lies off these directions then, ever larger while it is accepted, and smaller again when it is not; and now
and then it gambles on a lie of any size. With a fresh r for every reply there is nothing to find, and an
accepted lie was luck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from tempo.bench.arithmetics import FORMS, answer, job_of, sizes
from tempo.bench.budget import Budget
from tempo.bench.liar import added, tolerance
from tempo.bench.operands import Shape, normal, pair_of
from tempo.bench.result import Result
from tempo.errors import IntegrityError
from tempo.integrity import Verifier
from tempo.integrity.guarantee import guarantee, probes_for, size_found
from tempo.ops import Arithmetic, Job, Op, Unverified
from tempo.secrecy.keys import SessionKey

Say = Callable[[str], None]

#: Share of the lies that ask which shall be accepted: those have told something.
_ASKED: Final = 0.25
#: Accepted questions before it first lies off what it learnt, for each direction there is.
_ENOUGH: Final = 20
#: Growth of its lie after an accepted one, and what is left of it after a refused one.
_GROW, _SHRINK = 1.25, 0.8
#: An accepted lie in the direction of the last one is repeated, larger, as often as this.
_REPEAT: Final = 0.25
#: Share of the rounds that are gambles, and the largest of them, in tolerances.
_GAMBLES: Final = 0.2
_LARGEST: Final = 1e4


@final
class Searcher:
    """Proposes lies D of one row of `outer` entries, in tolerances, and is told what became of them."""

    def __init__(self, outer: int, probes: int, seed: int) -> None:
        self._g = torch.Generator().manual_seed(seed)
        self._outer, self._probes = outer, probes
        self._moments = torch.zeros(outer, outer, dtype=torch.float64)
        self._accepted = 0
        self._off: Tensor | None = None  # (outer, outer - probes): off the probes, as far as is known
        self._asking = size_found(_ASKED, probes)
        self._size = self._asking
        self._last: Tensor | None = None  # the direction that passed last
        self._asks = self._gambles = False
        self._proposed = torch.zeros(outer, dtype=torch.float64)

    def propose(self) -> Tensor:
        """(outer,), a lie in tolerances."""
        self._gambles = self._chance(_GAMBLES)
        self._asks = not self._gambles and (self._off is None or self._chance(0.5))
        if self._gambles:
            size = _LARGEST ** float(torch.rand(1, generator=self._g))
            self._proposed = size * self._unit(self._outer)
        elif self._off is None or self._asks:
            self._proposed = self._asking * self._unit(self._outer)
        else:
            again = self._last is not None and self._chance(_REPEAT)
            direction = self._last if again else self._off @ self._unit(self._off.shape[1])
            assert direction is not None, "a lie that is repeated was told"
            self._proposed = self._size * direction
        return self._proposed

    def told(self, accepted: bool) -> None:
        if self._asks and accepted:
            self._learn(self._proposed / self._asking)
        if self._asks or self._gambles:
            return
        self._size = max(1.0, self._size * (_GROW if accepted else _SHRINK))
        self._last = self._proposed / torch.linalg.vector_norm(self._proposed) if accepted else None

    def _learn(self, g: Tensor) -> None:
        self._moments += torch.outer(g, g)
        self._accepted += 1
        if self._accepted >= _ENOUGH * self._outer and self._accepted % self._outer == 0:
            self._off = torch.linalg.eigh(self._moments).eigenvectors[:, self._probes :]

    def _chance(self, probability: float) -> bool:
        return float(torch.rand(1, generator=self._g)) < probability

    def _unit(self, length: int) -> Tensor:
        g = torch.randn(length, generator=self._g, dtype=torch.float64)
        return g.div_(torch.linalg.vector_norm(g))


@final
@dataclass(frozen=True, slots=True)
class Search:
    """What came of a search. largest: of the lies that were accepted, in tolerances; relative: the same,
    relative to what `Guarantee.of_row` is. above: rounds with a lie above the threshold, passed: of them."""

    rounds: int
    refused: int
    largest: float
    relative: float
    above: int
    passed: int


def search(job: Job, verifier: Verifier, searcher: Searcher, *, rounds: int, threshold: float) -> Search:
    """Lie about one row of the reply to the same job again and again; each time its operands are checked
    anew, by what checks them in a session. threshold: in tolerances."""
    true = answer(job, FORMS[0].rounds)
    row = int(torch.linalg.vector_norm(true.reshape(-1, true.shape[-1]), dim=1).argmax())
    allowed = float(tolerance(job, true)[row])
    size = float(sizes(job)[1][row])
    refused, largest, above, passed = 0, 0.0, 0, 0
    for _ in range(rounds):
        d = searcher.propose()
        moved = float(torch.linalg.vector_norm(d))
        lie = torch.zeros(true.numel() // true.shape[-1], true.shape[-1], dtype=torch.float64)
        lie[row] = allowed * d
        checks = verifier.begin()
        checks.expect(job)
        try:
            checks.accept(job, Unverified(added(true, lie)))
            accepted = True
        except IntegrityError:
            accepted = False
        searcher.told(accepted)
        refused += not accepted
        above += moved >= threshold
        passed += accepted and moved >= threshold
        if accepted:
            largest = max(largest, moved)
    return Search(rounds, refused, largest, largest * allowed / size, above, passed)


#: Of the product that is lied about.
_SHAPE: Final = Shape("", (4,), 256, 32)


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """misses: t, each with as many probes as the setting `integrity` takes."""

    rounds: int = 20_000
    misses: tuple[float, ...] = (1e-2, 1e-3, 1e-6)
    shape: Shape = _SHAPE


def run(settings: Settings, result: Result, budget: Budget, say: Say) -> None:
    g = torch.Generator().manual_seed(4)
    shape = settings.shape
    for miss in settings.misses:
        probes = probes_for(miss)
        what = f"a liar that learns, {settings.rounds:,} rounds, integrity = {miss:g}, {probes} probes"
        if not budget.fits(what, 5e-4 * settings.rounds):
            continue
        say(f"integrity: {what}")
        job = job_of(Op.PRODUCT, *pair_of(Op.PRODUCT, shape, normal, g), shape.rows, FORMS[0])
        stated = guarantee(
            Op.PRODUCT,
            torch.float32,
            torch.float32,
            Arithmetic.FP32,
            inner=shape.k,
            outer=shape.n,
            probes=probes,
            miss=miss,
        )
        norms, _ = sizes(job)
        true = answer(job, FORMS[0].rounds)
        threshold = float((stated.of_norms * norms / tolerance(job, true)).amin())
        searcher = Searcher(shape.n, probes, seed=probes)
        found = search(
            job, Verifier(SessionKey(), probes), searcher, rounds=settings.rounds, threshold=threshold
        )
        result.add(
            op=Op.PRODUCT.value,
            dtype="float32",
            tamper="adaptive",
            relative_size=found.relative,
            trials=found.above,
            detected=found.above - found.passed,
            shape=shape.text,
            operands="normal",
            probes=probes,
            tolerances=found.largest,
            threshold=threshold,
            rounds=found.rounds,
        )
        result.note(
            f"adaptive, {probes} probes: {found.refused:,} of {found.rounds:,} lies were refused. "
            "relative_size and tolerances are of the largest that was not; trials, detected of those above "
            "the threshold"
        )
        if found.passed > miss * found.above + 4 * (miss * found.above) ** 0.5 + 1:
            result.broken.append(f"{what}: {found.passed} of {found.above} lies above the threshold passed")
