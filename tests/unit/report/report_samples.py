"""Files as the verbs write them, small: for the tests of reports and pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plan_sample import HEAD, plan

HOSTILE = (
    '"><script>window.pwned=1</script><img src=x onerror="window.pwned=1">\'</style>{{ 7 * 7 }}{% raw %}'
)


def placed(
    module: str, *, offloaded: bool, reason: str = "", visible: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "module": module,
        "operation": "linear",
        "shape": "512x256 256x256",
        "offloaded": offloaded,
        "reason": reason,
        "calls": 3,
        "forward_flops": 1000 if offloaded else 10,
        "backward_flops": 2000 if offloaded else 20,
        "visible": list(visible),
    }


def session(**changes: Any) -> dict[str, Any]:
    """As `Report.to_dict()`."""
    return {
        "scheme": "mixing",
        "key_shift": True,
        "rows": [
            placed("body.0", offloaded=True, visible=("shapes", "rank", "spectrum")),
            placed("head", offloaded=False, reason="last weighted layer: its gradient gives away labels"),
        ],
        "encodings": 24,
        "encodings_without_key_shift": 48,
        "bytes_sent": 10_000_000,
        "bytes_received": 20_000_000,
        "checks": 668,
        "checks_failed": 3,
        "retries": 4,
        "local_fallbacks": 0,
        "quarantined": ["worker-0"],
        "seconds": {"encode": 1.0, "decode": 0.5, "wait": 0.5},
        "events": [
            {"kind": "check_failed", "worker": "worker-0", "detail": "rows differ"},
            {"kind": "lost", "worker": "worker-1", "detail": "it was closed"},
        ],
        "notes": ["mixing is a heuristic: see docs/secrecy.md"],
        "integrity": [
            {
                "op": "product",
                "dtype": "float32",
                "arithmetic": "fp32",
                "inner": 256,
                "outer": 256,
                "probes": 2,
                "miss": 1e-3,
                "of_norms": 1e-5,
                "of_row": 6e-4,
            }
        ],
        "settings": {"scheme": "mixing", "decoys": 8},
        "jobs": {"worker-0": 300, "worker-1": 365},
        **changes,
    }


def demo(**changes: Any) -> dict[str, Any]:
    rows = [
        {"step": i, "plain_loss": 2.0 - i / 10, "tempo_loss": 2.0 - i / 10 + 1e-7, "allowed_difference": 1e-5}
        for i in range(8)
    ]
    return {
        **HEAD,
        "verb": "demo",
        "rows": rows,
        "plain_accuracy": 0.95,
        "tempo_accuracy": 0.95,
        "plain_train_seconds": 1.0,
        "tempo_train_seconds": 5.0,
        "steps": 8,
        "batch": 64,
        "images": "MNIST",
        "parameters": 118_474,
        "lies_told": 3,
        "lie_steps": [2],
        "kill_step": 5,
        "broken_promises": [],
        "report": session(),
        **changes,
    }


def attack_row(attack: str, scheme: str, verdict: str, **changes: Any) -> dict[str, Any]:
    return {
        "attack": attack,
        "scheme": scheme,
        "operand": "X",
        "side_knowledge": "none",
        "score": 0.3,
        "chance": 0.1,
        "undefended": 0.9,
        "low": 0.2,
        "high": 0.4,
        "n": 40,
        "verdict": verdict,
        "note": "",
        "details": {},
        "reference": "images",
        "seconds": 1.0,
        "metric": "",
        "chance_from": "",
        **changes,
    }


def attack() -> dict[str, Any]:
    rows = [
        attack_row("moments", "mixing", "broken"),
        attack_row("labels", "mixing", "holds", score=0.1),
        attack_row("labels", "mixing", "leaks", operand="dY"),
        attack_row(
            "reuse", "mixing", "skipped", score=None, chance=None, undefended=None, low=None, high=None
        ),
        attack_row("labels", "monomial", "broken"),
    ]
    return {**HEAD, "verb": "attack", "rows": rows, "command": "tempo attack --fast", "seconds": 60.0}


def pictures(reference: str = "images") -> dict[str, Any]:
    shades = "AECAwA=="  # 2 x 2: 0, 64, 128, 192
    each = {"attack": "spatial", "reference": reference, "title": "map 1", "width": 2, "height": 2}
    return {
        "pictures": [
            {**each, "scheme": name, "recovered": shades, "true": shades} for name in ("mixing", "monomial")
        ]
    }


def trace() -> dict[str, Any]:
    names = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": i, "args": {"name": name}}
        for i, name in enumerate(("MainThread", "worker-0 link", "worker-0"))
    ]
    spans = [
        ("encode", 0, 0, 4000),
        ("send", 1, 4000, 1000),
        ("worker", 2, 5000, 3000),
        ("decode", 0, 9000, 1000),
    ]
    events = [
        {"ph": "X", "name": part, "cat": "tempo", "pid": 1, "tid": lane, "ts": ts, "dur": dur, "args": {}}
        for part, lane, ts, dur in spans
    ]
    return {"traceEvents": [*names, *events], "displayTimeUnit": "ms"}


def bench() -> dict[str, Any]:
    row = {
        "op": "linear 768 to 3072",
        "shape": [1, 4096, 768, 3072],
        "mode": "tempo",
        "scheme": "mixing",
        "verify": True,
        "workers": 1,
        "seconds": 0.2,
        "master_seconds": 0.1,
        "roofline_share": 0.4,
        "speedup_over_tee_only": 1.5,
        "law_speedup": 11.0,
        "law_share": 0.45,
    }
    rows = [row, {**row, "mode": "tee-only"}, {**row, "verify": False, "seconds": 0.15}]
    return {**HEAD, "verb": "bench layers", "rows": rows, "command": "tempo bench layers"}


def attestation(**changes: Any) -> dict[str, Any]:
    row = {"admitted": True, "kind": "sev-snp", **changes}
    return {**HEAD, "verb": "attest verify", "rows": [row], "policy": "masters"}


def written(folder: Path, name: str, fields: dict[str, Any]) -> Path:
    path = folder / name
    path.write_text(json.dumps(fields))
    return path


def whole_folder(folder: Path) -> Path:
    """A run with everything that a folder can hold."""
    for name, fields in (
        ("demo.json", demo()),
        ("attack.json", attack()),
        ("pictures.json", pictures()),
        ("bench-layers.json", bench()),
        ("plan.json", plan()),
        ("timeline.json", trace()),
        ("attestation.json", attestation()),
    ):
        written(folder, name, fields)
    return folder


def poisoned(value: Any) -> Any:
    """Every string that is not a name of the format's own, made hostile."""
    kept = (
        "verb",
        "verdict",
        "decision",
        "recovered",
        "true",
        "ph",
        "attack",
        "option",
        "unit",
        "state",
        "mode",
    )
    if isinstance(value, dict):
        return {
            key: each if key in kept and isinstance(each, str) else poisoned(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    return HOSTILE + value if isinstance(value, str) else value
