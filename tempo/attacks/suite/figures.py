"""Pictures of what the suite found. No pyplot, so no global state; colours are those of Okabe and Ito.

attack-verdicts.png          attack by scheme, the worst verdict of each, in words
attack-scores.png            score with its interval, beside chance and the undefended score
attack-SCHEME-pictures.png   what was recovered beside what was true
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from tempo.attacks.suite.rows import NOTHING, RANK, SKIPPED, Picture, Result, Row
from tempo.attacks.verdict import Finding, Verdict

#: Colour of the cell, and of the text in it.
_CELLS: Final = {
    Verdict.HOLDS.value: ("#009E73", "white"),
    Verdict.VISIBLE.value: ("#56B4E9", "black"),
    Verdict.UNDECIDED.value: ("#DDDDDD", "black"),
    Verdict.LEAKS.value: ("#E69F00", "black"),
    Verdict.BROKEN.value: ("#D55E00", "white"),
    SKIPPED: ("#FFFFFF", "#888888"),
    NOTHING: ("#FFFFFF", "#888888"),
}
_SCHEMES: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_GREY: Final = "#666666"
_MOST_ROWS: Final = 80
_MOST_PICTURES: Final = 24
_SIDE: Final = 96


def draw(result: Result, folder: Path) -> list[Path]:
    """Where the pictures are."""
    if not result.rows:
        return []
    paths = [folder / "attack-verdicts.png"]
    _verdicts(paths[0], result)
    if any(row.finding for row in result.rows):
        paths.append(folder / "attack-scores.png")
        _scores(paths[-1], result)
    for scheme in dict.fromkeys(picture.scheme for picture in result.pictures):
        shown = [picture for picture in result.pictures if picture.scheme == scheme]
        paths.append(folder / f"attack-{re.sub(r'[^a-z0-9_]+', '-', scheme.lower())}-pictures.png")
        _pictures(paths[-1], scheme, shown)
    return paths


def worst(rows: Sequence[Row]) -> str:
    """Of several operands and references, the verdict that a user should know of."""
    findings = [row.finding for row in rows if row.finding is not None]
    found = [of.verdict for of in findings if not of.idle] or [of.verdict for of in findings]
    if found:
        return max(found, key=RANK.index).value
    return SKIPPED if any(row.missed for row in rows) else NOTHING


def _verdicts(path: Path, result: Result) -> None:
    schemes, attacks = result.schemes(), list(dict.fromkeys(row.attack for row in result.rows))
    figure, axes = _figure(3.2 + 1.7 * len(schemes), 1.3 + 0.42 * len(attacks))
    for i, attack in enumerate(attacks):
        for j, scheme in enumerate(schemes):
            rows = [row for row in result.rows if (row.attack, row.scheme) == (attack, scheme)]
            if not rows:  # settings that this attack is not run under
                continue
            verdict = worst(rows)
            back, front = _CELLS[verdict]
            axes.fill_between([j, j + 1], i, i + 1, facecolor=back, edgecolor="white", linewidth=2)
            axes.text(j + 0.5, i + 0.5, verdict, color=front, ha="center", va="center", fontsize=9)
    axes.set_xlim(0, len(schemes))
    axes.set_ylim(len(attacks), 0)
    axes.set_xticks([j + 0.5 for j in range(len(schemes))], schemes, fontsize=9)
    axes.set_yticks([i + 0.5 for i in range(len(attacks))], attacks, fontsize=9)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    figure.suptitle("What each attack found: the worst of its operands", x=0.02, ha="left", fontweight="bold")
    figure.savefig(path, facecolor="white")


def _scores(path: Path, result: Result) -> None:
    """A line for each attack, reference and operand; a mark for each scheme."""
    schemes = result.schemes()
    lines: dict[tuple[str, str, str], list[Finding]] = {}
    for row in result.rows:
        if row.finding is not None:
            lines.setdefault((row.attack, row.reference, row.finding.operand), []).append(row.finding)
    shown = list(lines.items())[:_MOST_ROWS]
    figure, axes = _figure(10.5, 1.8 + 0.36 * len(shown))
    for i, (_, findings) in enumerate(shown):
        axes.axhline(i + 0.5, color="#eeeeee", linewidth=0.8, zorder=0)
        for found in findings:
            number = schemes.index(found.scheme)
            at = i + (number - (len(schemes) - 1) / 2) * 0.7 / max(1, len(schemes))
            # An interval of one trial is the whole range: it is drawn as wide as the axis.
            low, high = (min(max(v, -0.05), 1.05) for v in (found.low, found.high))
            colour = _SCHEMES[number % len(_SCHEMES)]
            axes.plot([low, high], [at, at], color=colour, linewidth=1.5)
            axes.plot([found.score], [at], "o", color=colour, markersize=4.5)
        chance = findings[0].chance
        axes.plot([chance, chance], [i - 0.42, i + 0.42], color=_GREY, linestyle=":", linewidth=1.5)
        clear = findings[0].undefended
        if clear == clear:
            axes.plot([clear, clear], [i - 0.42, i + 0.42], color="black", linewidth=1.2)
    names = [f"{attack}: {operand}\n({reference})" for (attack, reference, operand), _ in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=7)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(-0.06, 1.06)
    axes.set_xlabel("score; lines are 95 % intervals")
    for number, scheme in enumerate(schemes):
        axes.plot([], [], "o-", color=_SCHEMES[number % len(_SCHEMES)], markersize=4.5, label=scheme)
    axes.plot([], [], ":", color=_GREY, label="chance")
    axes.plot([], [], "-", color="black", label="undefended")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, 1.0 + 0.75 / max(3.0, len(shown) * 0.36)), ncols=4)
    cut = "" if len(shown) == len(lines) else f" (the first {_MOST_ROWS} of {len(lines)})"
    figure.suptitle(
        f"Scores against chance and the undefended run{cut}", x=0.02, ha="left", fontweight="bold"
    )
    figure.savefig(path, facecolor="white")


def _pictures(path: Path, scheme: str, pictures: Sequence[Picture]) -> None:
    """Pairs side by side, three to a line."""
    shown = pictures[:_MOST_PICTURES]
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3.6 * columns, 0.9 + 2.15 * lines), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, picture in enumerate(shown):
        left = grid[number // columns][2 * (number % columns)]
        right = grid[number // columns][2 * (number % columns) + 1]
        left.imshow(shades(picture.recovered), cmap="gray", interpolation="nearest")
        right.imshow(shades(picture.true), cmap="gray", interpolation="nearest")
        left.set_title(f"{picture.attack}\n{picture.title}", fontsize=6.5, loc="left")
        right.set_title("true", fontsize=6.5, loc="left", color=_GREY)
    figure.suptitle(f"Recovered beside true, {scheme}", x=0.02, ha="left", fontweight="bold")
    figure.savefig(path, facecolor="white")


def shades(image: Tensor) -> NDArray[np.float32]:
    """(H, W) from 0 to 1, large ones thinned out."""
    flat = image.detach().float().reshape(image.shape[-2:])
    step = max(1, max(flat.shape) // _SIDE)
    flat = torch.nan_to_num(flat[::step, ::step])
    low, high = flat.min(), flat.max()
    grey: NDArray[np.float32] = ((flat - low) / (high - low).clamp_min(1e-12)).numpy()
    return grey


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
