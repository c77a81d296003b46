"""The public surface, frozen: a change here is a change for users, and belongs in the changelog."""

from __future__ import annotations

import dataclasses
import inspect

import tempo


def test_public_names():
    assert tempo.__all__ == [
        "Config",
        "FleetSettings",
        "Report",
        "Session",
        "TempoError",
        "TlsFiles",
        "__version__",
    ]
    for name in tempo.__all__:
        assert getattr(tempo, name) is not None


def test_session_methods():
    methods = {n for n, f in inspect.getmembers(tempo.Session, inspect.isfunction) if not n.startswith("_")}
    assert methods == {
        *("add_workers", "calibrate", "checkpoint", "close", "protect", "remove_worker", "report", "resume"),
        *("trace", "unprotect"),
    }


def test_settings():
    assert [f.name for f in dataclasses.fields(tempo.Config)] == [
        "scheme",
        "key_shift",
        "min_size",
        "unsafe_small",
        "offload_attention",
        "placement",
        "local_fallback",
        "block",
        "rounds",
        "row_rounds",
        "spread",
        "chunk",
        "weight_uses",
        "wire",
        "arithmetic",
        "probes",
        "integrity",
        "fleet",
    ]
