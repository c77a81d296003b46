"""The story as it is told: numbered steps, what each showed, and which promises were not kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final, Protocol, final

from tempo.errors import IntegrityError, RefusedError, TamperedError
from tempo.trust.vault import KeyRefused
from tempo.wire import TlsRefused

#: What a side says that does not trust the other. Anything else is a fault or the world's, and ends the demo.
DISTRUST: Final = (IntegrityError, KeyRefused, RefusedError, TamperedError, TlsRefused)


@final
@dataclass(slots=True)
class Shown:
    """What one step showed. says: for people. facts: for machines. message: what refused, word for word.
    broken: a sentence for each promise that was not kept."""

    says: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    broken: list[str] = field(default_factory=list)

    def promise(self, kept: bool, otherwise: str) -> None:
        if not kept:
            self.broken.append(otherwise)


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One step, done. seconds: that it took."""

    number: int
    name: str
    title: str
    seconds: float
    shown: Shown

    @property
    def kept(self) -> bool:
        return not self.shown.broken

    def fields(self) -> dict[str, Any]:
        return {
            "step": self.number,
            "name": self.name,
            "title": self.title,
            "kept": self.kept,
            "shown": " ".join(self.shown.says),
            "message": self.shown.message or None,
            "broken": list(self.shown.broken),
            "seconds": round(self.seconds, 3),
            "facts": self.shown.facts,
        }


class Watcher(Protocol):
    """Told what happens, while it does. All of it is for people."""

    def open(self, cast: list[str]) -> None: ...
    def begin(self, number: int, title: str) -> None: ...
    def progress(self, done: int, total: int, note: str) -> None: ...
    def end(self, row: Row) -> None: ...


class Stopped(Exception):
    """A step failed that all later ones rest on. The rows say why."""


@final
class Telling:
    """titles: of the steps by name, in order. rows: of those that were reached."""

    def __init__(self, titles: dict[str, str], watcher: Watcher) -> None:
        self._titles = titles
        self._watcher = watcher
        self.rows: list[Row] = []

    @property
    def broken(self) -> list[str]:
        """One sentence for each promise that was not kept, steps that were not reached among them."""
        found = [f"step {row.number}, {row.name}: {what}" for row in self.rows for what in row.shown.broken]
        missing = list(self._titles)[len(self.rows) :]
        if missing:
            found.append(f"not reached: {', '.join(missing)}")
        return found

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Of the step that is under way."""
        self._watcher.progress(done, total, note)

    @contextmanager
    def step(self, name: str) -> Iterator[Shown]:
        """The next step. A refusal that is not expected breaks its promise and raises Stopped."""
        number = len(self.rows) + 1
        if list(self._titles)[number - 1] != name:
            raise ValueError(f"step {number} is not {name!r}")
        title, shown, start = self._titles[name], Shown(), perf_counter()
        self._watcher.begin(number, title)
        stopped: BaseException | None = None
        try:
            yield shown
        except DISTRUST as error:
            shown.broken.append(f"refused, and should not have been: {error}")
            stopped = error
        row = Row(number, name, title, perf_counter() - start, shown)
        self.rows.append(row)
        self._watcher.end(row)
        if stopped is not None:
            raise Stopped from stopped
