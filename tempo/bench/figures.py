"""Pictures of a suite's rows: horizontal bars with the spread of the runs. No pyplot, so no global state.

matplotlib is an optional extra and loaded here alone. Colours are those of Okabe and Ito.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tempo.bench.frontier_plot import draw_frontier
from tempo.bench.masters_plot import draw_masters
from tempo.bench.result import Result, Row

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
_GREY = "#666666"
#: Bars on one picture; the rest is in the JSON.
_MOST_BARS = 60


def draw(result: Result, folder: Path) -> list[Path]:
    """The pictures of a suite. Rows without the figure are left out."""
    if result.suite == "kernels":
        path = folder / "bench-kernels.png"
        rows = [row for row in result.rows if row["roofline_seconds"] is not None]
        _bars(
            path,
            [(_kernel(r), _copies(r), str(r["pass"])) for r in rows],
            "memory copies of the same tensor (whiskers: fastest, slowest)",
            "Passes of the master in memory copies",
        )
        return [path]
    if result.suite == "integrity":
        from tempo.bench.curves import draw_curves

        return draw_curves(result, folder)
    if result.suite == "seal":
        path = folder / "bench-seal.png"
        bars = [(_sealed(row), _seconds(row), str(row["how"])) for row in result.rows]
        unit = "seconds for the row's bytes (whiskers: fastest, slowest)"
        _bars(path, bars, unit, "Sealed data beside AES-GCM alone and plain files")
        return [path]
    if result.suite == "frontier":
        path = folder / "bench-frontier.png"
        lines = result.extra.get("settings", [])
        if not lines:
            return []
        draw_frontier(path, lines, f"scheme mixing, {len(lines)} settings, attacks on real operands")
        return [path]
    if result.suite == "serve":
        path = folder / "bench-serve.png"
        _bars(
            path,
            [(_client(row), _latency(row), str(row["mode"])) for row in result.rows],
            "seconds from request to reply: the median (whisker: 95 % take less)",
            "Latency of requests",
        )
        return [path]
    paths = [folder / f"bench-{result.suite}.png"]
    bars = [(_name(row), _seconds(row), str(row["mode"])) for row in result.rows if row["seconds"]]
    _bars(paths[0], bars, "seconds (whiskers: fastest, slowest)", "Seconds of a step")
    law = [row for row in result.rows if row.get("law_share") is not None]
    if law:
        paths.append(folder / f"bench-{result.suite}-law.png")
        share = [(_name(row), (row["law_share"],) * 3, str(row["scheme"])) for row in law]
        _bars(paths[-1], share, "share of the law that is reached", "Master's own work against the law")
    if result.extra.get("masters") and result.extra.get("losses"):
        paths.append(folder / f"bench-{result.suite}-masters.png")
        draw_masters(paths[-1], result.extra["masters"], result.extra["losses"])
    return paths


Bar = tuple[str, tuple[float, float, float], str]


def _bars(path: Path, bars: Sequence[Bar], unit: str, title: str) -> None:
    """(name, (low, median, high), kind) each; a kind has a colour."""
    shown = bars[:_MOST_BARS]
    figure, axes = _figure(10.0, 1.4 + 0.26 * len(shown))
    kinds = list(dict.fromkeys(kind for _, _, kind in shown))
    for kind in kinds:
        at = [i for i, bar in enumerate(shown) if bar[2] == kind]
        values = [shown[i][1] for i in at]
        medians = [median for _, median, _ in values]
        errors = [[m - low for low, m, _ in values], [high - m for _, m, high in values]]
        colour = _COLOURS[kinds.index(kind) % len(_COLOURS)]
        axes.barh(at, medians, xerr=errors, color=colour, label=kind, height=0.7, ecolor=_GREY)
    axes.set_yticks(range(len(shown)), [name for name, _, _ in shown], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.legend(loc="best", fontsize=8)
    cut = "" if len(shown) == len(bars) else f" (the first {_MOST_BARS} of {len(bars)})"
    figure.suptitle(title + cut, x=0.02, ha="left", fontweight="bold")
    figure.savefig(path, facecolor="white")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _kernel(row: Row) -> str:
    """A pass by all that tells its bars apart."""
    rounds = row["row_rounds"]
    what = [
        row["scheme"],
        rounds and f"{rounds} row round{'s' * (rounds > 1)}",
        row["pass"],
        _by(row["shape"]),
    ]
    what.append(None if row["dtype"] == "float32" else f"to {row['dtype']}")
    return ", ".join(str(each) for each in what if each)


def _sealed(row: Row) -> str:
    record = row["record_bytes"] and f"records of {row['record_bytes']:,} B"
    what = [row["op"], row["how"], record, f"{row['bytes'] / 1e6:,.0f} MB"]
    return ", ".join(str(each) for each in what if each)


def _copies(row: Row) -> tuple[float, float, float]:
    low, median, high = _seconds(row)
    copy = float(row["memcpy_seconds"])
    return (low / copy, median / copy, high / copy)


def _seconds(row: Row) -> tuple[float, float, float]:
    median = float(row["seconds"])
    return (_or(row["seconds_min"], median), median, _or(row["seconds_max"], median))


def _client(row: Row) -> str:
    what = [row["op"], f"{row['clients']} clients", row["mode"], row["scheme"], row["arithmetic"]]
    return ", ".join(str(each) for each in what if each)


def _latency(row: Row) -> tuple[float, float, float]:
    median = float(row["latency_p50_seconds"])
    return (median, median, float(row["latency_p95_seconds"]))


def _or(value: Any, other: float) -> float:
    return other if value is None else float(value)


def _name(row: Row) -> str:
    op = str(row.get("system") or row["op"])
    shape = None if any(letter.isdigit() for letter in op.partition(" ")[2]) else _by(row["shape"])
    what = [op, shape, row.get("phase"), row["mode"]]
    what += [row.get("scheme"), row.get("arithmetic")]
    if row["mode"] == "tempo":
        what.append(f"{row['workers']} workers" + ("" if row["verify"] else ", check taken off"))
    return ", ".join(str(each) for each in what if each)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
