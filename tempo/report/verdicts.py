"""What the attack suite found under each scheme, as it was measured for this release.

The figures stand in verdicts.json, which `tempo attack --suite all --fast --out` writes; nothing of the suite
is imported here, so that reports need none of its packages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tempo.config import Config

OWN: Final = "tempo attack --script train.py:subject --scheme"
#: Where it says what can be done, and what that costs.
_MENDED: Final = 'What mends each, and at what cost: docs/secrecy.md, "What leaks, and what mends it"'
#: Verdicts that are said with the names of their attacks, worst first.
_NAMED: Final = {"broken": "broken by", "leaks": "leaks to", "visible": "visible by construction to"}
_COUNTED: Final = {"undecided": "undecided", "holds": "held against", "skipped": "not measured"}


@cache
def shipped() -> Mapping[str, Any]:
    """verdicts.json: date, commit, settings, and for each scheme the worst finding of each attack."""
    found: Mapping[str, Any] = json.loads((files("tempo.report") / "verdicts.json").read_text())
    return found


def findings(scheme: str) -> dict[str, list[str]]:
    """Attacks of a scheme by verdict."""
    out: dict[str, list[str]] = {}
    for attack, cell in shipped()["schemes"].get(scheme, {}).items():
        out.setdefault(cell["verdict"], []).append(attack)
    return out


def note(config: Config) -> str:
    """A line for reports: the worst findings of the scheme in use, when they were measured, and how one's own
    model is."""
    data, of = shipped(), findings(config.scheme)
    named = [f"{words} {', '.join(of[verdict])}" for verdict, words in _NAMED.items() if verdict in of]
    counted = [f"{words} {len(of[verdict])}" for verdict, words in _COUNTED.items() if verdict in of]
    other = [name for name, value in data["settings"].items() if getattr(config, name) != value]
    differ = (
        f", with other settings than here ({', '.join(other)})" if config.scheme == "mixing" and other else ""
    )
    bad = config.scheme == "mixing" and ("broken" in of or "leaks" in of)
    return (
        f"attack suite, scheme {config.scheme}, measured {data['date']} on the reference runs{differ}: "
        f"{'; '.join([*named, *counted]) or 'nothing was measured'}. "
        f"{f'{_MENDED}. ' if bad else ''}Your own model: {OWN} {config.scheme}"
    )
