"""The session: what a training script sees of Tempo."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeVar, final

from torch import nn

from tempo import __version__
from tempo.checkpoint import Checkpoints, Resumed
from tempo.config import Config
from tempo.config_file import read_config
from tempo.errors import UsageError
from tempo.fleet import TlsFiles, WorkerSpec, workers_from
from tempo.nn.consent import Consent
from tempo.nn.interceptor import Interceptor
from tempo.nn.offload import Offload
from tempo.nn.placement import Account
from tempo.nn.protect import protect, unprotect
from tempo.parts import Workers, parts_from
from tempo.plan.auto import Auto
from tempo.plan.machine import Machine
from tempo.report import Report
from tempo.report.account import report_of
from tempo.report.alarm import sound
from tempo.report.journal import COUNTS, Journal
from tempo.secrecy.scheme import SHARES
from tempo.sharing import Owners
from tempo.stats import Stats
from tempo.trace import Trace
from tempo.trust.ledger import Ledger, SessionLog
from tempo.trust.sealed import DataKey, OwnerKey, Recipient
from tempo.truth import UnsafeTruth
from tempo.watch import View, Watch, WatchSettings

_WORKERS: Final = "local:2"

M = TypeVar("M", bound=nn.Module)


@final
class Session:
    """Keys, workers and the account of one run.

        with tempo.Session(workers="local:2") as session:
            model = session.protect(model)
            ...  # the user's own loop

    workers: "local:N" (spawned processes), a torch device ("cpu", "cuda:0"), "host:port" of a
    `tempo worker`, or a list of these. For scheme "shares" these by owner, three of them, or two where all
    weights that are sent are public: {"alpha": ["a:7443"], "beta": ["b:7443"], "gamma": ["c:7443"]}.
    tls: the master's certificate files, for remote workers.
    config: settings as a `Config`; single ones may be given by keyword (scheme="mixing").
    ledger: an open audit log, which gets the session, its settings and every integrity event.
    unsafe_truth: a folder that every plain operand and basis is written to, for scoring attacks.
    Raises UsageError for a setting or worker that cannot be, WorkerError if none answers.
    """

    def __init__(
        self,
        workers: Workers = _WORKERS,
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
        self._journal = Journal(self._stats, None)
        self._public: set[str] = set()
        self._closed = False
        self._heed: Callable[[Report], None] = sound
        self._tls = tls
        self._truth = None if unsafe_truth is None else UnsafeTruth(unsafe_truth)
        parts = parts_from(config, workers, tls, self._journal.note, self._stats, self._truth)
        self._fleet, self._weights = parts.fleet, parts.weights
        self._auto, self._verifier = parts.auto, parts.verifier
        self._view = View(self._stats, self._fleet)
        names = list(self._fleet.stats.jobs)
        self._workers = len(names)  # that were ever named, so that names stay unique
        log: SessionLog | None = None
        if ledger is not None:
            try:
                log = SessionLog(ledger, __version__, config.chosen(), names)
            except BaseException:
                self._fleet.close()
                raise
            self._journal.attach(log)
        self._checkpoints = Checkpoints(self._stats, self._fleet, log)
        self._journal.opened(__version__, config.scheme, len(names))
        self._interceptor = Interceptor(Offload(parts.engine, parts.rules, self._account, parts.places))

    @classmethod
    def from_file(cls, path: str | Path = "tempo.toml", **options: Any) -> Self:
        """A session as a file says (tempo/config_file.py); what is given by keyword wins.

        Raises OutsideError for a file that cannot be read, UsageError for what is wrong in it.
        """
        file = read_config(path)
        said = {"workers": file.workers or _WORKERS, "tls": file.tls, "config": file.config}
        with ExitStack() as undo:
            session = undo.enter_context(cls(**(said | options)))
            session.watch(file.watch)
            undo.pop_all()
        return session

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
        frozen base of a fine-tuned model). Scheme "shares" sends them in the clear; what is trained, or was
        written to since, counts as secret again. Schemes that leak by that warn (PublicWeightsWarning).
        require: codes of what may be visible to workers (`tempo.secrecy.visible.CODES`); a layer that shows
        more is refused.
        Raises UnsupportedError (what, and what to do instead) before anything is changed.
        """
        if self._closed:
            raise UsageError("this session is closed: open a new one")
        if self._truth is not None:
            self._truth.learn(model)
        named = place.values() if isinstance(place, Mapping) else ()  # which protect refuses
        auto = "auto" in (self._config.placement, *named)
        if auto:
            self._planned()
        self._public |= protect(
            model,
            self._interceptor,
            keep=keep,
            unsafe_offload=unsafe_offload,
            place={} if place is None else place,
            public=public,
            consent=Consent(self._config, require),
        )
        if auto:
            try:
                self._planned().prepare()
            except BaseException:
                unprotect(model)
                raise
        return model

    def unprotect(self, model: M) -> M:
        """Undo `protect`: the model is plain PyTorch again."""
        unprotect(model)
        return model

    def calibrate(self, machine: Machine | None = None, *, schemes: Sequence[str] = ()) -> Machine:
        """What the TEE, the links and the workers can do: measured once, in some seconds, or taken from a
        calibration made before (`Machine.load`). Placement "auto" decides by it. schemes: measured too.

        Raises OutsideError where no worker answers, UsageError where other figures are in use already.
        """
        if self._closed:
            raise UsageError("this session is closed: open a new one")
        return self._planned().prepare(machine, schemes)

    def _planned(self) -> Auto:
        if self._auto is None:
            raise UsageError(f"no plan covers scheme {SHARES!r} yet: place by 'always' and 'never'")
        return self._auto

    def add_workers(self, workers: WorkerSpec, *, owner: str | None = None) -> list[str]:
        """Workers join while training runs; their names. Rows go to them from the next operation on.
        owner: one of those named at first, for scheme "shares", and for that alone."""
        fleet = self._fleet
        if isinstance(fleet, Owners):
            fleet.claim(owner, workers)
        elif owner is not None:
            raise UsageError(f"workers have owners under scheme {SHARES!r} alone")
        joined = workers_from(workers, tls=self._tls, first=self._workers)
        self._workers += len(joined)
        for worker in joined:
            if isinstance(fleet, Owners):
                fleet.add(owner or "", worker)
            else:
                fleet.add(worker)
        return [worker.name for worker in joined]

    def remove_worker(self, name: str) -> None:
        """A worker leaves in order: it finishes what it was given and is closed."""
        self._fleet.remove(name)

    def report(self) -> Report:
        """What ran where and why, encodings, bytes, checks, retries, seconds by part. Up to now."""
        return report_of(
            self._config,
            self._stats,
            self._fleet,
            self._account,
            self._journal,
            self._verifier,
            public=self._public,
            truth=self._truth is not None,
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
        self._journal.checkpoint("checkpoint_written", Path(path).name, step)

    def resume(self, path: str | Path, key: DataKey | OwnerKey, **parts: Any) -> Resumed | None:
        """Put back what `checkpoint` wrote, and say at which step that was; None where there is no file yet.

        With an audit log, a file older than the newest that the log knows is refused. Raises TamperedError,
        UsageError for another key or other parts, and then nothing was changed.
        """
        found = self._checkpoints.resume(Path(path), key, parts)
        if found is not None:
            self._journal.checkpoint("checkpoint_resumed", Path(path).name, found.step)
        return found

    def metrics(self) -> str:
        """Counters of this session in the text format that Prometheus reads: docs/operations.md."""
        return self._view.metrics()

    def trace(self, path: str | Path) -> AbstractContextManager[Trace]:
        """Record when each part of the work ran, here, on the links and at the workers, and save that as a
        timeline at the end: .json for browsers' trace viewers, or .png, .svg, .pdf. One at a time.

        Raises UsageError where the path's suffix is another one, or matplotlib is missing for a figure.
        """
        return self._view.trace(path)

    def watch(self, settings: WatchSettings | None = None, **options: Any) -> Watch:
        """Show and write down how the session fares, at each step of an optimizer, until it is closed:
        nothing secret, losses neither (docs/observability.md). options: of `WatchSettings`.

        Raises UsageError, UnsupportedError where a package is missing, OutsideError where a port is taken.
        """
        if self._closed:
            raise UsageError("this session is closed: open a new one")
        return self._view.watch((settings or WatchSettings()).with_options(**options))

    def at_close(self, heed: Callable[[Report], None]) -> None:
        """`heed` gets the report when the session is closed, in place of the red words on standard error."""
        self._heed = heed

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Stop the workers. Protected models stay usable only after `unprotect`. Where a reply was false or
        a worker broke the protocol, standard error says so in red, and what to do."""
        if not self._closed:
            self._closed = True
            try:
                self._view.close()
            finally:  # whoever watched: workers stop, the log gets its end, the red words are said
                self._weights.clear()
                self._fleet.close()
                report = self.report()
                try:
                    self._journal.closed({name: getattr(report, name) for name in COUNTS})
                finally:
                    self._heed(report)

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
