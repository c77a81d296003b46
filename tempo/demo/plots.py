"""The demo's pictures. The title of each says what was found. No pyplot, so no global state.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; lines differ in style too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
#: Shown instead of a difference of exactly zero, which a logarithmic axis cannot.
_LEAST = 1e-8


def loss_curves(
    path: Path,
    plain: Sequence[float],
    tempo: Sequence[float],
    allowed: Sequence[float],
    *,
    lies: Sequence[int],
    kill: int | None,
    subtitle: str,
) -> None:
    """Both curves, their difference below on a logarithmic axis with the allowed one, and where workers
    lied and died."""
    figure, (above, below) = _figure(8.0, 6.4, rows=2, heights=(3, 2))
    difference = [max(_LEAST, abs(a - b)) for a, b in zip(plain, tempo, strict=True)]
    steps = range(len(plain))
    above.plot(steps, plain, color=ORANGE, linewidth=4, alpha=0.7, label="plain PyTorch")
    above.plot(steps, tempo, color=BLUE, linewidth=1.3, linestyle="--", label="Tempo, untrusted workers")
    above.set_ylabel("training loss")
    above.set_ylim(bottom=0)
    below.semilogy(steps, allowed, color=ORANGE, linewidth=1.6, linestyle=(0, (5, 2)), label="allowed")
    below.semilogy(steps, difference, color=GREY, linewidth=1.2, label="measured")
    below.set_ylabel("absolute difference")
    below.set_xlabel("training step")
    for axes in (above, below):
        for number, step in enumerate(lies):
            label = "a worker lied, was caught, quarantined" if number == 0 else None
            axes.axvline(step, color=RED, linewidth=1.4, linestyle=":", label=label)
        if kill is not None:
            label = "a worker was killed between forward and backward"
            axes.axvline(kill, color=GREEN, linewidth=1.6, linestyle="-.", label=label)
    above.legend(loc="upper right", framealpha=1.0, edgecolor="white")
    # Room for the legend above the bound; the events are named in the picture above.
    below.set_ylim(top=30 * max(allowed))
    below.legend(
        handles=list(below.get_lines()[:2]), loc="upper right", framealpha=1.0, edgecolor="white", ncols=2
    )
    worst = max(difference)
    title = f"The curves are one: the losses of both runs differ by {worst:.2g} at most"
    _title(figure, title, subtitle)
    _save(figure, path)


def time_by_part(path: Path, seconds: Mapping[str, float], total: float, subtitle: str) -> None:
    """Where the master's time went, longest first. Nothing is drawn without parts or time."""
    if not seconds or not total:
        return
    parts = sorted(seconds.items(), key=lambda part: part[1])
    figure, (axes,) = _figure(8.0, 1.6 + 0.42 * len(parts))
    bars = axes.barh([name for name, _ in parts], [taken for _, taken in parts], color=BLUE, height=0.62)
    labels = [f"{taken:.1f} s   {100 * taken / total:.0f} %" for _, taken in parts]
    axes.bar_label(bars, labels, padding=4, fontsize=10)
    axes.set_xlabel("seconds of the master")
    axes.margins(x=0.2)
    axes.grid(axis="y", visible=False)
    name, taken = parts[-1]
    _title(figure, f"Of the master's time for products, {name} takes {100 * taken / total:.0f} %", subtitle)
    _save(figure, path)


def encodings(path: Path, with_key_shift: float, without: float, subtitle: str) -> None:
    """Encodings per training step, measured, beside what the same products take without key shift."""
    figure, (axes,) = _figure(6.4, 4.2)
    bars = axes.bar(
        ["key shift", "without"],
        [with_key_shift, without],
        color=[BLUE, ORANGE],
        width=0.55,
        hatch=["", "//"],
    )
    axes.bar_label(bars, [f"{value:g}" for value in (with_key_shift, without)], padding=3, fontsize=12)
    axes.set_ylabel("encodings per training step")
    axes.margins(y=0.15)
    axes.grid(axis="x", visible=False)
    saved = 100 * (1 - with_key_shift / without) if without else 0.0
    _title(figure, f"Key shift saves {saved:.0f} % of the encodings", subtitle)
    _save(figure, path)


def _figure(
    width: float, height: float, rows: int = 1, heights: Sequence[float] = (1,)
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, 1, height_ratios=list(heights))
    every: list[Axes] = []
    for row in range(rows):
        axes = figure.add_subplot(grid[row], sharex=every[0] if every else None)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)
        if row < rows - 1:
            axes.tick_params(labelbottom=False)
        every.append(axes)
    return figure, every


def _title(figure: Figure, finding: str, subtitle: str) -> None:
    figure.suptitle(finding, x=0.02, ha="left", fontsize=13, fontweight="bold")
    figure.axes[0].set_title(subtitle, loc="left", fontsize=9.5, color=GREY)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, facecolor="white")
