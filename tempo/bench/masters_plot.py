"""The picture of several masters: their losses over one another, and what of the ideal is reached."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tempo.bench.result import Row

#: Those of Okabe and Ito.
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7")
_GREY: Final = "#666666"


def draw_masters(path: Path, compared: list[Row], losses: list[Row]) -> None:
    """compared, losses: `masters` and `losses` of the JSON object; of the first scheme there."""
    compared, losses = (
        [row for row in rows if (row["scheme"], row["arithmetic"]) == _kind(rows[0])]
        for rows in (compared, losses)
    )
    figure = Figure(figsize=(10.0, 4.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    curves, gains = figure.subplots(1, 2)
    _curves(curves, losses, [row["masters"] for row in compared])
    _gains(gains, compared)
    for axes in (curves, gains):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)
    scheme, _ = _kind(compared[0])
    title = f"One training run by several masters, scheme {scheme}, the same batches"
    figure.suptitle(title, x=0.02, ha="left", fontweight="bold")
    figure.savefig(path, facecolor="white")


def _curves(axes: Axes, losses: list[Row], masters: list[int]) -> None:
    steps = [row["step"] for row in losses]
    plain = [row["tee_only"] for row in losses]
    axes.plot(steps, plain, color="#bbbbbb", linewidth=6, label="plain PyTorch")
    for number, count in enumerate(masters):
        values = [row[f"masters_{count}"] for row in losses]
        style = ("-", "--", ":")[number % 3]
        label = f"{count} master{'s' * (count > 1)}"
        axes.plot(steps, values, style, color=_COLOURS[number % len(_COLOURS)], linewidth=1.6, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(fontsize=8)


def _gains(axes: Axes, compared: list[Row]) -> None:
    masters = [row["masters"] for row in compared]
    one = compared[0]
    for number, (name, label) in enumerate(
        (
            ("seconds", "as measured, workers and masters on this machine"),
            ("own_seconds", "own part and exchange: workers never waited for"),
        )
    ):
        gains = [one[name] / row[name] for row in compared]
        axes.plot(masters, gains, "o-", color=_COLOURS[number], label=label)
    axes.plot(masters, masters, "--", color=_GREY, label="ideal")
    axes.set_xticks(masters)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("masters")
    axes.set_ylabel("times one master")
    axes.legend(fontsize=8)


def _kind(row: Row) -> tuple[str, str]:
    return row["scheme"], row["arithmetic"]
