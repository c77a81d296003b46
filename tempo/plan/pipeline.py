"""How long an operation takes when master, links and workers are busy at once.

The schedule is that of `tempo/engine.py`: the master seals piece after piece and hands each to its worker;
a worker receives, computes and sends one piece after the other; then the master takes the replies in
order, checks each, and decodes them all.

    seal 1 | seal 2 | ...      check 1 | check 2 | ... | decode
             worker 1: receive, compute, send
                      worker 2: ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Piece:
    """Seconds of one piece: the master's before and after, its worker's between, transfers included."""

    worker: int
    seal: float
    away: float
    check: float


def overlapped(pieces: Sequence[Piece], decode: float) -> float:
    """Seconds where master and workers do not disturb each other."""
    clock, free = 0.0, dict[int, float]()
    back: list[float] = []
    for piece in pieces:
        clock += piece.seal
        free[piece.worker] = max(clock, free.get(piece.worker, 0.0)) + piece.away
        back.append(free[piece.worker])
    for piece, done in zip(pieces, back, strict=True):
        clock = max(clock, done) + piece.check
    return clock + decode


def in_turn(pieces: Sequence[Piece], decode: float) -> float:
    """Seconds where master and workers never work at the same time; workers do among themselves."""
    busy = dict[int, float]()
    for piece in pieces:
        busy[piece.worker] = busy.get(piece.worker, 0.0) + piece.away
    return sum(piece.seal + piece.check for piece in pieces) + max(busy.values(), default=0.0) + decode


def elapsed(pieces: Sequence[Piece], decode: float, overlap: float) -> float:
    """overlap: measured share of what could be saved that is saved, 0 to 1."""
    slow = in_turn(pieces, decode)
    return slow - overlap * (slow - min(slow, overlapped(pieces, decode)))
