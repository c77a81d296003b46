"""How fast a worker is, and whether it is late."""

from __future__ import annotations

import time
from typing import final

from tempo.fleet.settings import FleetSettings
from tempo.ops import AnyJob

#: Weight of the past in a worker's speed, per job.
_FADE = 0.9


@final
class Pace:
    """Written by the worker's thread, read by any."""

    def __init__(self, settings: FleetSettings) -> None:
        self._settings = settings
        self._flops = 0.0  # both fade, so that their ratio follows the worker
        self._seconds = 0.0
        self.busy_seconds = 0.0
        self._at: tuple[AnyJob | None, float] = (None, 0.0)  # the job under way, and since when

    def start(self, job: AnyJob) -> None:
        """The worker is at this job now: at the oldest of those it was given."""
        self._at = (job, time.monotonic())

    def stop(self, *, well: bool) -> float:
        """The job is over; its seconds. One that fails says nothing about speed."""
        job, started = self._at
        self._at = (None, 0.0)
        if job is None:
            return 0.0
        seconds = time.monotonic() - started
        self.busy_seconds += seconds
        if well:
            self._flops = _FADE * self._flops + job.flops
            self._seconds = _FADE * self._seconds + seconds
        return seconds

    @property
    def speed(self) -> float:
        """Flop per second over recent jobs, transfers included; 0 before the first."""
        return self._flops / self._seconds if self._seconds else 0.0

    @property
    def busy(self) -> bool:
        return self._at[0] is not None

    @property
    def lags(self) -> bool:
        """The job under way is late."""
        job, since = self._at
        return job is not None and time.monotonic() - since > self.patience(job)

    def patience(self, job: AnyJob) -> float:
        """Seconds after which this job is late."""
        expected = job.flops / self.speed if self.speed else 0.0
        return max(self._settings.hedge_least_s, self._settings.hedge_factor * expected)
