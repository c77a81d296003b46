"""Rate limits: token buckets, one for each client and one for all.

tokens(t) = min(burst, tokens(t0) + (t - t0) * per_minute / 60)        a request takes one
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, final

from tempo.errors import UsageError

#: Clients that are remembered one by one. They have certificates, so there are not many.
MAX_CLIENTS: Final = 4096


@final
@dataclass(frozen=True, slots=True)
class Rate:
    """per_minute: requests, in the long run. burst: at once."""

    per_minute: float
    burst: int

    def __post_init__(self) -> None:
        if not (self.per_minute > 0 and self.burst >= 1):
            raise UsageError("a rate is one request at least, and more than none a minute")


@final
@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    #: Requests that were turned away since the last that was not.
    turned: int = field(default=0)


@final
class Rates:
    """Thread-safe. clock: seconds, monotonic."""

    def __init__(self, each: Rate, overall: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._each = each
        self._overall = overall
        self._clock = clock
        self._lock = threading.Lock()
        self._all = _Bucket(overall.burst, clock())
        self._clients: dict[str, _Bucket] = {}

    def admit(self, client: str) -> tuple[bool, int]:
        """Whether it may go on, and how many times in a row before this one it was turned away."""
        with self._lock:
            now = self._clock()
            bucket = self._bucket(client, now)
            _fill(bucket, self._each, now)
            _fill(self._all, self._overall, now)
            before = bucket.turned
            # The client's own comes first: one that asks too often must not take what the others have.
            if bucket.tokens < 1 or self._all.tokens < 1:
                bucket.turned += 1
                return False, before
            bucket.tokens -= 1
            self._all.tokens -= 1
            bucket.turned = 0
            return True, before

    def _bucket(self, client: str, now: float) -> _Bucket:
        found = self._clients.get(client)
        if found is None:
            if len(self._clients) >= MAX_CLIENTS:  # the one that asked longest ago: its bucket is the fullest
                del self._clients[min(self._clients, key=lambda name: self._clients[name].at)]
            found = self._clients[client] = _Bucket(self._each.burst, now)
        return found


def _fill(bucket: _Bucket, rate: Rate, now: float) -> None:
    bucket.tokens = min(rate.burst, bucket.tokens + (now - bucket.at) * rate.per_minute / 60)
    bucket.at = now
