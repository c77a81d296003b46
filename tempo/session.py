"""The session: what a training script sees of Tempo."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, final

from torch import nn

from tempo import __version__
from tempo.checkpoint import Checkpoints, Resumed
from tempo.config import Config
from tempo.engine import Engine
from tempo.errors import UsageError
from tempo.fleet import Event, EventKind, Fleet, TlsFiles, WorkerSpec, workers_from
from tempo.integrity import Verifier
from tempo.nn.interceptor import Interceptor
from tempo.nn.offload import Offload
from tempo.nn.placement import Account, Always, Never, Places, Rules
from tempo.nn.protect import protect, unprotect
from tempo.plan.auto import Auto
from tempo.plan.calibrate import calibrate
from tempo.plan.machine import Machine
from tempo.report import Report
from tempo.secrecy.form import EVEN
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.pieces import Desk
from tempo.secrecy.weights import Weights
from tempo.stats import Stats
from tempo.trace import Trace, ready_to_save
from tempo.trust.ledger import Ledger, SessionLog
from tempo.trust.sealed import DataKey, OwnerKey, Recipient
from tempo.truth import UnsafeTruth

#: A worker that misbehaves for days must not fill the master's memory: the latest are kept.
_EVENTS = 10_000

M = TypeVar("M", bound=nn.Module)


@final
class Session:
    """Keys, workers and the account of one run.

        with tempo.Session(workers="local:2") as session:
            model = session.protect(model)
            ...  # the user's own loop

    workers: "local:N" (spawned processes), a torch device ("cpu", "cuda:0"), "host:port" of a
    `tempo worker`, or a list of these. tls: the master's certificate files, for remote workers.
    config: settings as a `Config`; single ones may be given by keyword (scheme="mixing").
    ledger: an open audit log, which gets the session, its settings and every integrity event.
    unsafe_truth: a folder that every plain operand and basis is written to, for scoring attacks.
    Raises UsageError for a setting or worker that cannot be, WorkerError if none answers.
    """

    def __init__(
        self,
        workers: WorkerSpec = "local:2",
        *,
        tls: TlsFiles | None = None,
        config: Config | None = None,
        ledger: Ledger | None = None,
        unsafe_truth: str | Path | None = None,
        **options: Any,
    ) -> None:
        self._config = config = (config or Config()).with_options(**options)
        self._stats = Stats()
        self._account = Account()
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self._caught: set[str] = set()
        self._closed = False
        self._tracing = False
        ids = itertools.count(1)
        key = SessionKey()
        scheme = config.make_scheme()
        self._tls = tls
        first = workers_from(workers, tls=tls)
        self._workers = len(first)  # that were ever named, so that names stay unique
        self._fleet = Fleet(first, config.fleet, self._note)
        self._log: SessionLog | None = None
        if ledger is not None:
            try:
                self._log = SessionLog(ledger, __version__, config.chosen(), [w.name for w in first])
            except BaseException:
                self._fleet.close()
                raise
        self._checkpoints = Checkpoints(self._stats, self._fleet, self._log)
        release = self._fleet.release
        labels = itertools.count(1)
        self._verifier = verifier = Verifier(key, config.repetitions)
        self._truth = truth = None if unsafe_truth is None else UnsafeTruth(unsafe_truth)
        desk = Desk(key, scheme, verifier, self._stats, ids, labels, release, config.precision, truth)
        self._weights = Weights(key, scheme, ids, release, config.weight_uses, desk.pool, truth)
        engine = Engine(
            desk, self._fleet, self._weights, key_shift=config.key_shift, local_fallback=config.local_fallback
        )
        rules = Rules(config.min_size, config.offload_attention)
        self._auto = Auto(lambda: calibrate(self._fleet, config, ids), config)
        named = {"always": Always(), "never": Never(), "auto": self._auto}
        places = Places(config.placement, named)
        self._interceptor = Interceptor(Offload(engine, rules, self._account, places))

    def protect(
        self,
        model: M,
        *,
        keep: Iterable[str] = (),
        unsafe_offload: Iterable[str] = (),
        place: Mapping[str, str] | None = None,
    ) -> M:
        """The same module, whose linear layers now run on the workers. No parameter is replaced.

        keep: names or patterns of modules that stay in the TEE with all they hold.
        unsafe_offload: layers to offload although they would stay for secrecy's sake (the last one).
        place: names or patterns of modules, and for each "auto", "always" or "never", instead of the
        setting `placement`; the last one that matches counts. With "auto" anywhere the session first
        measures the machine, for some seconds.
        Raises UnsupportedError (what, and what to do instead) before anything is changed.
        """
        if self._closed:
            raise UsageError("this session is closed: open a new one")
        if self._truth is not None:
            self._truth.learn(model)
        place = {} if place is None else place
        protect(model, self._interceptor, keep=keep, unsafe_offload=unsafe_offload, place=place)
        if "auto" in (self._config.placement, *place.values()):
            try:
                self._auto.prepare()
            except BaseException:
                unprotect(model)
                raise
        return model

    def unprotect(self, model: M) -> M:
        """Undo `protect`: the model is plain PyTorch again."""
        unprotect(model)
        return model

    def calibrate(self, machine: Machine | None = None) -> Machine:
        """What the TEE, the links and the workers can do: measured once, in some seconds, or taken from a
        calibration made before (`Machine.load`). Placement "auto" decides by it.

        Raises OutsideError where no worker answers, UsageError where other figures are in use already.
        """
        if self._closed:
            raise UsageError("this session is closed: open a new one")
        return self._auto.prepare(machine)

    def add_workers(self, workers: WorkerSpec) -> list[str]:
        """Workers join while training runs; their names. Rows go to them from the next operation on."""
        joined = workers_from(workers, tls=self._tls, first=self._workers)
        self._workers += len(joined)
        for worker in joined:
            self._fleet.add(worker)
        return [worker.name for worker in joined]

    def remove_worker(self, name: str) -> None:
        """A worker leaves in order: it finishes what it was given and is closed."""
        self._fleet.remove(name)

    def report(self) -> Report:
        """What ran where and why, encodings, bytes, checks, retries, seconds by part. Up to now."""
        stats, fleet = self._stats, self._fleet.stats
        events = list(self._events)
        return Report(
            scheme=self._config.scheme,
            key_shift=self._config.key_shift,
            rows=self._account.rows(),
            encodings=sum(stats.count(f"encoded_{operand}") for operand in ("x", "w", "dy")),
            encodings_without_key_shift=2 * stats.count("products"),
            bytes_sent=fleet.bytes_sent,
            bytes_received=fleet.bytes_received,
            checks=stats.count("checks"),
            checks_failed=stats.count("checks_failed"),
            retries=fleet.retries,
            local_fallbacks=stats.count("local_fallbacks"),
            quarantined=sorted(self._caught),
            seconds=stats.seconds,
            events=events,
            notes=_notes(self._config, stats, truth=self._truth is not None),
            integrity=self._verifier.guarantees(self._config.miss),
        )

    def checkpoint(self, path: str | Path, key: DataKey | Recipient, *, step: int, **parts: Any) -> None:
        """Write all that the run needs to go on, sealed, in the place of an older checkpoint.

            session.checkpoint("run.tempo", key, step=step, model=model, optimizer=optimizer)

        parts: whatever has state_dict and load_state_dict, torch generators, and plain data as `extra`. With
        them go the states of PyTorch's, NumPy's and Python's generators, this session's counters, and what
        is held against workers. The name of the run is the file's.
        Raises UnsupportedError for state that would need pickle, OutsideError where the file cannot be
        written: then the older one is still there.
        """
        self._checkpoints.write(Path(path), key, step, parts)

    def resume(self, path: str | Path, key: DataKey | OwnerKey, **parts: Any) -> Resumed | None:
        """Put back what `checkpoint` wrote, and say at which step that was; None where there is no file yet.

        With an audit log, a file older than the newest that the log knows is refused. Raises TamperedError,
        UsageError for another key or other parts, and then nothing was changed.
        """
        return self._checkpoints.resume(Path(path), key, parts)

    @contextmanager
    def trace(self, path: str | Path) -> Iterator[Trace]:
        """Record when each part of the work ran, here, on the links and at the workers, and save that as a
        timeline at the end: .json for browsers' trace viewers, or .png, .svg, .pdf. One at a time.

        Raises UsageError where the path's suffix is another one, or matplotlib is missing for a figure.
        """
        ready_to_save(path)
        if self._tracing:
            raise UsageError("a trace of this session is being recorded already: end it first")
        trace, self._tracing = Trace(), True
        self._stats.watch(trace.part)
        self._fleet.watch(trace.span)
        try:
            yield trace
        finally:
            self._stats.watch(None)
            self._fleet.watch(None)
            self._tracing = False
            trace.save(path)

    def _note(self, event: Event) -> None:
        self._events.append(event)
        if event.kind in (EventKind.CHECK_FAILED, EventKind.PROTOCOL):
            self._caught.add(event.worker)
        if self._log is not None:
            self._log.event(event)

    def close(self) -> None:
        """Stop the workers. Protected models stay usable only after `unprotect`."""
        if not self._closed:
            self._closed = True
            self._weights.clear()
            self._fleet.close()
            if self._log is not None:
                report = self.report()
                names = (
                    "checks",
                    "checks_failed",
                    "retries",
                    "local_fallbacks",
                    "bytes_sent",
                    "bytes_received",
                )
                self._log.close({name: getattr(report, name) for name in names})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Session(scheme={self._config.scheme!r}, closed={self._closed})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a session holds keys and is not pickled or copied")


def _notes(config: Config, stats: Stats, *, truth: bool) -> list[str]:
    notes = {
        "monomial": "scheme monomial is the paper's mask; several attacks undo it. Use mixing for secrets",
        "unsafe_none": "scheme unsafe_none hides nothing",
        "mixing": "mixing is a heuristic: see docs/secrecy.md for what is measured and what leaks",
    }
    out = [notes[config.scheme]]
    if truth:
        out.append("unsafe_truth: every plain operand and every basis was written to disk")
    if config.placement == "auto":
        out.append("placement auto rests on timings: another run may place and round differently")
    if config.scheme == "mixing" and config.key_shift:
        out.append("with key shift a worker can recognise a batch or a model it already knows")
    if not config.precision.full:
        full, rounded = stats.count("sent_full"), stats.count("sent_rounded")
        out.append(
            f"wire {config.wire}, arithmetic {config.arithmetic}: {full} of {full + rounded} X and dY were "
            f"kept in float32 all the same (rows that differ by more than {EVEN:g} times, or F(4,3))"
        )
    return out
