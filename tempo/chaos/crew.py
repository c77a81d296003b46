"""The workers of a chaos run, each a real `tempo worker --listen` with mutual TLS behind a bad link of its
own, and how each fault is done to one and undone."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Final, Self, final

from tempo.chaos.network import Network
from tempo.chaos.schedule import Fault, Happening
from tempo.errors import OutsideError
from tempo.wire import TlsFiles

_ORDER_S: Final = 20.0
_END_S: Final = 15.0
_TEMPO: Final = [sys.executable, "-c", "from tempo.cli import main; main()"]


@final
class Site:
    """One worker: its process, and the proxy in front of it. `close` leaves no process."""

    def __init__(self, number: int, network: Network, tls: TlsFiles, log: Path) -> None:
        self._number = number
        self._network = network
        self._tls = tls
        self._log = log
        self._port = _free_port()
        self._worker: subprocess.Popen[bytes] | None = None
        self._began = 0  # of the log, what the worker process that runs now has written
        self._unplugged = False
        address = network.address(number)
        command = [sys.executable, "-m", "tempo.chaos.proxy", address, "0", "127.0.0.1", str(self._port)]
        self._proxy = subprocess.Popen(
            [*network.inside(number), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            process_group=0,
        )
        try:
            self.endpoint = f"{address}:{int(self._answer())}"
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Of the processes that live."""
        every = (self._worker, self._proxy)
        return [p.pid for p in every if p is not None and p.poll() is None]

    @property
    def serves(self) -> bool:
        """The master has found the worker process that runs now."""
        return b": serves " in self._log.read_bytes()[self._began :]

    def start(self, lie: str = "") -> None:
        """A fresh worker process, in the place of an old one."""
        self._kill()
        self._began = self._log.stat().st_size if self._log.exists() else 0
        command = ["worker", "--listen", f"127.0.0.1:{self._port}", "--threads", "1", "--memory", "512M"]
        command += ["--cert", str(self._tls.cert), "--key", str(self._tls.key), "--ca", str(self._tls.ca)]
        if lie:
            command += ["--unsafe-lie", lie]
        with self._log.open("ab") as log:
            self._worker = subprocess.Popen(
                [*self._network.inside(self._number), *_TEMPO, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                process_group=0,
            )

    def begin(self, happening: Happening) -> None:
        """Do it. Raises OutsideError where it cannot be done."""
        amount = happening.amount
        match happening.fault:
            case Fault.KILL:
                self._kill()
            case Fault.LIE:
                self.start(happening.lie)
            case Fault.STOP:
                self._signal(signal.SIGSTOP)
            case Fault.RESTART:
                self._signal(signal.SIGTERM)
            case Fault.CUT:
                self._order(cut=1)
            case Fault.DROP:
                self._unplugged = self._network.unplug(self._number, out=True)
                if not self._unplugged:
                    self._order(drop=1)
            case Fault.DELAY:
                self._order(delay=amount)
            case Fault.THROTTLE:
                self._order(rate=amount)
            case Fault.CORRUPT:
                self._order(flip=int(amount))

    def end(self, happening: Happening) -> None:
        """Undo it: after this the worker is as good as it was."""
        match happening.fault:
            case Fault.KILL | Fault.LIE:
                self.start()
            case Fault.STOP:
                self._signal(signal.SIGCONT)
            case Fault.RESTART:
                self._ended()
                self.start()
            case Fault.DROP if self._unplugged:
                self._unplugged = not self._network.unplug(self._number, out=False)
            case _:
                self._order()

    def close(self) -> None:
        """May be called again, and after a constructor that failed."""
        self._kill()
        with contextlib.suppress(OSError):
            self._proxy.kill()
        self._proxy.wait(_END_S)
        for pipe in (self._proxy.stdin, self._proxy.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()  # reaches a stopped process too
            self._worker.wait(_END_S)

    def _signal(self, number: signal.Signals) -> None:
        if self._worker is not None and self._worker.poll() is None:
            os.kill(self._worker.pid, number)

    def _ended(self) -> None:
        """It was asked to end: frames under way have had their time."""
        assert self._worker is not None, "a site has a worker"
        try:
            self._worker.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._kill()
            raise OutsideError(f"worker {self._number} did not end {_END_S:g} s after SIGTERM") from None

    def _order(self, **order: float) -> None:
        assert self._proxy.stdin is not None, "the proxy takes orders"
        try:
            self._proxy.stdin.write(json.dumps(order).encode() + b"\n")
            self._proxy.stdin.flush()
        except OSError as error:
            raise OutsideError(f"the proxy of worker {self._number} is gone ({error.strerror})") from error
        self._answer()

    def _answer(self) -> str:
        assert self._proxy.stdout is not None, "the proxy answers"
        return line_of(self._proxy.stdout, _ORDER_S, f"the proxy of worker {self._number}")


@final
class Sites:
    """All of them. A context: leaving it leaves no process."""

    def __init__(self, network: Network, tls: list[TlsFiles], folder: Path) -> None:
        self._sites: list[Site] = []
        try:
            for number, files in enumerate(tls):
                self._sites.append(Site(number, network, files, folder / f"worker-{number}.log"))
        except BaseException:
            self.close()
            raise

    @property
    def endpoints(self) -> list[str]:
        """Where the master finds them, host:port."""
        return [site.endpoint for site in self._sites]

    @property
    def pids(self) -> list[int]:
        """Of all processes that live."""
        return [pid for site in self._sites for pid in site.pids]

    def __getitem__(self, number: int) -> Site:
        return self._sites[number]

    def close(self) -> None:
        for site in self._sites:
            site.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def environment() -> dict[str, str]:
    """Of every process of the run: one thread each, this Tempo."""
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path}


def line_of(pipe: IO[bytes], seconds: float, whose: str) -> str:
    """The next line of an unbuffered process's pipe. Raises OutsideError where none comes in time."""
    readable, _, _ = select.select([pipe], [], [], seconds)
    line = pipe.readline() if readable else b""
    if not line:
        raise OutsideError(f"{whose} said nothing within {seconds:g} s, or ended")
    return line.decode().strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: Any = probe.getsockname()[1]
        return int(port)
