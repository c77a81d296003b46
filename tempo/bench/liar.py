"""A worker of this process that answers what it likes. It knows everything that a worker can: the operands as
sent, the bound, the arithmetic and the check's own code; everything but the keys.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from tempo.bench.arithmetics import answer, as_sent
from tempo.fleet.worker import JobRefused, OperandsEvicted, Worker
from tempo.integrity import Verifier
from tempo.integrity.freivalds import judge, prove
from tempo.ops import AnyJob, Job, Operand, Unverified
from tempo.secrecy.keys import SessionKey

#: Probes of its own that a liar estimates the tolerance with.
_OWN_PROBES = 8


def tolerance(job: Job, reply: Tensor) -> Tensor:
    """(rows,): the calibrated tolerance of each row, as the liar finds it with probes of its own: where it
    depends on the master's, the root mean square."""
    proof = prove(Verifier(SessionKey(), _OWN_PROBES), [job])[job]
    return judge(proof, reply).allowed.square().mean(1).sqrt()


class Liar(Worker):
    """Abstract. Holds operands like any worker; `forge` is its lie."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._held: dict[int, Tensor] = {}
        self._sent = 0
        self._received = 0

    @abstractmethod
    def forge(self, job: Job, true: Tensor) -> Tensor:
        """What is sent instead of the true reply, of its shape and dtype. The job has both operands."""

    def connect(self) -> None:
        pass

    def run(self, job: AnyJob, ship: frozenset[int], deadline: float) -> Unverified:
        if not isinstance(job, Job):
            raise JobRefused(self.name, "unsupported")
        left, right = (self._take(operand, ship) for operand in job.operands)
        whole = replace(job, left=left, right=right)
        true = answer(whole, as_sent)
        reply = self.forge(whole, true)
        self._received += reply.nbytes
        return Unverified(reply)

    def _take(self, operand: Operand, ship: frozenset[int]) -> Operand:
        if operand.id in ship and operand.tensor is not None:
            tensor = operand.tensor.detach().clone()  # the master reuses its buffers
            self._sent += tensor.nbytes
            if operand.keep:
                self._held[operand.id] = tensor
        elif operand.id in self._held:
            tensor = self._held[operand.id]
        else:
            raise OperandsEvicted(self.name, (operand.id,))
        return replace(operand, tensor=tensor)

    def release(self, ids: Iterable[int], deadline: float) -> None:
        for number in ids:
            self._held.pop(number, None)

    def close(self) -> None:
        self._held.clear()

    @property
    def bytes_sent(self) -> int:
        return self._sent

    @property
    def bytes_received(self) -> int:
        return self._received


def added(true: Tensor, d: Tensor) -> Tensor:
    """The true reply and D (rows, N), in the dtype of the reply."""
    return (true.reshape(d.shape).to(torch.float64) + d).reshape(true.shape).to(true.dtype)
