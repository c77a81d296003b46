"""Where a master stands in a ring, and what a ring does for collectives."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, final

from torch import Tensor

from tempo.masters.messages import Piece


@final
@dataclass(frozen=True, slots=True)
class Place:
    """seconds: for joining, and later for each piece."""

    run: str
    rank: int
    size: int
    seconds: float

    @property
    def next(self) -> int:
        return (self.rank + 1) % self.size

    @property
    def before(self) -> int:
        return (self.rank - 1) % self.size


class Link(Protocol):
    """Pieces to the next master, pieces from the one before."""

    @property
    def place(self) -> Place: ...

    def send(self, piece: Piece, tensor: Tensor) -> Future[None]: ...

    def receive(self, piece: Piece, tensor: Tensor) -> None: ...
