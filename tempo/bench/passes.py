"""Each pass of the master over one operand, ready to be timed, through the same seams as the engine.

Axes: G groups, R rows, K in-features, N out-features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import final

import torch
from torch import Tensor

from tempo.bench.timing import Repeats, Spread, Work, interleaved
from tempo.config import Config
from tempo.integrity import Checks, Verifier
from tempo.integrity.proof import ask_witness
from tempo.integrity.reading import Reading
from tempo.kernels import threads_for
from tempo.lowering.base import Lowering
from tempo.ops import Arithmetic, Job, Op, Operand, Unverified, product
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.rows import Selection
from tempo.secrecy.scheme import Scheme
from tempo.secrecy.seal import FeatureKey, RowKey, open_rows


@final
@dataclass(frozen=True, slots=True)
class Pass:
    """work: what is timed. prepare: what it needs before each run. touched: elements read or written, which
    the roofline counts; None where that says nothing (keys)."""

    work: Work
    touched: int | None
    prepare: Work | None = None

    def beside_copy(self, of: Tensor, repeats: Repeats) -> tuple[Spread, Spread]:
        """(seconds of the pass, seconds of a memcpy of this tensor), in turns."""
        copy = torch.empty_like(of)
        with threads_for(of.numel()):  # as the engine does
            took = interleaved(
                {"memcpy": lambda: copy.copy_(of), "pass": self.work},
                repeats,
                prepare={"pass": self.prepare} if self.prepare else None,
            )
        return took["pass"], took["memcpy"]

    def measured(self, elements: int, repeats: Repeats) -> Spread:
        """Seconds. elements: of the tensor, by which the engine chooses threads."""
        with threads_for(elements):  # as the engine does
            return interleaved(
                {"": self.work}, repeats, prepare={"": self.prepare} if self.prepare else None
            )[""]


@final
class Passes:
    """keys, encode and decode of X (G, R, K), and the check of Y = X W^T with N out-features."""

    def __init__(self, config: Config, groups: int, rows: int, k: int, n: int) -> None:
        self._key = SessionKey()
        self._scheme: Scheme = config.make_scheme()
        self._rows = (rows,) * groups
        self._verifier = Verifier(self._key, config.repetitions)
        self._numbers = count(1)
        self._features = FeatureKey(self._key, self._scheme, (0,), groups=groups, k=k, n=n)
        self._bases = self._row_key().bases()
        self._everything = Selection.everything(groups, rows)
        self._n = n
        self.x = torch.randn(groups, rows, k)

    def _row_key(self) -> RowKey:
        return RowKey(self._key, self._scheme, (next(self._numbers),), self._rows)

    def _seal(self, x_GRK: Tensor, out: Tensor) -> Tensor:
        b = self._features.b
        return self._row_key().seal_x(self._bases, b, x_GRK, self._everything, out=out)

    def _sealed(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory that was touched, as the pool's is."""
        return torch.zeros(sum(self._rows), self.x.shape[2], dtype=dtype)

    def keys(self) -> Pass:
        """The row bases of one operand, from the key: index lists and scales."""
        return Pass(lambda: self._row_key().bases(), None)

    def encode(self, dtype: torch.dtype = torch.float32) -> Pass:
        """dtype: in which the operand is sent."""
        out = self._sealed(dtype)
        return Pass(lambda: self._seal(self.x, out), self.x.numel() + out.nbytes // self.x.itemsize)

    def encode_lowered(self, lowering: Lowering, image: Tensor) -> Pass:
        """Layer input to encoded operand: Winograd or im2col, then the bases."""
        out = self._sealed()
        return Pass(lambda: self._seal(lowering.lower_x(image), out), image.numel() + self.x.numel())

    def decode(self) -> Pass:
        sealed, out = self._seal(self.x, self._sealed()), torch.zeros_like(self.x)
        bases, features = self._bases, self._features.b
        return Pass(lambda: open_rows(sealed, bases, features, self._everything, out), 2 * self.x.numel())

    def checks(self) -> dict[str, Pass]:
        """expect (projects X' and W'), accept (projects the true reply), and both."""
        sealed = self._seal(self.x, self._sealed())
        weight = torch.randn(len(self._rows), self._n, self.x.shape[2])
        job = Job(Op.PRODUCT, _operand(1, sealed), _operand(2, weight), self._rows)
        reply = product(sealed, weight, self._rows)
        expected: list[Checks] = []

        def expect() -> None:
            expected[:] = [self._verifier.begin()]
            expected[0].expect(job)

        def accept() -> None:
            expected[0].accept(job, Unverified(reply))

        def both() -> None:
            expect()
            accept()

        ahead, behind = sealed.numel() + weight.numel(), reply.numel()
        return {
            "check-expect": Pass(expect, ahead),
            "check-accept": Pass(accept, behind, expect),
            "check": Pass(both, ahead + behind),
        }

    def read_x(self) -> Pass:
        """What is taken of X' as sent, in one reading: for its product and, as a witness, for dW."""
        sealed, verifier = self._seal(self.x, self._sealed()), self._verifier
        width = sealed.shape[1]

        def read() -> None:
            reading = Reading(sealed, self._rows)
            asked = [
                ask_witness(reading, verifier.probe, width, self._rows, Arithmetic.FP32) for _ in range(2)
            ]
            reading.read()
            for taken in asked:
                taken()

        return Pass(read, sealed.numel())

    def read_dy(self) -> Pass:
        """What is taken of dY' as sent, in one reading: for dW and for dX."""
        sealed, verifier = self._seal(self.x, self._sealed()), self._verifier
        projection = torch.randn(sealed.shape[0], verifier.probe(1).shape[1], dtype=torch.float64)

        def read() -> None:
            reading = Reading(sealed, self._rows)
            taken = ask_witness(reading, verifier.probe, sealed.shape[1], self._rows, Arithmetic.FP32)
            down = reading.down(projection)
            reading.read()
            taken()
            reading.take(down)

        return Pass(read, sealed.numel())


def memcpys_per_element(
    config: Config, shape: tuple[int, int, int, int], repeats: Repeats, *, copy: float
) -> float:
    """m of the law for a product (G, R, K, N): the passes of one step over the elements they touch, in units
    of a copy into touched memory. copy: elements copied a second (b), the same that the law divides by.

    X and dX are K wide, Y and dY N wide; each is encoded or decoded once. The checks of a step read each of
    them once: X for its product and the witness, dY for dX and dW, the replies Y and dX. Neither keys nor
    anything over W is in it. The fastest runs count: the law is a bound.
    """
    groups, rows, k, n = shape
    seconds = 0.0
    for inner, outer, of_x in ((k, n, True), (n, k, False)):  # X and Y; dY and dX
        passes = Passes(config, groups, rows, inner, outer)
        checks, read = passes.checks(), passes.read_x() if of_x else passes.read_dy()
        for each, wide in (
            (passes.encode(), inner),
            (passes.decode(), inner),
            (read, inner),
            (checks["check-accept"], outer),
        ):
            seconds += each.measured(groups * rows * wide, repeats).low
    return copy * seconds / (2 * groups * rows * (k + n))


def guess_memcpys(
    configs: Iterable[Config], copy: float, typical: tuple[int, int, int, int] = (1, 4096, 512, 512)
) -> float:
    """For estimates of time alone: the largest m of these settings at a middling shape, and half as much
    again for what an engine does beside its passes."""
    once = Repeats(1, 1, 0.0)
    found = (memcpys_per_element(each, typical, once, copy=copy) for each in configs)
    return 1.5 * max(found, default=1.0)


def _operand(number: int, tensor: Tensor) -> Operand:
    return Operand(number, tuple(tensor.shape), tensor.dtype, tensor)
