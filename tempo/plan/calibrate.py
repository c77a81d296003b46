"""Calibration: what this TEE, its links and its workers can do, in a few seconds.

Everything is timed through the functions and the protocol that training uses, with random numbers. The
plan that is made of it may be made elsewhere: `Machine.save`, `Machine.load`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import torch

from tempo.config import Config
from tempo.fleet import Fleet
from tempo.plan.links import LinkTimer
from tempo.plan.machine import VERSION, Machine
from tempo.plan.passes import measure_lowerings, measure_passes
from tempo.plan.plain import measure_tee
from tempo.plan.share_passes import measure_share_passes
from tempo.secrecy.scheme import SHARES


def calibrate(
    fleet: Fleet,
    config: Config,
    ids: Iterator[int],
    *,
    schemes: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Machine:
    """Measure. ids: where names of operands come from, unique among all that the fleet was ever given.

    schemes: names of those to time besides that of `config`. say: told what is being done.
    Raises OutsideError where no worker answers.
    """
    started = time.perf_counter()
    names = tuple(dict.fromkeys((config.scheme, *schemes)))
    # Whatever mode the caller is in: timings are of plain float32 work.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        say("workers and links")
        timer = LinkTimer(
            fleet, ids, probes=config.repetitions, precision=config.precision, residues=SHARES in names
        )
        workers, together, overlap = timer.measure()
        say("the TEE's own arithmetic")
        tee = measure_tee()
        passes = {}
        for name in names:
            say(f"passes of scheme {name}")
            if name == SHARES:
                passes[name] = measure_share_passes()
                continue
            scheme = config.with_options(scheme=name).make_scheme()
            passes[name] = measure_passes(scheme, probes=config.repetitions)
        say("lowerings of convolutions")
        lowerings = measure_lowerings()
    return Machine(
        version=VERSION,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        calibration_seconds=time.perf_counter() - started,
        probes=config.repetitions,
        tee=tee,
        passes=passes,
        lowerings=lowerings,
        workers=workers,
        together=together,
        overlap=overlap,
    )
