"""How many threads a pass deserves.

A pass over a small tile costs less than waking a second thread for it, and local workers want the
cores meanwhile: on two cores a step of the demo took 1.5 s with two threads and 0.65 s with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

#: Elements of a tile from which on more threads pay.
SMALL: Final = 1 << 20


@contextmanager
def threads_for(elements: int) -> Iterator[None]:
    """One thread of this caller's for passes over tiles of fewer than SMALL elements."""
    before = torch.get_num_threads()
    if elements >= SMALL or before == 1:
        yield
        return
    try:
        torch.set_num_threads(1)  # inside: an interrupt after it must not leave the thread with one
        yield
    finally:
        torch.set_num_threads(before)
