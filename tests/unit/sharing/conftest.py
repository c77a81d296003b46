"""Engines on shares that are closed after the test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from sharing_bench import Bench

from tempo.fleet import DeviceWorker, Worker


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """bench([worker, ...], [...], [...], ...): one list for each owner."""
    with contextlib.ExitStack() as stack:
        yield lambda *owners, **options: stack.enter_context(Bench(*owners, **options))


@pytest.fixture
def devices() -> Callable[[int], list[list[Worker]]]:
    """A device of this process for each of so many owners."""
    return lambda owners: [[DeviceWorker("cpu", name=f"cpu-{i}")] for i in range(owners)]
