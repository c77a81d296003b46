"""Where the master and the workers of a chaos run live.

Namespaces: the master and each worker have a network namespace of their own, one cable from the master to
each, and no other network. Loopback: one address of 127.0.1.0/24 each, where the kernel (or a lack of
privilege) refuses namespaces. Which it was is in the report.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from typing import Final, Self, final

_TIMEOUT_S: Final = 20


class Network(ABC):
    """Abstract. A context: leaving it takes down what it set up."""

    #: Words for the report.
    kind: str

    @abstractmethod
    def address(self, worker: int) -> str:
        """At which the master reaches that worker."""

    @abstractmethod
    def inside(self, worker: int | None) -> list[str]:
        """What a command is prefixed with to run where that worker is; None: where the master is."""

    @abstractmethod
    def unplug(self, worker: int, *, out: bool) -> bool:
        """Take the worker's cable out, or put it in. False where there is none to take."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...


@final
class Loopback(Network):
    def __init__(self, why: str) -> None:
        self.kind = f"loopback addresses ({why})"

    def address(self, worker: int) -> str:
        return f"127.0.1.{worker + 1}"

    def inside(self, worker: int | None) -> list[str]:
        return []

    def unplug(self, worker: int, *, out: bool) -> bool:
        return False

    def __exit__(self, *_: object) -> None:
        pass


@final
class Namespaces(Network):
    """Raises OSError or CalledProcessError where the kernel refuses; what was made is gone then."""

    kind = "network namespaces"

    def __init__(self, workers: int) -> None:
        self._master = f"tempo-{os.getpid()}-m"
        self._workers = [f"tempo-{os.getpid()}-{i}" for i in range(workers)]
        self._made: list[str] = []
        try:
            for name in (self._master, *self._workers):
                _ip("netns", "add", name)
                self._made.append(name)
                _ip("-n", name, "link", "set", "lo", "up")
            for i, name in enumerate(self._workers):
                ours = f"w{i}"
                _ip("-n", self._master, "link", "add", ours, "type", "veth", "peer", "cable", "netns", name)
                for where, device, host in ((self._master, ours, 1), (name, "cable", 2)):
                    _ip("-n", where, "addr", "add", f"10.231.{100 + i}.{host}/24", "dev", device)
                    _ip("-n", where, "link", "set", device, "up")
        except BaseException:
            self.__exit__()
            raise

    def address(self, worker: int) -> str:
        return f"10.231.{100 + worker}.2"

    def inside(self, worker: int | None) -> list[str]:
        return ["ip", "netns", "exec", self._master if worker is None else self._workers[worker]]

    def unplug(self, worker: int, *, out: bool) -> bool:
        _ip("-n", self._workers[worker], "link", "set", "cable", "down" if out else "up")
        return True

    def __exit__(self, *_: object) -> None:
        while self._made:
            subprocess.run(
                ["ip", "netns", "del", self._made.pop()],  # noqa: S607 (iproute2 from the user's own PATH)
                capture_output=True,
                timeout=_TIMEOUT_S,
            )


def network(workers: int) -> Network:
    """Namespaces where the kernel permits them, else loopback, and why."""
    if shutil.which("ip") is None:
        return Loopback("no iproute2 here")
    try:
        return Namespaces(workers)
    except (OSError, subprocess.SubprocessError) as error:
        words = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return Loopback(f"the kernel refuses namespaces: {words[-1] if words else type(error).__name__}")


def _ip(*arguments: str) -> None:
    subprocess.run(
        ["ip", *arguments],  # noqa: S607 (iproute2 from the user's own PATH)
        check=True,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
