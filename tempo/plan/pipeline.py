"""How long an operation takes when master, links and workers are busy at once.

The schedule is that of `tempo/engine.py`: the master seals piece after piece and hands each to its worker;
with WINDOW pieces for each worker under way, it first checks and decodes the oldest; a worker receives,
computes and sends one piece after the other.

    seal 1 | seal 2 | ... | open 1 | seal 5 | open 2 | ...
             worker 1: receive, compute, send
                      worker 2: ...
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from tempo.engine import WINDOW


@final
@dataclass(frozen=True, slots=True)
class Piece:
    """Seconds of one piece: the master's before (seal) and after (open: check and decode), its worker's
    between, transfers included."""

    worker: int
    seal: float
    away: float
    open: float


def overlapped(pieces: Sequence[Piece], after: float) -> float:
    """Seconds where master and workers do not disturb each other. after: the master's, once all are back."""
    clock, free = 0.0, dict[int, float]()
    under_way: deque[tuple[float, float]] = deque()  # when it is back, seconds to open it
    window = WINDOW * max(1, len({piece.worker for piece in pieces}))
    for piece in pieces:
        if len(under_way) == window:
            back, open_ = under_way.popleft()
            clock = max(clock, back) + open_
        clock += piece.seal
        free[piece.worker] = max(clock, free.get(piece.worker, 0.0)) + piece.away
        under_way.append((free[piece.worker], piece.open))
    for back, open_ in under_way:
        clock = max(clock, back) + open_
    return clock + after


def in_turn(pieces: Sequence[Piece], after: float) -> float:
    """Seconds where master and workers never work at the same time; workers do among themselves."""
    busy = dict[int, float]()
    for piece in pieces:
        busy[piece.worker] = busy.get(piece.worker, 0.0) + piece.away
    return sum(piece.seal + piece.open for piece in pieces) + max(busy.values(), default=0.0) + after


def elapsed(pieces: Sequence[Piece], after: float, overlap: float) -> float:
    """overlap: measured share of what could be saved that is saved, 0 to 1."""
    slow = in_turn(pieces, after)
    return slow - overlap * (slow - min(slow, overlapped(pieces, after)))
