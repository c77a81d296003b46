"""A recording of a real run as a picture: `python docs/drawings/record.py demo.svg tempo demo --fast`.

The command runs on a terminal of its own, 100 columns wide; what it leaves on the screen is drawn.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 100
#: Bars are drawn over and over: lines that were taken back, and movements of the cursor.
_BACK = re.compile(r"[^\n]*\r\x1b\[2K|\x1b\[[0-9]*[ABCDGJKh]|\x1b\[\?25[lh]|[^\n]*\r(?!\n)")


def run(command: list[str]) -> str:
    """What the command wrote, with its colours. Raises CalledProcessError."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    # Bars go to standard error, which is no part of the picture.
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    pieces = []
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(ours)
    if code := process.wait():
        raise subprocess.CalledProcessError(code, command)
    return b"".join(pieces).decode().replace("\r\n", "\n")


def draw(title: str, screen: str) -> str:
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(Text.from_ansi(_BACK.sub("", screen).strip("\n")))
    # Fonts of the reader's system: the picture loads nothing.
    svg = console.export_svg(title=title)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> None:
    name, *command = sys.argv[1:]
    screen = f"$ {' '.join(command)}\n{run(command)}"
    (Path(__file__).parent / name).write_text(draw(" ".join(command), screen))


if __name__ == "__main__":
    main()
