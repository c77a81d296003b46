"""`tempo.session()` and `tempo.data_key()`: what a script gets without naming a setting.

tempo run train.py       as the file that `tempo run` was given says
python train.py          as tempo.toml in the current folder says
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

from tempo.config_file import read_config
from tempo.errors import UsageError
from tempo.facade import Session
from tempo.trust.sealed import DataKey

_TOML: Final = "tempo.toml"


def session(**options: Any) -> Session:
    """The session of this process: opened by the first call, as the run or tempo.toml in the current folder
    says, and the same one until it is closed. It is closed at the end, if the script does not.

    options: settings of `Config` that differ, with the first call alone.
    Raises UsageError where nothing says how (there is no tempo.toml), and as `Session` does.
    """
    return _PROCESS.session(options)


def data_key(name: str | None = None, version: int | None = None) -> DataKey:
    """A data key from the vault that [vault] names, for `tempo.data.SealedDataset` and checkpoints. It is
    released to the machine that this script runs on, if its evidence convinces the vault.

    name: of the key, where it is not the one in [vault]. version: None for the newest.
    Raises UsageError where no vault is named, and as `tempo.trust.vault.fetch`.
    """
    vault = read_config(_PROCESS.file()).vault
    if vault is None:
        raise UsageError(f"{_PROCESS.file()} names no vault: add a table [vault] with its address")
    return vault.fetch(name, version)


@contextmanager
def settings(file: Path, opened: Callable[[Session], None]) -> Iterator[None]:
    """Inside, sessions are as `file` says, and `opened` is told of each. One that is open still is closed at
    the end."""
    with _PROCESS.run(file, opened):
        yield


@final
class _Process:
    """What belongs to the process: the file with the settings and the session that is open. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._file: Path | None = None
        self._opened: Callable[[Session], None] = _close_at_exit
        self._session: Session | None = None

    def file(self) -> Path:
        if self._file is not None:
            return self._file
        path = Path(_TOML)
        if not path.is_file():
            raise UsageError(
                f"there is no {_TOML} in {Path.cwd()}: write one (docs/run.md), name one "
                "(tempo run --config FILE SCRIPT), or give settings in the script (tempo.Session)"
            )
        return path

    def session(self, options: dict[str, Any]) -> Session:
        with self._lock:
            if self._session is None or self._session.closed:
                self._session = Session.from_file(self.file(), **options)
                self._opened(self._session)
            elif options:
                raise UsageError(
                    f"the session is open, so it is too late for {', '.join(sorted(options))}: give settings "
                    "with the first call of tempo.session(), or close it first"
                )
            return self._session

    @contextmanager
    def run(self, file: Path, opened: Callable[[Session], None]) -> Iterator[None]:
        with self._lock:
            if self._file is not None:
                raise UsageError("a script is being run already")
            self._file, self._opened = file, opened
        try:
            yield
        finally:
            with self._lock:
                open_still, self._session = self._session, None
                self._file, self._opened = None, _close_at_exit
            if open_still is not None:
                open_still.close()


def _close_at_exit(session: Session) -> None:
    """Under plain `python`: workers are told to end, and the red paragraph is said where it is due."""
    atexit.register(session.close)


#: A process has one run, as it has one sys.argv.
_PROCESS: Final = _Process()
