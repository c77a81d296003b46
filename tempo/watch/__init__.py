"""Looking at a session while it runs: counters, scalars, timelines. Nothing secret comes this way."""

from tempo.watch.settings import WatchSettings
from tempo.watch.view import View
from tempo.watch.watch import Watch

__all__ = ["View", "Watch", "WatchSettings"]
