"""Starts masters, each a process on the rented machine, and follows what they say."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from tempo.demo.owner.orders import Done, Orders, Refused, Released, Step, decode
from tempo.demo.owner.stage import Child, Stage
from tempo.errors import OutsideError

#: Starting Python and PyTorch, and an exchange with the vault; then between two lines of one that trains.
_START_S: Final = 120.0
_STEP_S: Final = 120.0
_END_S: Final = 30.0


@final
@dataclass(frozen=True, slots=True)
class Master:
    """A master that the vault has answered. answer: what it says that the vault said."""

    orders: Orders
    answer: Refused | Released
    child: Child

    def train(self, on_step: Callable[[int, float], None]) -> Done:
        """Its end. Raises OutsideError where it does not come to one."""
        while True:
            said = decode(self.child.line(_STEP_S))
            if isinstance(said, Step):
                on_step(said.number, said.loss)
            elif isinstance(said, Done):
                self.end()
                return said
            else:
                raise OutsideError(f"{self.child.name} spoke out of turn")

    def end(self) -> None:
        """Raises OutsideError where it does not end well."""
        if code := self.child.wait(_END_S):
            raise OutsideError(f"{self.child.name} ended with exit code {code}")


def start(stage: Stage, program: Path, name: str, make: Callable[[Path], Orders]) -> Master:
    """Run `program` on a machine that was booted for it, and wait for the vault's answer.

    make: its orders, given the folder that it is to have. Raises OutsideError.
    """
    folder = stage.folder / name
    os.mkdir(folder, 0o700)
    orders = make(folder)
    path = folder / "orders.json"
    orders.write(path)
    # Compiled code is looked for there, where there is none: what was measured is the source. -B: none is
    # written. -P: nothing is imported from the program's own folder.
    caches = folder / "caches"
    os.mkdir(caches, 0o700)
    python = [sys.executable, "-P", "-B", "-X", f"pycache_prefix={caches}"]
    child = stage.start(name, [*python, str(program), str(path)])
    said = decode(child.line(_START_S))
    if not isinstance(said, Refused | Released):
        raise OutsideError(f"{name} spoke out of turn")
    return Master(orders, said, child)
