"""The ring as a backend of torch.distributed: what DistributedDataParallel and its like ask for, on the CPU.

Collectives run one after the other in a thread of their own, in the order in which they were asked for, so
that gradients travel while backward goes on.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.futures import Future

from tempo.errors import OutsideError, TempoError, UnsupportedError
from tempo.masters.collectives import Collectives, Combine
from tempo.masters.ring import Ring

_COMBINE: Final[dict[Any, Combine]] = {
    dist.ReduceOp.SUM: lambda x, y: _into(torch.add, x, y),
    dist.ReduceOp.AVG: lambda x, y: _into(torch.add, x, y),
    dist.ReduceOp.PRODUCT: lambda x, y: _into(torch.mul, x, y),
    dist.ReduceOp.MIN: lambda x, y: _into(torch.minimum, x, y),
    dist.ReduceOp.MAX: lambda x, y: _into(torch.maximum, x, y),
}


def _into(function: Callable[..., Tensor], x: Tensor, y: Tensor) -> None:
    function(x, y, out=x)


@final
@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one master since it joined. collectives: that ended well. seconds: in which one was under way here,
    waiting for other masters included. bytes_sent: to the next master, bytes_received: from the one before;
    frames, within TLS."""

    collectives: int
    seconds: float
    bytes_sent: int
    bytes_received: int


@final
class Pending(dist.Work):
    """A collective under way. It ends with the tensors, or with what went wrong."""

    def __init__(self) -> None:
        super().__init__()
        self._source: Future[Any] = Future()
        # A future that is given an exception is a success to PyTorch's C++ side, with the exception as its
        # value. One whose callback raises is an error there too, which a backward ends with.
        self._future = self._source.then(self._outcome)
        self._tensors: Any = None
        self._done = threading.Event()
        self._error: Exception | None = None

    def finish(self, tensors: Any, error: Exception | None) -> None:
        self._tensors, self._error = tensors, error
        self._done.set()
        self._source.set_result(tensors if error is None else [])

    def _outcome(self, source: Future[Any]) -> Any:
        if self._error is not None:
            raise self._error
        return self._tensors

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Raises what went wrong, and OutsideError where it took too long."""
        seconds = timeout.total_seconds() if timeout else None
        if not self._done.wait(seconds or None):
            raise OutsideError(f"a collective took longer than {seconds:g} s")
        if self._error is not None:
            raise self._error
        return True

    def is_completed(self) -> bool:
        return self._done.is_set()

    def is_success(self) -> bool:
        return self._done.is_set() and self._error is None

    def get_future(self) -> Future[Any]:
        return self._future


@final
class MastersGroup(dist.ProcessGroup):
    """What torch.distributed calls. After an error nothing more is sent: the ring is closed."""

    def __init__(self, ring: Ring) -> None:
        super().__init__(ring.place.rank, ring.place.size)  # type: ignore[call-arg]  # its other form
        self._ring = ring
        self._collectives = Collectives(ring)
        self._ended = (0, 0.0)  # collectives, seconds: written by the thread alone
        self._tasks: queue.SimpleQueue[tuple[Callable[[], Any], Pending] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="tempo-masters", daemon=True)
        self._thread.start()

    @property
    def traffic(self) -> Traffic:
        return Traffic(*self._ended, self._ring.bytes_sent, self._ring.bytes_received)

    def getBackendName(self) -> str:
        return "tempo"

    def allreduce(  # type: ignore[override]  # of its two forms the one that is called
        self, tensors: list[Tensor], opts: Any = None
    ) -> Pending:
        op = dist.ReduceOp.SUM if opts is None else opts.reduceOp
        name = next((known for known in _COMBINE if op == known), None)
        if name is None:
            raise UnsupportedError(f"reducing by {op} between masters", "use SUM, AVG, PRODUCT, MIN or MAX")

        def do() -> list[Tensor]:
            for tensor in tensors:
                with _Contiguous(tensor) as flat:
                    self._collectives.reduce(flat, _COMBINE[name])
                    if name == dist.ReduceOp.AVG:
                        flat.div_(self._ring.place.size)
            return tensors

        return self._ask(do, tensors)

    def allreduce_coalesced(self, tensors: list[Tensor], opts: Any = None) -> Pending:
        return self.allreduce(tensors, opts)

    def broadcast(self, tensors: list[Tensor], opts: Any) -> Pending:  # type: ignore[override]
        def do() -> list[Tensor]:
            for tensor in tensors:
                with _Contiguous(tensor) as flat:
                    self._collectives.broadcast(flat, opts.rootRank)
            return tensors

        return self._ask(do, tensors)

    def allgather(  # type: ignore[override]
        self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None
    ) -> Pending:
        def do() -> list[list[Tensor]]:
            for parts, own in zip(outputs, inputs, strict=True):
                rooms = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in parts]
                self._collectives.gather(rooms, own)
                for part, room in zip(parts, rooms, strict=True):
                    part.copy_(room)
            return outputs

        return self._ask(do, inputs)

    def _allgather_base(self, output: Tensor, own: Tensor, opts: Any = None) -> Pending:
        def do() -> Tensor:
            with _Contiguous(output) as flat:
                self._collectives.gather(list(flat.view(self._ring.place.size, -1).unbind()), own.reshape(-1))
            return output

        return self._ask(do, [output, own])

    def barrier(self, opts: Any = None) -> Pending:
        def do() -> list[Tensor]:
            self._collectives.reduce(torch.ones(1), _COMBINE[dist.ReduceOp.SUM])
            return []

        return self._ask(do, [])

    def shutdown(self) -> None:
        """After what was asked for before. The neighbours notice."""
        self._tasks.put(None)
        self._thread.join(self._ring.place.seconds)
        self._ring.close()

    def abort(self) -> None:
        self._ring.close()

    def _ask(self, do: Callable[[], Any], tensors: list[Tensor]) -> Pending:
        for tensor in tensors:
            if tensor.device.type != "cpu" or tensor.is_sparse or tensor.is_complex():
                raise UnsupportedError(
                    f"a {tensor.layout} tensor of {tensor.dtype} on {tensor.device} between masters",
                    "move it to the CPU as a dense real tensor: masters are CPUs",
                )
        pending = Pending()
        self._tasks.put((do, pending))
        return pending

    def _run(self) -> None:
        broken: Exception | None = None
        while (task := self._tasks.get()) is not None:
            do, pending = task
            if broken is not None:
                pending.finish(None, broken)
                continue
            start = time.monotonic()
            try:
                value = do()
            except Exception as error:
                broken = (
                    error if isinstance(error, TempoError) else OutsideError(f"a collective failed: {error}")
                )
                self._ring.close()
                pending.finish(None, broken)
            else:
                count, seconds = self._ended
                self._ended = (count + 1, seconds + time.monotonic() - start)
                pending.finish(value, None)


class _Contiguous:
    """The tensor itself, or a copy that goes back into it."""

    def __init__(self, tensor: Tensor) -> None:
        self._given = tensor
        self._flat = tensor.detach() if tensor.is_contiguous() else tensor.detach().contiguous()

    def __enter__(self) -> Tensor:
        return self._flat

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None and not self._given.is_contiguous():
            self._given.detach().copy_(self._flat)
