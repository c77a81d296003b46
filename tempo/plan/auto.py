"""Placement `auto`: measured once for a session, decided once for each kind of call.

Decisions rest on timings, so two runs may place a layer differently and round differently. That is why
`auto` is not the default.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import final

import torch

from tempo.config import Config
from tempo.errors import UsageError
from tempo.lowering.base import Lowering
from tempo.nn.placement import Candidate, Placement
from tempo.plan.machine import Machine
from tempo.plan.model import CostModel
from tempo.plan.plan import why_stay
from tempo.plan.trace import op_of

_Key = tuple[Lowering, torch.dtype, bool, bool, bool]


@final
class Auto(Placement):
    """Thread-safe. calibrate: called once, by `prepare` or the first call, with the schemes to measure
    besides the session's own."""

    def __init__(self, calibrate: Callable[[Sequence[str]], Machine], config: Config) -> None:
        self._calibrate = calibrate
        self._config = config
        self._lock = threading.Lock()
        self._machine: Machine | None = None
        self._decided: dict[_Key, str | None] = {}

    def prepare(self, machine: Machine | None = None, schemes: Sequence[str] = ()) -> Machine:
        """Take these figures, or measure now, if neither was done yet. The figures in use. schemes: to be
        measured besides the session's own.

        Raises UsageError where others are in use already: decisions may rest on them."""
        with self._lock:
            if machine is not None and self._machine not in (None, machine):
                raise UsageError("this session is calibrated already: give the figures before protect")
            if machine is not None:
                CostModel(machine, self._config, inference=False)  # has all that decisions need, or raises
                self._machine = machine
            return self._measured(schemes)

    def keep(self, candidate: Candidate) -> str | None:
        c = candidate
        key = (c.lowering, c.dtype, c.want_x, c.want_w, c.weight is None)
        with self._lock:
            if key not in self._decided:
                inference = not (c.want_x or c.want_w)
                model = CostModel(self._measured(), self._config, inference=inference)
                self._decided[key] = why_stay(model.cost(op_of(c, shared=False)))
            return self._decided[key]

    def _measured(self, schemes: Sequence[str] = ()) -> Machine:
        if self._machine is None:
            self._machine = self._calibrate(schemes)
        return self._machine
