"""Pictures of `tempo bench integrity`: the share of wrong replies that is found, against their size."""

from __future__ import annotations

from collections import defaultdict
from math import erf, sqrt
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tempo.bench.result import Result, Row

#: Those of Okabe and Ito, and two greys.
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#882255", "#666666")
#: Sizes at which the prediction is drawn, in tolerances.
_SIZES: Final = tuple(10 ** (i / 20 - 1) for i in range(81))


def draw_curves(result: Result, folder: Path) -> list[Path]:
    """One picture for each dtype, with a panel for each operation. None where no tampering was measured."""
    by_dtype: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in result.rows:
        if row["trials"] and row["op"] != "training" and row["tamper"] != "adaptive":
            by_dtype[row["dtype"]][row["op"]].append(row)
    paths = []
    for dtype, by_op in by_dtype.items():
        path = folder / f"bench-integrity-{dtype.replace(', ', '-').replace(' ', '-')}.png"
        figure = Figure(figsize=(4.2 * len(by_op), 4.4), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(by_op), squeeze=False, sharey=True)[0]
        for axes, (op, rows) in zip(panels, sorted(by_op.items()), strict=True):
            _panel(axes, rows)
            axes.set_title(op, loc="left")
        panels[0].set_ylabel("share that is found")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
        figure.suptitle(f"Wrong replies that are found: {dtype}", x=0.02, ha="left", fontweight="bold")
        figure.savefig(path, facecolor="white")
        paths.append(path)
    return paths


def _panel(axes: Axes, rows: list[Row]) -> None:
    tampers = list(dict.fromkeys(row["tamper"] for row in rows))
    probes = rows[0]["probes"]
    axes.plot(
        _SIZES,
        [1 - erf(1 / (sqrt(2) * size)) ** probes for size in _SIZES],
        color="#bbbbbb",
        linewidth=4,
        label=f"predicted for one row, {probes} probes",
    )
    for number, tamper in enumerate(tampers):
        points = sorted((r["tolerances"], r["detected"] / r["trials"]) for r in rows if r["tamper"] == tamper)
        axes.plot(
            *zip(*points, strict=True),
            color=_COLOURS[number % len(_COLOURS)],
            marker="o",
            markersize=3,
            linewidth=1,
            linestyle="-" if number < len(_COLOURS) else ":",
            label=tamper,
        )
    axes.axvline(rows[0]["threshold"], color="#D55E00", linestyle="--", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("size of the largest row, in tolerances")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.7)
