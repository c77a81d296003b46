"""A plan as `tempo plan --json` writes it, small."""

from __future__ import annotations

from typing import Any

HEAD = {
    "tempo": "0.1.0",
    "machine": {"cpu": "a processor", "cores": 2, "gpus": [], "system": "Linux x86_64", "python": "3.11.7"},
    "commit": "0123abc",
}


def money() -> list[dict[str, Any]]:
    each = {"machine_cost": 3.0, "egress_cost": 0.1, "currency": "EUR", "assumptions": ["a GPU is free"]}
    return [
        {"option": "tee-only", "epoch_seconds": 7000.0, "cost": 5.8, **each},
        {"option": "tempo", "epoch_seconds": 1900.0, "cost": 3.1, **each},
        {"option": "unprotected-gpu", "epoch_seconds": 60.0, "cost": None, **each},
    ]


def plan(**changes: Any) -> dict[str, Any]:
    shape = {"groups": 1, "rows": 4096, "in_features": 1024, "out_features": 1024}
    sent = {
        "modules": ["body.0", "body.2"],
        "operation": "linear",
        "shape": shape,
        "count": 2,
        "flops": 100,
        "tee_seconds": 0.4,
        "tempo_seconds": 0.1,
        "law_share": 0.3,
        "decision": "offload",
        "reason": "100 ms there, 400 ms here",
        "leakage": "shapes",
        "leakage_class": "invariants",
        "visible": ["shapes", "rank"],
        "bytes_up": 10,
        "bytes_down": 20,
    }
    kept = {
        **sent,
        "modules": ["head"],
        "shape": "64x10",
        "count": 1,
        "tempo_seconds": None,
        "law_share": None,
        "decision": "stay",
        "reason": "last weighted layer: its gradient gives away labels",
        "visible": [],
    }
    totals = {
        "flops": 300,
        "bytes_up": 20,
        "bytes_down": 40,
        "tee_seconds": 1.0,
        "tee_fastest_seconds": 0.9,
        "tempo_seconds": 0.4,
        "other_seconds": 0.1,
        "kept_seconds": 0.1,
        "master_seconds": {"encode": 0.1, "check": 0.05},
        "speedup_over_tee": 2.5,
        "tee_peak_extra_bytes": 1000,
        "worker_peak_bytes": 2000,
        "memcpys_per_element": 3.0,
    }
    stages = [
        {
            "name": "pilot",
            "criteria": [
                {
                    "name": "speed",
                    "values": {"predicted_seconds": 0.4, "limit_seconds": 0.52, "margin_share": 0.3},
                    "command": "tempo plan m --measure",
                    "state": "open",
                }
            ],
        },
        {
            "name": "standardise",
            "criteria": [
                {"name": "gpu_price", "values": {"limit_price": 6.9}, "command": "", "state": "met"},
                {"name": "of a later version", "values": {}, "command": "", "state": "open"},
            ],
        },
        {"name": "routine", "criteria": [{"name": "chaos", "values": {}, "command": "", "state": "not met"}]},
    ]
    even = {"name": "gpu_per_hour", "price": 6.9, "unit": "hour", "yours": 2.0, "favours_tempo": True}
    return {
        **HEAD,
        "verb": "plan",
        "rows": [sent, kept],
        "model": "mlp:1024x3",
        "scheme": "mixing",
        "placement": "auto",
        "inference": False,
        "batch": 4096,
        "calibration": {"measured_at": "2026-11-23T00:00:00+00:00", "tee": {"cpu": "a measured processor"}},
        "totals": totals,
        "measured": [
            {"part": "encode", "predicted_seconds": 0.1, "measured_seconds": 0.2, "ratio": 0.5},
        ],
        "money": money(),
        "break_even": [{**even, "currency": "EUR"}],
        "adoption": stages,
        "currency": "EUR",
        **changes,
    }
