"""Rows in pieces that stay in the cache while they are converted to float64."""

from __future__ import annotations

from collections.abc import Iterator

#: Elements of a piece.
_PIECE = 1 << 17


def pieces(lo: int, hi: int, width: int) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of consecutive pieces of the rows lo to hi, each `width` entries wide."""
    step = max(1, _PIECE // max(width, 1))
    for first in range(lo, hi, step):
        yield first, min(first + step, hi)
