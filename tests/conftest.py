"""For all tests: one thread each, no hub, interrupts; and a skipped security test fails the run."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"
# NumPy's, and those of the processes that tests start: two tests at a time would have twice as many as cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Whoever runs the tests in the background has interrupts ignored, in what they start as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch
from security_skips import SecuritySkips

from tempo.kernels import Serving, passes
from tempo.kernels.native import Native

torch.set_num_threads(1)


@contextmanager
def _serve(name: str, threads: int = 1) -> Iterator[None]:
    native = None if name == "plain" else Native(name)
    chosen = passes._Kernels(native, Serving(name, "a test asks for it"))
    with (
        mock.patch.object(passes, "_kernels", return_value=chosen),
        mock.patch.object(passes, "_threads", return_value=threads),
    ):
        yield


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[None]]:
    """serve(name, threads): passes of that instruction set, or "plain", whatever the environment says."""
    return _serve


@pytest.fixture
def fixed_keys() -> Iterator[None]:
    """Session keys of this process come from a generator with a seed: what an attack scores is random in
    the keys, and a threshold on it would fail now and then. TEMPO_TEST_KEYS=n draws others."""
    seeded = random.Random(int(os.environ.get("TEMPO_TEST_KEYS", "0")))
    with mock.patch("tempo.secrecy.keys.os", mock.Mock(urandom=seeded.randbytes)):
        yield


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SecuritySkips(), "security-skips")
