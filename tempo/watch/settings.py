"""What is watched, and where that goes: [watch] of tempo.toml."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, final

from tempo.errors import UsageError


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """A step is a call of an optimizer's `step`. Raises UsageError where a value is none of those allowed."""

    #: A line on standard error, where that is a terminal.
    progress: bool = False
    #: HOST:PORT or [V6]:PORT that answers `GET /metrics` for Prometheus; port 0: any free one. No
    #: TLS, no password: whoever reaches it reads counters and timings.
    metrics: str | None = None
    #: Folder for TensorBoard's scalars (extra `tensorboard`).
    tensorboard: str | Path | None = None
    #: Steps between two scalars of a kind.
    every: int = 1
    #: File for a timeline of one step: .json for browsers' trace viewers, or .png, .svg, .pdf.
    trace: str | Path | None = None
    #: Which step that is. The first one also draws keys and starts threads.
    trace_step: int = 2

    def __post_init__(self) -> None:
        for name, kinds, words in (
            ("progress", bool, "true or false"),
            ("metrics", str | None, "HOST:PORT"),
            ("tensorboard", str | Path | None, "a folder"),
            ("trace", str | Path | None, "a file"),
        ):
            if not isinstance(getattr(self, name), kinds):
                raise UsageError(f"watch.{name} = {getattr(self, name)!r}: expected {words}")
        for name in ("every", "trace_step"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UsageError(f"watch.{name} = {value!r}: expected a whole number, 1 or more")

    def with_options(self, **options: Any) -> WatchSettings:
        """A copy with some settings replaced. Raises UsageError for a name there is none of."""
        known = {f.name for f in fields(self)}
        for name in options:
            if name not in known:
                raise UsageError(f"unknown setting watch.{name}. There are: {', '.join(sorted(known))}")
        return replace(self, **options)
