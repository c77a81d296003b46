"""Which of many things lie in which of a few places: those that came last.

    first in, first out: a new thing takes the place of the oldest one, unless that is pinned

Looking many up is one step of NumPy, and nothing has to be noted when they are used.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

#: A place that there is none of.
NOWHERE: Final = -1


@final
class Ring:
    """things: how many there may be, numbered from 0. places: how many lie somewhere at once, 1 at least."""

    def __init__(self, things: int, places: int) -> None:
        self.places = max(1, min(places, things))
        # One more than the place, so that untouched memory, which is zero, says nowhere.
        self._place = np.zeros(max(things, 1), np.int32)
        self._quick = self._place.data
        self._thing = [NOWHERE] * self.places
        self._next = 0

    def find(self, thing: int) -> int:
        """Its place, or NOWHERE."""
        return self._quick[thing] - 1

    def find_all(self, things: NDArray[np.int64]) -> NDArray[Any]:
        """The place of each, or NOWHERE."""
        return self._place[things] - 1

    def free(self, pinned: Collection[int] = ()) -> int:
        """An empty place: what was there is nowhere now. pinned: places that stay, fewer than there are.
        The place belongs to the caller until `hold`, or to nobody."""
        while self._next in pinned:
            self._next = (self._next + 1) % self.places
        place = self._next
        self._next = (place + 1) % self.places
        old = self._thing[place]
        if old != NOWHERE:
            if self._quick[old] == place + 1:  # else a `hold` was interrupted, and it came elsewhere later
                self._place[old] = 0
            self._thing[place] = NOWHERE
        return place

    def hold(self, thing: int, place: int) -> None:
        """It lies there now. An interrupt (Ctrl-C in a notebook) may come between any two lines: what can be
        found is always what `free` will make nowhere, or another thing's bytes would be taken for it."""
        self._thing[place] = thing
        self._place[thing] = place + 1

    def clear(self) -> None:
        """Nothing lies anywhere."""
        for place, thing in enumerate(self._thing):
            if thing != NOWHERE:
                self._place[thing] = 0
                self._thing[place] = NOWHERE
