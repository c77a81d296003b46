"""Picture of a frontier: leakage against the master's time, a marker for each setting, and the line of those
that no other is better than in both. Settings are numbered and named beside the picture, since labels at
markers that lie close hide each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_LINE: Final = "#0072B2"
_OTHER: Final = "#E69F00"
_GREY: Final = "#666666"
#: Offset in points of one number after the other, where markers lie close.
_OFFSETS: Final = ((7, 4), (7, -11), (-14, 4), (-14, -11), (0, 10), (0, -16))


def draw_frontier(path: Path, lines: Sequence[Mapping[str, Any]], subtitle: str) -> None:
    """lines: as `settings` in the JSON of bench frontier."""
    figure = Figure(figsize=(11.0, max(5.0, 1.6 + 0.24 * len(lines))), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes, names = figure.subplots(1, 2, width_ratios=(2.0, 1.3))
    best = sorted((each for each in lines if each["pareto"]), key=lambda each: float(each["cost_ratio"]))
    axes.step(
        [each["cost_ratio"] for each in best],
        [each["mean_leakage"] for each in best],
        where="post",
        color=_LINE,
        linewidth=1.2,
        zorder=1,
        label="the line: none is cheaper and leaks less",
    )
    seen: list[tuple[float, float]] = []
    span = max(each["cost_ratio"] for each in lines) - min(each["cost_ratio"] for each in lines) or 1.0
    for number, each in enumerate(lines, 1):
        at = float(each["cost_ratio"]), float(each["mean_leakage"])
        near = sum(abs(at[0] - c) < 0.05 * span and abs(at[1] - k) < 0.04 for c, k in seen)
        seen.append(at)
        # Shape as well as colour tells the line, and the default.
        marker = "*" if each["setting"] == "default" else "o" if each["pareto"] else "s"
        axes.plot(
            *at, marker, color=_LINE if each["pareto"] else _OTHER, markersize=12 if marker == "*" else 6
        )
        axes.annotate(
            str(number), at, xytext=_OFFSETS[near % len(_OFFSETS)], textcoords="offset points", fontsize=8
        )
    axes.set_ylim(-0.03, max(0.1, 1.15 * max(each["mean_leakage"] for each in lines)))
    axes.set_xlabel("master's time: copies of the operands of a layer, forward and backward")
    axes.set_ylabel("mean leakage of the attacks (0: chance, 1: as in the clear)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(loc="best", fontsize=8, frameon=False)
    names.axis("off")
    text = [f"{number:>2}  {each['setting']}" for number, each in enumerate(lines, 1)]
    names.text(0.0, 1.0, "\n".join(map(_wrapped, text)), va="top", fontsize=8, linespacing=1.35)
    figure.suptitle("Leakage against the master's time", x=0.02, ha="left", fontweight="bold")
    axes.set_title(subtitle, loc="left", fontsize=9, color=_GREY)
    figure.savefig(path, facecolor="white")


def _wrapped(text: str, width: int = 52) -> str:
    """A long name on more than one line."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if len(line) + len(word) > width:
            lines, line = [*lines, line], "     " + word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])
