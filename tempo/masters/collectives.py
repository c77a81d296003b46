"""Collectives on a ring of n masters. All end with the same bits everywhere: each sum is made in one order.

reduce      rank r begins with chunk r; n - 1 times: send a chunk on, receive the one before, add. Then n - 1
            times: send the sum on. 2 (n - 1) / n of the tensor leave each master (Patarasuk and Yuan, 2009)
gather      n - 1 times: what came last goes on
broadcast   piece by piece from the root, each passed on as it comes
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, final

import torch
from torch import Tensor

from tempo.masters.messages import Kind, Piece
from tempo.masters.place import Link

#: Bytes of a piece of a broadcast: the next is received while the last is passed on.
PIECE: Final = 4 << 20

Combine = Callable[[Tensor, Tensor], None]


@final
class Collectives:
    """Of contiguous CPU tensors, in place. One after the other, in the same order on all masters."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._sequence = 0

    def reduce(self, tensor: Tensor, combine: Combine) -> None:
        """combine(x, y) writes x op y into x, element by element."""
        place = self._link.place
        n, me = place.size, place.rank
        piece = self._pieces("reduce")
        chunks = torch.tensor_split(tensor.view(-1), n)
        room = torch.empty_like(chunks[0])
        for step in range(n - 1):
            out, come = chunks[(me - step) % n], chunks[(me - step - 1) % n]
            sent = self._link.send(piece(step), out)
            self._link.receive(piece(step), room[: come.numel()])
            combine(come, room[: come.numel()])
            sent.result()
        for step in range(n - 1):
            out, come = chunks[(me - step + 1) % n], chunks[(me - step) % n]
            self._exchange(piece(n + step), out, come)

    def gather(self, parts: list[Tensor], own: Tensor) -> None:
        """parts: one for each rank, to be filled; own: of this rank."""
        place = self._link.place
        piece = self._pieces("gather")
        parts[place.rank].copy_(own)
        for step in range(place.size - 1):
            out, come = parts[(place.rank - step) % place.size], parts[(place.rank - step - 1) % place.size]
            self._exchange(piece(step), out, come)

    def broadcast(self, tensor: Tensor, root: int) -> None:
        place = self._link.place
        piece = self._pieces("broadcast")
        sent: list[Future[None]] = []
        parts = tensor.view(-1).split(max(1, PIECE // tensor.element_size()))
        for number, part in enumerate(parts):
            if place.rank != root:
                self._link.receive(piece(number), part)
            if place.next != root:
                sent.append(self._link.send(piece(number), part))
        for each in sent:
            each.result()

    def _exchange(self, piece: Piece, out: Tensor, come: Tensor) -> None:
        sent = self._link.send(piece, out)
        self._link.receive(piece, come)
        sent.result()

    def _pieces(self, kind: Kind) -> Callable[[int], Piece]:
        self._sequence += 1
        sequence = self._sequence
        return lambda part: Piece(sequence, kind, part)
