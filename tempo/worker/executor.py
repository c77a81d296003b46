"""Runs jobs on a torch device. A job takes three steps, since its operands arrive after the first and
its result leaves after the second:

missing = executor.admit(request)          checks everything, makes room, allocates nothing
result  = executor.run(request, shipped)   computes, keeps what is to be kept
executor.done(request)                     operands and result are gone: their room is free

The next request may be admitted while one runs. What an open request (admitted, not done) refers to or
will keep is neither evicted nor released before it was run, and its room is counted until it is done.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import final

import torch
from torch import Tensor

from tempo.errors import TempoError, UsageError
from tempo.ops import Allocate, Op, compute, ring_compute, ring_temporary_bytes, temporary_bytes
from tempo.wire import DTYPES, Compute, Part, Ring, RingPart, limits, nbytes
from tempo.worker.store import OperandStore
from tempo.worker.transfers import Download, transfers_for


class Gone(TempoError):
    """Operands that were here or on their way when the job was admitted, and never came: the job that
    shipped them failed."""

    def __init__(self, ids: tuple[int, ...]) -> None:
        super().__init__("operands of the job never came")
        self.ids = ids


class TooLarge(TempoError):
    """The job is sound, but does not fit the memory that this worker may use."""


class Unsupported(TempoError):
    """The job is sound, but this device has no products in a dtype of its operands."""


@final
class Executor:
    """One device and the operands kept on it. One thread may admit while another runs.

    memory: bytes of operands, results and what products need besides, at any moment; what is kept makes
    room for what is needed.
    """

    def __init__(self, device: str | torch.device, memory: int) -> None:
        self.device = torch.device(device)
        self._transfers = transfers_for(self.device)
        self._memory = memory
        self.store = OperandStore(memory, limits.MAX_OPERANDS)
        #: In which this device multiplies.
        self.dtypes = tuple(name for name, dtype in DTYPES.items() if _multiplies(self.device, dtype))
        self._lock = threading.RLock()  # guards the store and the six below
        self._reserved: dict[int, int] = {}  # bytes of open requests that are not in the store, by id()
        self._temporary: dict[int, int] = {}  # bytes their products need besides until they ran, by id()
        self._names: dict[int, set[int]] = {}  # what open requests refer to or will keep, by id()
        self._pins: Counter[int] = Counter()  # the same, counted
        self._coming: dict[int, Part | RingPart] = {}  # operands that open requests ship and will keep
        self._doomed: set[int] = set()  # released while pinned

    def set_aside(self, share: float) -> int:
        """Bytes of this executor's memory that the caller may use, which takes nothing else of it. Asked
        again it gives the same bytes, not more."""
        idle = int(share * self._memory)
        with self._lock:
            self.store.max_bytes = self._memory - idle
        return idle

    def admit(self, request: Compute | Ring) -> tuple[int, ...]:
        """Check a request before any of its bytes is stored, and make room for it.

        Returns the ids it refers to that are no longer here; with any, the job cannot be run. With none
        the request is open until `done`.
        Raises UsageError for a request that breaks a rule, TooLarge for one that does not fit,
        Unsupported for one in a dtype that the device does not multiply.
        """
        result = nbytes(*request.result)
        left, right = request.parts
        if left.id == right.id and (right.sent or not right.refers_to(left)):
            raise UsageError("an operand is sent once, and has one shape and dtype")
        if isinstance(request, Compute) and not {part.dtype for part in request.parts} <= set(self.dtypes):
            raise Unsupported("this device does not multiply operands of such a dtype")
        with self._lock:
            return self._admit(request, result)

    def _besides(self, request: Compute | Ring) -> int:
        """Bytes that its product needs besides operands and result. Raises UsageError."""
        left, right = (part.shape for part in request.parts)
        op, rows = request.operation, request.rows
        match request:
            case Compute():
                one, other = (left, DTYPES[request.left.dtype]), (right, DTYPES[request.right.dtype])
                return temporary_bytes(op, one, other, rows, request.allowed, device=self.device.type)
            case Ring():
                halves = self._halves(request.left)
                if halves != self._halves(request.right):
                    raise UsageError("operands of one and of two shares do not go together")
                return ring_temporary_bytes(op, left, right, rows, halves, device=self.device)

    def _halves(self, part: RingPart) -> int:
        """Shares of an operand that is shipped, on its way or here."""
        for sent in (part, self._coming.get(part.id)):
            if isinstance(sent, RingPart) and sent.sent:
                return len(sent.halves)
        stored = self.store.get(part.id)
        return 0 if stored is None else len(stored)

    def _admit(self, request: Compute | Ring, result: int) -> tuple[int, ...]:
        sent = {part.id for part in request.sent}
        referred = [part for part in request.parts if part.id not in sent]
        missing = tuple({part.id: None for part in referred if not self._holds(part)})
        if missing:
            return missing
        temporary = self._besides(request)
        if result > limits.MAX_PAYLOAD:
            raise TooLarge("the result does not fit a frame")
        kept = {part.id for part in referred}
        # Operands sent again replace their older copies: those may go first.
        self.release(sent)
        need = request.room + result
        # One product at a time: the largest temporaries count, not all.
        room = sum(self._reserved.values()) + need + max([temporary, *self._temporary.values()])
        if not self.store.make_room(room, len(sent) + len(self._coming), kept | self._pins.keys()):
            raise TooLarge("the job does not fit the memory of this worker")
        self._reserved[id(request)] = need
        self._temporary[id(request)] = temporary
        self._names[id(request)] = names = {part.id for part in request.parts if part.keep or not part.sent}
        self._pins.update(names)
        for part in request.sent:
            if part.keep:
                self._coming[part.id] = part
                self._doomed.discard(part.id)
        return ()

    def run(
        self, request: Compute | Ring, shipped: Mapping[int, Tensor], empty: Allocate | None = None
    ) -> Tensor:
        """The result, on the CPU. Call it only after `admit` found nothing missing. empty: as for `compute`.
        Raises Gone."""
        return self.start(request, shipped, empty).wait()

    def start(
        self, request: Compute | Ring, shipped: Mapping[int, Tensor], empty: Allocate | None = None
    ) -> Download:
        """As `run`, but on a GPU the copies and the product are only queued when it returns."""
        try:
            return self._start(request, shipped, empty)
        finally:
            self._let_go(request)

    def _start(
        self, request: Compute | Ring, shipped: Mapping[int, Tensor], empty: Allocate | None
    ) -> Download:
        operands: dict[int, Tensor] = {}
        for part in request.parts:
            if part.sent:
                operands[part.id] = self._transfers.upload(shipped[part.id])
        with self._lock:
            stored = {part.id: self.store.get(part.id) for part in request.parts if part.id not in operands}
            if gone := tuple(number for number, tensor in stored.items() if tensor is None):
                raise Gone(gone)
            operands |= {number: tensor for number, tensor in stored.items() if tensor is not None}
            for part in request.sent:
                if part.keep:
                    self.store.put(part.id, operands[part.id])
                    self._reserved[id(request)] -= part.room
                    self._arrived(part)
        left, right = (operands[part.id] for part in request.parts)
        with torch.no_grad():
            return self._transfers.download(_product(request, left, right, empty))

    def discard(self, request: Compute | Ring) -> None:
        """The job failed: nothing that it shipped stays, whoever counts on it."""
        with self._lock:
            self.store.release(part.id for part in request.sent)

    def done(self, request: Compute | Ring) -> None:
        """Close an open request, whether it was run or not."""
        with self._lock:
            self._let_go(request)
            del self._reserved[id(request)]

    def _let_go(self, request: Compute | Ring) -> None:
        """Its operands are needed no more."""
        with self._lock:
            self._temporary.pop(id(request), None)
            for part in request.sent:
                self._arrived(part)
            for number in self._names.pop(id(request), ()):
                self._pins[number] -= 1
                if not self._pins[number]:
                    del self._pins[number]
                    if number in self._doomed:
                        self._doomed.discard(number)
                        self.store.release((number,))

    def release(self, operands: Iterable[int]) -> None:
        """Forget these operands; those that open requests need once they were run."""
        with self._lock:
            free = []
            for number in operands:
                if number in self._pins:
                    self._doomed.add(number)
                else:
                    free.append(number)
            self.store.release(free)

    def _arrived(self, part: Part | RingPart) -> None:
        """No longer on its way; unless a later request ships it once more."""
        if self._coming.get(part.id) is part:
            del self._coming[part.id]

    def _holds(self, part: Part | RingPart) -> bool:
        if part.id in self._doomed:
            return False  # released, and here only until an earlier request was run
        coming = self._coming.get(part.id)
        if coming is not None:
            if not part.refers_to(coming):
                raise UsageError("an operand on its way is referred to with another shape or dtype")
            return True
        tensor = self.store.get(part.id)
        if tensor is not None and not part.names(tensor):
            raise UsageError("a kept operand is referred to with another shape or dtype")
        return tensor is not None


def _product(request: Compute | Ring, left: Tensor, right: Tensor, empty: Allocate | None) -> Tensor:
    match request:
        case Compute():
            return compute(request.operation, left, right, request.rows, request.allowed, empty)
        case Ring():
            return ring_compute(request.operation, left, right, request.rows)


@lru_cache(maxsize=64)
def _multiplies(device: torch.device, dtype: torch.dtype) -> bool:
    """Tried once for all connections: a stranger that only connects must not cost products."""
    try:
        one = torch.ones(1, 1, dtype=dtype, device=device)
        return bool(compute(Op.PRODUCT, one, one.view(1, 1, 1), (1,)).item() == 1)
    except (RuntimeError, TypeError):  # what torch raises for a dtype that a device has not got
        return False
