"""The session: what a training script sees of Tempo."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, final

from torch import nn

from tempo.config import Config
from tempo.engine import Engine
from tempo.errors import UsageError
from tempo.fleet import Event, EventKind, Fleet, TlsFiles, WorkerSpec, workers_from
from tempo.integrity import Verifier
from tempo.nn.consent import Consent, public_note
from tempo.nn.interceptor import Interceptor
from tempo.nn.offload import Offload
from tempo.nn.placement import Account, Always, Never, Places, Rules
from tempo.nn.protect import protect, unprotect
from tempo.plan.auto import Auto
from tempo.plan.calibrate import calibrate
from tempo.plan.machine import Machine
from tempo.report import OpRow, Report
from tempo.secrecy.form import EVEN
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.pieces import Desk
from tempo.secrecy.visible import Layer, ordered, visible
from tempo.secrecy.weights import Weights
from tempo.stats import Stats
from tempo.trace import Trace, ready_to_save

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
    Raises UsageError for a setting or worker that cannot be, WorkerError if none answers.
    """

    def __init__(
        self,
        workers: WorkerSpec = "local:2",
        *,
        tls: TlsFiles | None = None,
        config: Config | None = None,
        **options: Any,
    ) -> None:
        self._config = config = (config or Config()).with_options(**options)
        self._stats = Stats()
        self._account = Account()
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self._caught: set[str] = set()
        self._public: set[str] = set()
        self._closed = False
        self._tracing = False
        ids = itertools.count(1)
        key = SessionKey()
        scheme = config.make_scheme()
        self._tls = tls
        first = workers_from(workers, tls=tls)
        self._workers = len(first)  # that were ever named, so that names stay unique
        self._fleet = Fleet(first, config.fleet, self._note)
        release = self._fleet.release
        labels = itertools.count(1)
        verifier = Verifier(key, config.probes)
        desk = Desk(key, scheme, verifier, self._stats, ids, labels, release, config.precision)
        self._weights = Weights(key, scheme, ids, release, config.weight_uses, desk.pool, self._stats)
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
        public: Iterable[str] = (),
        require: Iterable[str] | None = None,
    ) -> M:
        """The same module, whose linear layers now run on the workers. No parameter is replaced.

        keep: names or patterns of modules that stay in the TEE with all they hold.
        unsafe_offload: layers to offload although they would stay for secrecy's sake (the last one).
        place: names or patterns of modules, and for each "auto", "always" or "never", instead of the
        setting `placement`; the last one that matches counts. With "auto" anywhere the session first
        measures the machine, for some seconds.
        public: names or patterns of modules whose weights, with all they hold, are public knowledge (the
        frozen base of a fine-tuned model). Schemes that leak by that warn (PublicWeightsWarning).
        require: codes of what may be visible to workers (`tempo.secrecy.visible.CODES`); a layer that shows
        more is refused.
        Raises UnsupportedError (what, and what to do instead) before anything is changed.
        """
        if self._closed:
            raise UsageError("this session is closed: open a new one")
        place = {} if place is None else place
        self._public |= protect(
            model,
            self._interceptor,
            keep=keep,
            unsafe_offload=unsafe_offload,
            place=place,
            public=public,
            consent=Consent(self._config, require),
        )
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
            rows=[self._seen(row) for row in self._account.rows()],
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
            notes=_notes(self._config, stats, self._public),
        )

    def _seen(self, row: OpRow) -> OpRow:
        """With what is visible of it by construction."""
        if not row.offloaded:
            return row
        trains = row.backward_flops > 0
        layer = Layer(public=row.module in self._public, trains=trains)
        return replace(row, visible=ordered(visible(self._config.scheme, self._config, layer)))

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

    def close(self) -> None:
        """Stop the workers. Protected models stay usable only after `unprotect`."""
        if not self._closed:
            self._closed = True
            self._weights.clear()
            self._fleet.close()

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


def _notes(config: Config, stats: Stats, public: Collection[str]) -> list[str]:
    notes = {
        "monomial": "scheme monomial is the paper's mask; several attacks undo it. Use mixing for secrets",
        "unsafe_none": "scheme unsafe_none hides nothing",
        "mixing": "mixing is a heuristic: see docs/secrecy.md for what is measured and what leaks",
    }
    out = [notes[config.scheme]]
    if config.placement == "auto":
        out.append("placement auto rests on timings: another run may place and round differently")
    if public and config.scheme in ("mixing", "monomial"):
        out.append(f"weights of {len(public)} modules are public: {public_note(config.scheme)}")
    if stats.count("repeated_dy"):
        out.append(
            f"{stats.count('repeated_dy')} gradients were computed here: too many of their rows repeat "
            f"(setting repeats)"
        )
    if stats.count("unfilled"):
        filled, left = stats.count("filled"), stats.count("unfilled")
        out.append(f"features alike in all rows: {filled} filled, {left} left as they are (setting fill)")
    if config.scheme == "mixing" and config.key_shift:
        out.append("with key shift a worker can recognise a batch or a model it already knows")
    if not config.precision.full:
        full, rounded = stats.count("sent_full"), stats.count("sent_rounded")
        out.append(
            f"wire {config.wire}, arithmetic {config.arithmetic}: {full} of {full + rounded} X and dY were "
            f"kept in float32 all the same (rows that differ by more than {EVEN:g} times, or F(4,3))"
        )
    return out
