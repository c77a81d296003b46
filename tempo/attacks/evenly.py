"""Some of many, from the first to the last at even distances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def evenly(items: Sequence[T], most: int) -> list[T]:
    """All of them where there are no more than that."""
    places = torch.linspace(0, len(items) - 1, min(len(items), most)).round().int().tolist()
    return [items[place] for place in places]
