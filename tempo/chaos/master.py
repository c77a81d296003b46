"""`python -m tempo.chaos.master ORDERS`: trains on workers that chaos is done to, one JSON line a step.

A worker that was closed for good, since it broke the protocol, is replaced by a new connection after a
while, as an operator would who has looked into it.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import torch

import tempo
from tempo.chaos.orders import START_S, End, Line, Orders, Ready, Step, encode
from tempo.chaos.standstill import Standstill, log_ahead
from tempo.chaos.training import DTYPES, Training
from tempo.fleet import RemoteWorker
from tempo.report import JsonLines
from tempo.trust.ledger import Ledger, Signer
from tempo.trust.sealed import DataKey
from tempo.wire import TlsFiles

_REPLACE_S: Final = 2.0
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@final
class _Watch(logging.Handler):
    """Counts events by kind, and remembers who was closed for good."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.kinds: Counter[str] = Counter()
        self.closed: list[tuple[float, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        kind = getattr(record, "event", "other")
        self.kinds[kind] += 1
        if kind == "protocol":
            self.closed.append((time.monotonic(), record.getMessage().split(": ")[1]))


@final
class _Crew:
    """The master's connections, by the site that each leads to."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._tls = TlsFiles(orders.cert, orders.key, orders.ca)
        self._sites: dict[str, int] = {}
        self._generation = 0
        self.replaced = 0
        self.first = [self._make(number) for number in range(len(orders.endpoints))]

    def _make(self, site: int) -> RemoteWorker:
        name = f"w{site}" if not self._generation else f"w{site}.{self._generation}"
        self._sites[name] = site
        endpoint = self._orders.endpoints[site]
        seconds = self._orders.deadline_s
        return RemoteWorker(
            endpoint, name=name, tls=self._tls, connect_s=seconds, reconnect_s=0.1, reconnect_most_s=1.0
        )

    def wait(self) -> int:
        """Until each has answered. Their number."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            answered = sum(worker.bytes_received > 0 for worker in self.first)
            if answered == len(self.first):
                break
            time.sleep(0.05)
        return answered

    def mend(self, session: tempo.Session, closed: list[tuple[float, str]]) -> None:
        """Replace those that were closed for good some time ago."""
        while closed and time.monotonic() - closed[0][0] > _REPLACE_S:
            _, name = closed.pop(0)
            self._generation += 1
            session.remove_worker(name)
            session.add_workers([self._make(self._sites.pop(name))])
            self.replaced += 1


def train(orders: Orders) -> None:
    crew = _Crew(orders)
    watch, log = _Watch(), logging.FileHandler(orders.log)
    log.setFormatter(JsonLines())
    logger = logging.getLogger("tempo")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(watch)
    logger.addHandler(log)
    fleet = tempo.FleetSettings(
        deadline_base_s=orders.deadline_s, hedge_least_s=orders.deadline_s / 4, quarantine_s=0.25
    )
    trainings = {name: Training(orders.seed, DTYPES[name]) for name in orders.dtypes}
    standstill = Standstill(trainings.values())
    logger.addHandler(standstill)
    folder, signer, key = Path(orders.audit), Signer.generate("tempo.chaos/run"), DataKey.generate()
    with (
        Ledger.create(folder / "log", signer) as ledger,
        tempo.Session(crew.first, fleet=fleet, ledger=ledger) as session,
    ):
        for training in trainings.values():
            session.protect(training.model)
        _say(Ready(crew.wait()))
        number, begin = 0, time.monotonic()
        while (start := time.monotonic()) < begin + orders.seconds:
            number += 1
            losses = {}
            for name, training in trainings.items():
                standstill.begin(number)
                losses[name] = training.step()
            if number % orders.every == 0:
                session.checkpoint(folder / "run.tempo", key, step=number, **_parts(trainings))
            took = time.monotonic() - start
            _say(Step(number, start - begin, took, losses, *_usage()))
            crew.mend(session, watch.closed)
        report = session.report()
    names = ("bytes_sent", "bytes_received", "checks", "checks_failed", "retries", "local_fallbacks")
    counts = {name: getattr(report, name) for name in names}
    failed = standstill.failed
    logged = log_ahead(folder / "log", signer.verifier, failed)
    _say(End(number, counts, dict(watch.kinds), crew.replaced, len(failed), standstill.advanced, *logged))


def _parts(trainings: Mapping[str, Training]) -> dict[str, Any]:
    models = {f"model_{name}": training.model for name, training in trainings.items()}
    return models | {f"optimizer_{name}": training.optimizer for name, training in trainings.items()}


def _usage() -> tuple[int, int, int]:
    """(resident bytes, threads, descriptors) of this process."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    return resident, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def _say(line: Line) -> None:
    sys.stdout.buffer.write(encode(line))
    sys.stdout.buffer.flush()


def main() -> None:
    # Sent by the controller when nothing is heard for too long: where every thread stands.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    torch.set_num_threads(1)
    train(Orders.read(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
