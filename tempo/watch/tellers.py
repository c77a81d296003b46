"""Those that a watch's settings ask for. Their packages are imported where one is asked for, not before."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from tempo.errors import UnsupportedError
from tempo.watch.endpoint import Endpoint
from tempo.watch.settings import WatchSettings
from tempo.watch.watch import Seen, Teller


def tellers(settings: WatchSettings, seen: Seen, undo: ExitStack) -> list[Teller]:
    """Closed by `undo`. Raises UnsupportedError, UsageError, OutsideError."""
    made: list[Teller] = []

    def add(teller: Teller) -> None:
        undo.callback(teller.close)
        made.append(teller)

    if settings.tensorboard is not None:
        if find_spec("tensorboard") is None:
            raise UnsupportedError(
                "TensorBoard's scalars need the package tensorboard, which is not installed",
                "pip install 'tempo-confidential[tensorboard]', or take watch.tensorboard out",
            )
        from tempo.watch.scalars import Scalars

        add(Scalars(Path(settings.tensorboard), settings.every, seen.figures()))
    if settings.trace is not None:
        from tempo.watch.one_step import OneStep

        add(OneStep(settings.trace, settings.trace_step, seen.trace))
    if settings.progress:
        from tempo.watch.bar import Bar

        add(Bar(seen.figures()))
    return made


def serve(settings: WatchSettings, seen: Seen, undo: ExitStack) -> Endpoint | None:
    if settings.metrics is None:
        return None
    endpoint = Endpoint(settings.metrics, seen.metrics)
    undo.callback(endpoint.close)
    return endpoint
