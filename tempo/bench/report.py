"""The Markdown report of a suite, with the same fields every time, beside its JSON and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tempo.bench.result import CHAOS_FIELDS, SEAL_FIELDS, SERVE_FIELDS, Result, Row

#: Columns of the tables, by suite: what a reader looks at. Everything is in the JSON.
_KERNELS = (
    *(
        "scheme",
        "row_rounds",
        "pass",
        "lowering",
        "shape",
        "dtype",
        "isa",
        "threads",
        "seconds",
        "memcpy_seconds",
    ),
    *("memcpy_ratio", "roofline_share"),
)
_STEPS = (
    *("op", "shape", "phase", "mode", "scheme", "arithmetic", "verify", "workers_are", "seconds"),
    *("master_seconds", "bytes", "roofline_seconds", "roofline_share", "speedup_over_tee_only"),
    *("speedup_if_workers_were_free", "law_speedup", "law_share", "allowed_share"),
)
_CRYPTO = (
    *("system", "op", "shape", "mode", "scheme", "seconds", "bytes", "times_tempo", "recorded"),
    *("recorded_date", "recorded_machine"),
)
_INTEGRITY = (
    *("op", "dtype", "tamper", "operands", "shape", "probes", "tolerances", "relative_size", "threshold"),
    *("trials", "detected", "expected", "checks", "false_alarms", "row_checks", "products", "largest_ratio"),
    *("accuracy", "loss", "loss_difference", "rounds"),
)
_FRONTIER = (
    *("setting", "attack", "reference", "operand", "score", "low", "high", "chance", "undefended"),
    *("leakage", "verdict", "cpu_ratio", "memcpy_ratio"),
)

#: In a terminal.
_SHORT = (
    *("op", "phase", "mode", "scheme", "arithmetic", "verify", "workers_are", "seconds"),
    *("master_seconds", "speedup_over_tee_only", "speedup_if_workers_were_free", "law_share"),
)
_SERVED = (
    *("op", "mode", "scheme", "arithmetic", "clients", "batches", "latency_p50_seconds"),
    *("latency_p95_seconds", "requests_per_second", "offloaded_share", "speedup_over_tee_only"),
)
_MASTERS = (
    *("masters", "scheme", "arithmetic", "seconds", "efficiency", "own_seconds", "own_efficiency"),
    *("cpu_efficiency", "exchange_seconds", "exchange_bytes_each", "loss_difference"),
)
_TITLES = {
    "efficiency": "of ideal",
    "own_seconds": "own machines",
    "own_efficiency": "of ideal",
    "cpu_efficiency": "CPU of ideal",
    "exchange_seconds": "exchange",
    "exchange_bytes_each": "bytes each",
    "loss_difference": "losses differ by",
    "latency_p50_seconds": "p50 s",
    "latency_p95_seconds": "p95 s",
    "requests_per_second": "requests/s",
    "offloaded_share": "offloaded",
    "speedup_over_tee_only": "against TEE-only",
    "speedup_if_workers_were_free": "if workers were free",
    "law_share": "share of the law",
    "workers_are": "workers",
    "master_seconds": "master",
    "memcpy_ratio": "memcpys",
    "memcpy_seconds": "memcpy",
    "gb_per_second": "GB/s",
    "share_of_aes_gcm": "of AES-GCM",
    "share_of_plain": "of plain",
    "cpu_share_of_aes_gcm": "of its CPU",
    "record_bytes": "record",
    "records_per_second": "records/s",
}


def columns(suite: str) -> tuple[str, ...]:
    fields = {
        "kernels": _KERNELS,
        "crypto": _CRYPTO,
        "chaos": CHAOS_FIELDS,
        "integrity": _INTEGRITY,
        "frontier": _FRONTIER,
        "serve": SERVE_FIELDS,
        "seal": SEAL_FIELDS[:-3],
    }
    return fields.get(suite, _STEPS)


def short_columns(suite: str) -> tuple[str, ...]:
    """Those that fit a terminal."""
    match suite:
        case "kernels":
            return ("scheme", "row_rounds", "pass", "lowering", "shape", "dtype", "seconds", "memcpy_ratio")
        case "chaos":
            return CHAOS_FIELDS
        case "crypto":
            return ("system", "op", "shape", "scheme", "seconds", "times_tempo", "recorded")
        case "serve":
            return _SERVED
        case "integrity":
            return (
                *("op", "dtype", "tamper", "tolerances", "relative_size", "trials", "detected", "checks"),
                *("false_alarms", "accuracy"),
            )
        case "seal":
            return (
                *("op", "how", "record_bytes", "gb_per_second", "share_of_aes_gcm", "share_of_plain"),
                *("cpu_share_of_aes_gcm", "records_per_second"),
            )
        case "frontier":
            return ("setting", "attack", "operand", "score", "chance", "undefended", "leakage", "cpu_ratio")
        case _:
            return _SHORT


def short_table(result: Result) -> tuple[list[str], list[list[str]]]:
    """Titles and cells for a terminal, without spreads."""
    names = short_columns(result.suite)
    return [_TITLES.get(name, name) for name in names], [
        [_value(row[n]) for n in names] for row in result.rows
    ]


def masters_table(result: Result) -> tuple[list[str], list[list[str]]]:
    """The same of what several masters gained over one; no lines where that was not measured."""
    rows = result.extra.get("masters", [])
    return [_TITLES.get(name, name) for name in _MASTERS], [
        [_value(row[n]) for n in _MASTERS] for row in rows
    ]


def cells(row: Row, names: Sequence[str]) -> list[str]:
    """As shown; seconds with their spread."""
    return [_cell(row, name) for name in names]


def markdown(document: Mapping[str, Any], result: Result, pictures: Sequence[Path]) -> str:
    """document: what --json prints. Fixed fields: machine, CPU flags and ISA, versions, commit, command,
    notes, constants, figures with spread (min, median, max), what was skipped."""
    machine, environment = document["machine"], document["environment"]
    versions = ", ".join(f"{name} {value}" for name, value in environment["versions"].items() if value)
    lines = [
        f"# bench {result.suite}",
        "",
        f"- **Machine:** {machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
        f"GPUs: {', '.join(machine['gpus']) or 'none'}",
        f"- **CPU flags:** {' '.join(environment['cpu_flags']) or 'not known'}",
        f"- **ISA:** passes {environment['isa']}, torch {environment['torch_capability']}",
        f"- **Threads:** {machine['torch_threads']}",
        f"- **Versions:** tempo {document['tempo']}, {versions}, CUDA {environment['cuda'] or 'none'}",
        f"- **Commit:** {document['commit'] or 'not a checkout'}",
        f"- **Command:** `{document['command']}`",
        "",
        "Seconds are medians with (min, max) of the runs; baselines were measured in the same run.",
        "",
        *(f"- {note}." for note in result.notes),
    ]
    for crew, known in result.constants.items():
        lines += ["", f"## Constants, workers {crew}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_value(value)} |" for name, value in known.items()]
    names = columns(result.suite)
    lines += ["", "## Figures", "", _line(names), _line(["---"] * len(names))]
    lines += [_line(cells(row, names)) for row in result.rows]
    for name, value in result.extra.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [
                "",
                f"## {name.capitalize()}",
                "",
                _line(list(value[0])),
                _line(["---"] * len(value[0])),
            ]
            digits = 8 if name == "losses" else 3  # of curves the difference is what one looks for
            lines += [_line([_value(each, digits) for each in row.values()]) for row in value]
        else:
            lines += ["", f"{name.capitalize()}: {_value(value)}."]
    lines += ["", "## Skipped", ""]
    lines += [f"- {each['what']}: {each['why']}." for each in result.skipped] or ["Nothing."]
    for picture in pictures:
        lines += ["", f"![{picture.stem}]({picture.name})"]
    return "\n".join(lines) + "\n"


def _cell(row: Row, name: str) -> str:
    text = _value(row[name])
    if name in ("seconds", "memcpy_seconds") and row.get(f"{name}_min") is not None:
        text += f" ({_value(row[f'{name}_min'])}, {_value(row[f'{name}_max'])})"
    return text


def _value(value: Any, digits: int = 3) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.{digits}g}" if abs(value) < 1e6 else f"{value:.3e}"
        case int():
            return f"{value:,}"
        case list() if all(isinstance(each, int) for each in value):
            return "x".join(map(str, value))
        case dict():
            return ", ".join(f"{name} {_value(each)}" for name, each in value.items())
        case _:
            return str(value).replace("|", "/")


def _line(parts: Sequence[str]) -> str:
    return "| " + " | ".join(parts) + " |"
