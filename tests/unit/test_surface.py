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
        "data_key",
        "session",
    ]
    for name in tempo.__all__:
        assert getattr(tempo, name) is not None


def test_session_methods():
    methods = {n for n, f in inspect.getmembers(tempo.Session, inspect.isfunction) if not n.startswith("_")}
    assert methods == {
        *(
            "add_workers",
            "calibrate",
            "checkpoint",
            "close",
            "metrics",
            "protect",
            "remove_worker",
            "report",
            "resume",
        ),
        *("at_close", "trace", "unprotect", "watch"),
    }


def test_a_session_is_made_by_call_or_from_a_file():
    assert list(inspect.signature(tempo.Session).parameters) == [
        *("workers", "tls", "config", "ledger", "unsafe_truth", "options")
    ]
    assert list(inspect.signature(tempo.Session.from_file).parameters) == ["path", "options"]


def test_settings():
    assert [f.name for f in dataclasses.fields(tempo.Config)] == [
        "scheme",
        "unsafe_one_owner",
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
        "deflate",
        "decoys",
        "decoy_size",
        "fill",
        "gain",
        "repeats",
        "chunk",
        "weight_uses",
        "unsafe_many_uses",
        "wire",
        "arithmetic",
        "probes",
        "integrity",
        "fleet",
    ]
