"""What stands below the options of every verb: examples, what comes next, where to read on."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final, final

from tempo.cli.output import stdout

#: Keeps the library from joining the lines of a paragraph.
_AS_IT_IS: Final = "\b"


@final
@dataclass(frozen=True, slots=True)
class Guide:
    """examples: (command, what it does). next: a command, or None where nothing follows. page: of docs/."""

    examples: tuple[tuple[str, str], ...]
    next: str | None
    page: str

    def text(self) -> str:
        lines = [_AS_IT_IS, "Examples:"]
        for command, does in self.examples:
            lines += [f"  {command}", f"      {does}"]
        if self.next is not None:
            lines += ["", _AS_IT_IS, "Next:", f"  {self.next}"]
        return "\n".join([*lines, "", _AS_IT_IS, f"Read on: docs/{self.page}"])


def say_next(*words: object) -> None:
    """The last line of a verb that is done: the command that comes next, ready to be pasted."""
    command = " ".join(shlex.quote(str(word)) for word in words)
    stdout().print(f"Next: {command}", markup=False, soft_wrap=True)
