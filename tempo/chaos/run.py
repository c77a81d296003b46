"""One chaos run: a master that trains, workers behind bad links, and a schedule of what happens to them.

network -> workers -> master          from here, each a process of its own
schedule thread                       does and undoes each fault at its time
this thread                           reads a line a step, and notices silence
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from tempo.chaos.crew import Sites, environment
from tempo.chaos.network import network
from tempo.chaos.orders import START_S, End, Orders, Ready, Step, decode
from tempo.chaos.schedule import Fault, Happening, draw
from tempo.chaos.training import DTYPES
from tempo.errors import OutsideError
from tempo.wire.authority import issue, make_authority

Say = Callable[[str], None]

_END_S: Final = 30.0
#: Most that a liar waits to be heard, between two looks, and what it has then.
_LIAR_S: Final = 30.0
_LOOK_S: Final = 0.5
_HEARD_S: Final = 2.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """seconds of training. every: seconds between two faults, on average. deadline_s: base of a job's."""

    seed: int = 1
    workers: int = 4
    seconds: float = 300.0
    every: float = 1.5
    deadline_s: float = 2.0
    #: Silence of the master after which it counts as hung: far beyond all deadlines of a step.
    silence_s: float = 60.0
    faults: Sequence[Fault] = tuple(Fault)
    #: Steps between two checkpoints of the run.
    checkpoint_every: int = 20


@final
@dataclass(slots=True)
class Outcome:
    """What happened. failure: why the run did not come to its end, or empty."""

    settings: Settings
    schedule: list[Happening]
    network: str = ""
    steps: list[Step] = field(default_factory=list)
    end: End | None = None
    failure: str = ""
    #: What was done, with the second at which it was.
    done: list[dict[str, Any]] = field(default_factory=list)
    #: Processes of the run that outlived it.
    left: int = 0


def run(settings: Settings, folder: Path, say: Say) -> Outcome:
    """folder: empty; logs of every process stay there."""
    schedule = draw(settings.seed, settings.workers, settings.seconds, every=settings.every)
    schedule = [each for each in schedule if each.fault in settings.faults]
    outcome = Outcome(settings, schedule)
    make_authority(folder)
    with ExitStack() as stack:
        net = stack.enter_context(network(settings.workers))
        outcome.network = net.kind
        hosts = [net.address(i) for i in range(settings.workers)]
        tls = [issue(folder, f"worker-{i}", "worker", [host]) for i, host in enumerate(hosts)]
        ours = issue(folder, "chaos", "master")
        sites = stack.enter_context(Sites(net, tls, folder))
        say(f"chaos: {settings.workers} workers in {net.kind}, seed {settings.seed}")
        orders = Orders(
            settings.seed,
            settings.seconds,
            sites.endpoints,
            str(ours.cert),
            str(ours.key),
            str(ours.ca),
            str(folder / "session.log"),
            str(folder / "audit"),
            settings.checkpoint_every,
            settings.deadline_s,
            list(DTYPES),
        )
        orders.write(folder / "orders.json")
        with _master([*net.inside(None), sys.executable], folder) as master:
            try:
                _follow(master, sites, outcome, say)
            except OutsideError as error:
                master.send_signal(signal.SIGUSR1)  # where its threads stand, into its log
                time.sleep(0.5)
                outcome.failure = str(error)
        pids = [*sites.pids, master.pid]
    outcome.left = sum(_alive(pid) for pid in pids)
    return outcome


@contextmanager
def _master(python: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "master.log").open("ab") as log:
        process = subprocess.Popen(
            [*python, "-m", "tempo.chaos.master", str(folder / "orders.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(),
            process_group=0,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _follow(master: subprocess.Popen[bytes], sites: Sites, outcome: Outcome, say: Say) -> None:
    stop = threading.Event()
    driver = threading.Thread(target=_drive, args=(sites, outcome, stop), name="tempo-chaos", daemon=True)
    told = 0.0
    try:
        for text in _lines(master, outcome.settings.silence_s):
            match decode(text):
                case Ready(workers=workers):
                    if workers < outcome.settings.workers:
                        raise OutsideError(f"only {workers} workers answered before the run")
                    driver.start()
                case Step() as step:
                    outcome.steps.append(step)
                    if step.at - told > 10:
                        told = step.at
                        say(f"chaos: {step.at:.0f} s, step {step.number}, {len(outcome.done)} faults begun")
                case End() as end:
                    outcome.end = end
        code = master.wait(_END_S)
        if code or outcome.end is None:
            raise OutsideError(f"the master ended with {code}: see master.log")
    except subprocess.TimeoutExpired:
        raise OutsideError(f"the master did not end {_END_S:g} s after its last step") from None
    finally:
        stop.set()
        if driver.ident is not None:
            driver.join()


def _drive(sites: Sites, outcome: Outcome, stop: threading.Event) -> None:
    """Do and undo each fault at its time."""
    begin = time.monotonic()
    moments = [(h.at, True, number) for number, h in enumerate(outcome.schedule)]
    moments += [(h.at + h.seconds, False, number) for number, h in enumerate(outcome.schedule)]
    heapq.heapify(moments)
    done: dict[int, dict[str, Any]] = {}
    seen: set[int] = set()
    while moments:
        at, begins, number = heapq.heappop(moments)
        if stop.wait(max(0.0, begin + at - time.monotonic())):
            return
        happening = outcome.schedule[number]
        site, now = sites[happening.worker], time.monotonic() - begin
        if (
            not begins
            and happening.fault is Fault.LIE
            and number not in seen
            and now < happening.at + _LIAR_S
        ):
            # On a busy machine it takes a while until a liar is heard. Then it has its time.
            if site.serves:
                seen.add(number)
            heapq.heappush(moments, (now + (_HEARD_S if site.serves else _LOOK_S), False, number))
            continue
        words = ""
        try:
            (site.begin if begins else site.end)(happening)
        except (OutsideError, OSError, subprocess.SubprocessError) as error:
            words = str(error)
        now = round(time.monotonic() - begin, 3)
        if begins:
            done[number] = {**happening.fields(), "done_at": now, "undone_at": None, "failed": words}
            outcome.done.append(done[number])
        else:
            done[number] |= {"undone_at": now} | ({"failed": words} if words else {})


def _lines(master: subprocess.Popen[bytes], silence_s: float) -> Iterator[bytes]:
    assert master.stdout is not None, "the master speaks to us"
    pipe, rest, patience = master.stdout.fileno(), b"", START_S + silence_s
    while True:
        if not select.select([pipe], [], [], patience)[0]:
            raise OutsideError(f"the master was silent for {patience:g} s: it hangs")
        piece = os.read(pipe, 1 << 16)
        if not piece:
            return
        *whole, rest = (rest + piece).split(b"\n")
        patience = silence_s
        yield from whole


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
