"""What a page shows against what was printed.

`...` within a line stands for any text of that line, a line `...` for any lines, none included. How many
spaces stand together does not count, nor do those at the end of a line, nor empty lines: tables are as wide
as what is in them.
"""

from __future__ import annotations

import re


def difference(shown: tuple[str, ...], printed: str) -> str | None:
    """None where they agree."""
    if re.fullmatch(_pattern(shown), _plain(printed.splitlines())):
        return None
    return "the page shows\n" + "\n".join(shown) + "\nand this was printed\n" + printed


def _pattern(shown: tuple[str, ...]) -> str:
    found = ""
    for line in _plain(list(shown)).splitlines():
        if line == "...":
            found += r"(?:[^\n]*\n)*?"
        else:
            found += ".*?".join(re.escape(part) for part in line.split("...")) + "\n"
    return found


def _plain(lines: list[str]) -> str:
    return "".join(re.sub(r" +", " ", line.rstrip()) + "\n" for line in lines if line.strip())
