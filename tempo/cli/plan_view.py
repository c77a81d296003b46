"""A plan as tables."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tempo.cli.output import table
from tempo.plan.plan import Plan
from tempo.secrecy.visible import ordered, worst

#: Of the table of layers, and which of them only a wide terminal has room for.
_TEXT: Final = ("modules", "operation", "rows, K, N", "where, and why")
_COLUMNS: Final = (*_TEXT[:3], "count", "Gflop", "MB", "TEE ms", "Tempo ms", "law", _TEXT[3])
_WIDE: Final = ("operation", "count", "Gflop", "MB", "law")
_COMFORT: Final = 110


def show(console: Console, plan: Plan, fields: dict[str, Any]) -> None:
    """fields: the JSON object of the same plan."""
    console.print(_layers(plan, wide=console.width >= _COMFORT))
    console.print(_totals(fields))
    if fields["measured"]:
        console.print(_measured(fields["measured"]))
    if fields["money"]:
        console.print(_money(fields["money"]))
    console.print(f"note: {fields['attacks']['note']}", highlight=False, soft_wrap=True)


def _layers(plan: Plan, *, wide: bool) -> Table:
    """A narrow terminal gets the columns that decide; all of them are in the JSON."""
    made = Table(title="Linear operations", title_justify="left", title_style="bold")
    for name in _COLUMNS:
        if wide or name not in _WIDE:
            text = name in _TEXT
            made.add_column(name, overflow="fold", justify="left" if text else "right")
    made.columns[-1].ratio = 1

    def add(*cells: str) -> None:
        shown = zip(_COLUMNS, cells, strict=True)
        made.add_row(*(cell for name, cell in shown if wide or name not in _WIDE))

    for row in plan.rows:
        c = row.cost
        add(
            _names(row.modules),
            row.op.operation,
            _sizes(row.op.shape),
            str(row.count),
            f"{c.flops / 1e9:.2f}",
            f"{(c.bytes_up + c.bytes_down) / 1e6:.1f}",
            f"{1e3 * c.tee_seconds:.1f}",
            f"{1e3 * c.tempo_seconds:.1f}",
            f"{100 * c.law_share:.0f} %",
            # Why, beyond what the two columns of times say.
            f"workers: see {worst(row.visible)}" if row.offload else f"TEE: {row.reason.partition(':')[0]}",
        )
    alike: dict[tuple[str, str, str, str], list[Any]] = {}
    for kept in plan.kept:
        of = (kept.operation, kept.shape, kept.reason, "")
        alike.setdefault(of, []).append(kept)
    for (operation, shape, reason, _), several in alike.items():
        add(
            _names(tuple(k.module for k in several)),
            operation,
            shape,
            str(sum(k.calls for k in several)),
            f"{several[0].flops / several[0].calls / 1e9:.2f}",
            "",
            f"{1e3 * several[0].seconds / several[0].calls:.1f}",
            "",
            "",
            f"TEE: {reason}",
        )
    return made


def _sizes(shape: tuple[int, int, int, int]) -> str:
    groups, rows, k, n = shape
    return f"{rows}, {k}, {n}" if groups == 1 else f"{groups} groups of {rows}, {k}, {n}"


def _names(modules: tuple[str, ...]) -> str:
    first = modules[0] or "(model)"
    return first if len(modules) == 1 else f"{first} and {len(modules) - 1} more"


def _gflops(rates: dict[str, float]) -> str:
    """Of the products, in each kind of numbers that was measured."""
    products = {name: rate for name, rate in rates.items() if name.split(", ")[0] == "product"}
    return ", ".join(
        f"{rate / 1e9:.0f} Gflop/s{name.removeprefix('product').replace(', ', ' ')}"
        for name, rate in products.items()
    )


def _totals(fields: dict[str, Any]) -> Table:
    t, c = fields["totals"], fields["calibration"]
    what = "request" if fields["inference"] else "training step"
    workers = ", ".join(
        f"{w['name']} {_gflops(w['flops_per_second'])}, "
        f"up {w['up_bytes_per_second'] / 1e6:.0f} MB/s, down {w['down_bytes_per_second'] / 1e6:.0f} MB/s"
        for w in c["workers"]
    )
    seen = {code for row in fields["rows"] for code in row["visible"]}
    rates = c["tee"]["matmul_flops_per_second"].items()
    rows = [
        ("predicted, TEE alone", f"{1e3 * t['tee_seconds']:.1f} ms"),
        ("  linear layers in its fastest arithmetic", f"{1e3 * t['tee_fastest_seconds']:.1f} ms"),
        ("predicted, as planned", f"{1e3 * t['tempo_seconds']:.1f} ms"),
        ("  speed-up over TEE alone", f"{t['speedup_over_tee']:.2f}"),
        *(
            (f"  master, {part}", f"{1e3 * seconds:.1f} ms")
            for part, seconds in sorted(t["master_seconds"].items(), key=lambda each: -each[1])
        ),
        ("  linear work that stays for other reasons", f"{1e3 * t['kept_seconds']:.1f} ms"),
        ("  what is not linear (estimate, no optimizer)", f"{1e3 * t['other_seconds']:.1f} ms"),
        ("over the boundary, up and down", f"{t['bytes_up'] / 1e6:.1f} MB, {t['bytes_down'] / 1e6:.1f} MB"),
        ("peak memory, TEE beyond plain training", f"{t['tee_peak_extra_bytes'] / 1e6:.1f} MB"),
        ("peak memory, busiest worker", f"{t['worker_peak_bytes'] / 1e6:.1f} MB"),
        ("copies per element and check, at best", f"{t['memcpys_per_element']:.1f}"),
        ("visible by construction", ", ".join(ordered(seen)) or "nothing"),
        ("TEE", ", ".join(f"{name} {rate / 1e9:.0f} Gflop/s" for name, rate in rates)),
        ("workers", workers),
        ("workers at once, overlap with the master", f"{c['together']:.2f}, {c['overlap']:.2f}"),
    ]
    title = f"{fields['model']}, one {what}, batch {fields['batch']}, {fields['scheme']}"
    return table(title, ["", ""], rows)


def _measured(rows: list[dict[str, Any]]) -> Table:
    cells = [
        (
            r["part"],
            f"{1e3 * r['predicted_seconds']:.1f}",
            f"{1e3 * r['measured_seconds']:.1f}",
            "" if r["ratio"] is None else f"{r['ratio']:.2f}",
        )
        for r in rows
    ]
    return table("Prediction against measurement", ["", "predicted ms", "measured ms", "ratio"], cells)


def _money(rows: list[dict[str, Any]]) -> Table:
    made = Table(title="One epoch", title_justify="left", title_style="bold")
    for name in ("", "hours", "cost", "of it egress"):
        made.add_column(name, justify="right" if name else "left")
    made.add_column("assuming", overflow="fold")
    for r in rows:
        price = "no price" if r["cost"] is None else f"{r['cost']:.4g} {r['currency']}"
        egress = f"{r['egress_cost']:.4g}"
        made.add_row(
            r["option"], f"{r['epoch_seconds'] / 3600:.4g}", price, egress, "; ".join(r["assumptions"])
        )
    return made
