"""Scalars for TensorBoard: the session's public counters, what each step added to them. No loss: that is
yours, and secret."""

from __future__ import annotations

import time
from pathlib import Path
from typing import final

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tempo.errors import OutsideError
from tempo.watch.figures import Figures
from tempo.watch.watch import Teller, say_ended


@final
class Scalars(Teller):
    """One event each `every` steps, under the tag tempo/NAME. The name of the file holds this host's, as
    TensorBoard has it."""

    def __init__(self, folder: Path, every: int, begin: Figures) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventFileWriter(str(folder))
        except OSError as error:
            raise OutsideError(
                f"TensorBoard's folder {folder} cannot be written ({error.strerror})"
            ) from error
        self._every = every
        self._told = begin
        self._at = 0

    def step(self, number: int, now: Figures) -> None:
        self._at += 1
        if self._at % self._every:
            return
        added, self._told = now.since(self._told), now
        values = [Summary.Value(tag=f"tempo/{name}", simple_value=v) for name, v in sorted(added.items())]
        self._writer.add_event(Event(wall_time=time.time(), step=number, summary=Summary(value=values)))

    def close(self) -> None:
        try:
            self._writer.close()
        except OSError as error:  # a full disk; the session is ending: what it did matters more
            say_ended(type(self).__name__, error)
