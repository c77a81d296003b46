"""The attacks that `tempo attack` runs, in the order of docs/secrecy.md."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, final

from tempo.attacks.attack import Attack
from tempo.attacks.score.scorer import Scorer


class Visible(StrEnum):
    """Where docs/secrecy.md lists what an attack finds as visible by construction."""

    NEVER = "never"
    #: Under mixing with key shift.
    KEY_SHIFT = "key-shift"
    #: Under mixing and shares.
    ALWAYS = "always"

    def under(self, scheme: str, *, key_shift: bool) -> bool:
        match self:
            case Visible.NEVER:
                return False
            case Visible.KEY_SHIFT:
                return scheme == "mixing" and key_shift
            case Visible.ALWAYS:
                return scheme in ("mixing", "shares")


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """references: those it is run on, by name; the first is the one that the fast suite takes."""

    attack: Attack[Any, Any]
    scorer: Scorer[Any]
    references: tuple[str, ...]
    visible: Visible = Visible.NEVER


ATTACKS: Final[tuple[Entry, ...]] = ()
