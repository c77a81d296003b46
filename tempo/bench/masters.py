"""Part of suite `scale`: the same training by one master and by several (docs/masters.md), in processes of
their own under torchrun, with workers of their own, gradients over the ring under mutually attested TLS.

The batch stays the same in all, so n masters ideally take 1 / n of the seconds. Each master has the same
number of cores, one master alone too: the machine's divided by the most masters that are tried. Where there
are fewer cores than masters nothing is divided, and seconds say little; then and always stands beside them

    own_seconds = (largest own part of a master: the others idle, its workers still)  +  exchange

which is a step of masters that have machines of their own and workers that are never waited for, with an
exchange that nothing overlaps with, at the speed of this machine's loopback.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from tempo.bench.budget import Budget
from tempo.bench.crew import Crew
from tempo.bench.one_master import MEASUREMENT, POLICY, Found, Plan
from tempo.bench.variant import Variant
from tempo.errors import OutsideError
from tempo.wire.authority import issue, make_authority

Say = Callable[[str], None]

#: Seconds for processes to start, for a run that hangs, and for torchrun to end masters, whom it gives 30.
_START_S: Final = 20.0
_HANGS_S: Final = 900.0
_ENDS_S: Final = 40.0
#: The last line of a traceback, perhaps with a rank before it.
_ERROR: Final = re.compile(r"^(?:\[rank\d+\]: )?[\w.]+\.(\w+: .+)$", re.MULTILINE)
_POLICY: Final = f"""tempo-policy = 1
name = "bench scale"
allow-unsafe = true
[unsafe-simulated]
measurements = [{{ measurement = "{MEASUREMENT.hex()}" }}]
"""


@final
@dataclass(frozen=True, slots=True)
class Training:
    """rows: of a batch, of all masters together. layers of width x width. steps: of training. repeats: of a
    master's own part."""

    masters: Sequence[int] = (1, 2)
    rows: int = 4096
    width: int = 1024
    layers: int = 4
    steps: int = 8
    repeats: int = 3

    def plan(self, crew: Crew, variant: Variant) -> Plan:
        return Plan(
            *(self.rows, self.width, self.layers, self.steps, self.repeats),
            crew=crew.text,
            scheme=variant.scheme,
            arithmetic=variant.arithmetic,
            cores=divided(cores(), max(self.masters)),
        )


FAST: Final = Training(rows=512, width=128, layers=2, steps=4, repeats=1)


def divided(cores: Sequence[int], count: int) -> list[list[int]]:
    """count parts of the same size; none where a part would be empty."""
    each = len(cores) // count
    return [list(cores[i * each : (i + 1) * each]) for i in range(count)] if each else []


@final
@dataclass(frozen=True, slots=True)
class Runs:
    """found: by number of masters, what each rank found. One master alone is always among them."""

    plan: Plan
    found: dict[int, list[Found]]


def run(
    training: Training, crew: Crew, variant: Variant, budget: Budget, say: Say, flops_per_second: float
) -> Runs | None:
    """None where the budget does not allow it. flops_per_second: of all cores in float32, for an estimate of
    the time that it takes. Raises OutsideError where masters end badly."""
    plan = training.plan(crew, variant)
    numbers = list(dict.fromkeys((1, *training.masters)))
    name = f"{' and '.join(map(str, numbers))} masters, {variant}, workers {crew.text} each"
    step = plan.flops / flops_per_second * max(numbers)
    steps = 5 * plan.steps + 4 * len(numbers) * (plan.steps + 2 * plan.repeats + 2)
    if not budget.fits(name, _START_S * len(numbers) + steps * step):
        return None
    found: dict[int, list[Found]] = {}
    with tempfile.TemporaryDirectory(prefix="tempo-masters-") as name_of:
        folder = Path(name_of)
        _house(folder, max(numbers))
        plan.write(folder)
        for masters in numbers:
            say(f"scale: {masters} master{'s' * (masters > 1)}, {variant}, workers {crew.text} each")
            found[masters] = _torchrun(folder, masters, len(plan.cores[0]) if plan.cores else 1)
    return Runs(plan, found)


def _house(folder: Path, most: int) -> None:
    """An authority of this run, each master's two certificates, and the policy."""
    make_authority(folder)
    for rank in range(most):
        issue(folder, f"tee-{rank}", "master")
        issue(folder, f"tee-{rank}-peer", "peer", ["127.0.0.1"])
    (folder / POLICY).write_text(_POLICY)


def _torchrun(folder: Path, masters: int, threads: int) -> list[Found]:
    """What each rank found. Raises OutsideError where they did not end well; none is left running."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(masters)]
    script = ["-m", "tempo.bench.one_master", str(folder)]
    command = [sys.executable, *(torchrun if masters > 1 else []), *script]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=_HANGS_S)
    except subprocess.TimeoutExpired:
        raise OutsideError(f"{masters} masters did not end within {_HANGS_S:g} s") from None
    finally:
        _end(process)
    if process.returncode:
        raise OutsideError(f"{masters} masters ended with an error: {said(errors)}")
    return [Found.read(folder, masters, rank) for rank in range(masters)]


def _end(process: subprocess.Popen[str]) -> None:
    """Masters have sessions of their own: torchrun ends them where it is asked to end, not where it is
    killed."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_ENDS_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stderr is not None:
        process.stderr.close()


def said(errors: str) -> str:
    """What went wrong first, of all that several processes and torchrun wrote on standard error."""
    found = _ERROR.search(errors)
    return found[1] if found else errors.strip()[-300:] or "they said nothing"


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
