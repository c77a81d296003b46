"""A worker that speaks the production protocol and lies on demand. Public: tests, the demo and anyone
who wants to see what the master does about it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import final

import torch
from torch import Tensor

from tempo.errors import UsageError
from tempo.ops import PRIMES
from tempo.wire import Compute, Evicted, Refused, Result, Ring, encode
from tempo.wire.frame import as_bytes, prefix
from tempo.worker.ahead import Connection
from tempo.worker.executor import Executor
from tempo.worker.server import send_result, serve


class LieKind(StrEnum):
    """What it answers instead of the result. The first group is well-formed, only a check finds it."""

    FLIP_ENTRY = "flip_entry"  # one entry with its sign flipped: of residues one residue of one entry
    SCALE = "scale"  # the whole result times 1.01: residues times 2
    SWAP = "swap"  # the latest result of another job (dX for dW), cut to length
    STALE = "stale"  # an older result of the same shape
    NAN = "nan"  # where the result is of bytes, 255: no residue
    INF = "inf"
    ZEROS = "zeros"

    WRONG_SHAPE = "wrong_shape"  # one row less
    WRONG_DTYPE = "wrong_dtype"  # another float
    WRONG_ID = "wrong_id"
    DUPLICATE = "duplicate"  # the right answer twice
    FALSE_EVICTED = "false_evicted"  # says it dropped an operand that this very job shipped
    REFUSE = "refuse"  # says that its device failed
    HUGE_CLAIM = "huge_claim"  # announces 10 GB
    HALF_FRAME = "half_frame"  # half an answer, then closes
    TRICKLE = "trickle"  # a byte now and then
    SILENCE = "silence"  # nothing, until the master gives up
    GARBAGE = "garbage"  # random bytes
    EXIT = "exit"  # the process dies


@dataclass(frozen=True, slots=True)
class Lie:
    """Lie about `count` jobs from job number `first` (counted from 0 on this worker) on."""

    kind: LieKind
    first: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Lie:
        """`KIND:FIRST:COUNT`, as on the command line."""
        try:
            kind, first, count = text.split(":")
            return cls(LieKind(kind), int(first), int(count))
        except ValueError:
            kinds = ", ".join(LieKind)
            raise UsageError(f"a lie is KIND:FIRST:COUNT with KIND one of {kinds}") from None

    def __str__(self) -> str:
        return f"{self.kind}:{self.first}:{self.count}"


#: Shape and dtype: a reply of another is no lie that only a check finds.
Form = tuple[tuple[int, ...], torch.dtype]


@final
class MaliciousWorker:
    """Serves one connection like `serve`, and lies as `lie` says."""

    def __init__(self, channel: Connection, executor: Executor, lie: Lie) -> None:
        self._channel = channel
        self._executor = executor
        self._lie = lie
        self._jobs = 0
        self._latest: dict[Form, Tensor] = {}  # what stale and swap draw from

    def serve(self) -> None:
        serve(self._channel, self._executor, self.answer)

    def answer(self, channel: Connection, request: Compute | Ring, result: Tensor) -> None:
        """Send a result, or the lie whose turn it is. What `serve` takes."""
        number, self._jobs = self._jobs, self._jobs + 1
        lie = self._lie
        if lie.first <= number < lie.first + lie.count:
            self._tell(lie.kind, channel, request, result)
        else:
            send_result(channel, request, result)
        if lie.kind in (LieKind.STALE, LieKind.SWAP):
            self._latest.pop(_form(result), None)
            self._latest[_form(result)] = result

    def _tell(self, kind: LieKind, channel: Connection, request: Compute | Ring, result: Tensor) -> None:
        forged = self._forge(kind, result)
        if forged is not None:
            return send_result(channel, request, forged)
        match kind:
            case LieKind.WRONG_ID:
                self._send(Result(request.job + 1), result)
            case LieKind.DUPLICATE:
                send_result(channel, request, result)
                send_result(channel, request, result)
            case LieKind.FALSE_EVICTED:
                named = (request.sent or request.parts)[0]
                self._send(Evicted(request.job, (named.id,)))
            case LieKind.REFUSE:
                self._send(Refused("failed", request.job))
            case LieKind.HUGE_CLAIM:
                self._raw(self._header(request, 10 << 30) + bytes(1 << 16))
            case LieKind.HALF_FRAME:
                body = bytes(as_bytes(result)) if result.numel() else b""
                self._raw(self._header(request, result.nbytes) + body[: len(body) // 2])
                channel.close()
            case LieKind.TRICKLE:
                for byte in self._header(request, result.nbytes) + bytes(min(result.nbytes, 1 << 16)):
                    self._raw(bytes([byte]))
                    time.sleep(0.05)
            case LieKind.SILENCE:
                channel.wait_until_closed()
            case LieKind.GARBAGE:
                self._raw(os.urandom(4096))
            case LieKind.EXIT:
                os._exit(1)
            case _:
                raise AssertionError(kind)

    def _forge(self, kind: LieKind, result: Tensor) -> Tensor | None:
        """A wrong tensor to send in good form, or None for lies about the form."""
        residues = result.dtype == torch.uint8
        match kind:
            case LieKind.FLIP_ENTRY:
                return _flipped(result)
            case LieKind.SCALE:
                return _doubled(result) if residues else result * 1.01
            case LieKind.NAN:
                return torch.full_like(result, 255 if residues else float("nan"))
            case LieKind.INF:
                return torch.full_like(result, 255 if residues else float("inf"))
            case LieKind.ZEROS:
                return torch.zeros_like(result)
            case LieKind.STALE:
                return self._latest.get(_form(result), result)
            case LieKind.SWAP:
                return self._swapped(result)
            case LieKind.WRONG_SHAPE:
                return result[:-1].contiguous() if result.numel() else result.new_ones(1)
            case LieKind.WRONG_DTYPE:
                return result.to(torch.float32 if result.dtype != torch.float32 else torch.float64)
            case _:
                return None

    def _swapped(self, result: Tensor) -> Tensor:
        others = [t for form, t in self._latest.items() if form[0] != tuple(result.shape) and t.numel()]
        other = (others or [result.flip(0)])[-1].reshape(-1).to(result.dtype)
        times = -(-result.numel() // max(1, other.numel()))
        return other.repeat(times)[: result.numel()].reshape(result.shape).contiguous()

    def _header(self, request: Compute | Ring, claim: int) -> bytes:
        header = encode(Result(request.job))
        return prefix(len(header), claim) + header

    def _send(self, message: Result | Evicted | Refused, *tensors: Tensor) -> None:
        self._channel.send(message, tensors, deadline=time.monotonic() + 60)

    def _raw(self, data: bytes) -> None:
        self._channel.send_raw(data, deadline=time.monotonic() + 60)


def _form(result: Tensor) -> Form:
    return tuple(result.shape), result.dtype


def _flipped(result: Tensor) -> Tensor:
    """The entry of the largest magnitude, with its sign flipped."""
    forged = result.clone()
    if not forged.numel():
        return forged
    if forged.dtype == torch.uint8:  # modulo the prime of its row
        flat = forged.view(len(PRIMES), -1)
        place = int(flat.argmax())
        row, column = divmod(place, flat.shape[1])
        flat[row, column] = (PRIMES[row] - int(flat[row, column])) % PRIMES[row] or 1
    else:
        forged.view(-1)[forged.abs().argmax()] *= -1
    return forged


def _doubled(residues: Tensor) -> Tensor:
    """Twice the integer, modulo each prime."""
    return torch.stack([(2 * row.int() % p).byte() for row, p in zip(residues, PRIMES, strict=True)])
