"""What a report says in words: what stands behind the scheme, and what the settings cost or leave open."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from tempo.fleet import Fleet
from tempo.nn.consent import public_note
from tempo.report import verdicts
from tempo.report.session import OpRow
from tempo.secrecy.form import EVEN
from tempo.secrecy.visible import Layer, ordered, visible
from tempo.sharing import Owners
from tempo.sharing.assemble import notes as of_shares
from tempo.stats import Stats

if TYPE_CHECKING:
    from tempo.config import Config

_SCHEMES = {
    "monomial": "scheme monomial is the paper's mask; several attacks undo it. Use mixing for secrets",
    "unsafe_none": "scheme unsafe_none hides nothing",
    "mixing": "mixing is a heuristic: see docs/secrecy.md for what is measured and what leaks",
}


def session_notes(
    config: Config, stats: Stats, fleet: Fleet | Owners, *, public: Collection[str], truth: bool
) -> list[str]:
    """public: modules whose weights were declared public. truth: plain operands were written down."""
    out = of_shares(config, fleet) if isinstance(fleet, Owners) else [_SCHEMES[config.scheme]]
    out.append(verdicts.note(config))
    if truth:
        out.append("unsafe_truth: every plain operand and every basis was written to disk")
    if isinstance(fleet, Owners):
        return out
    if config.placement == "auto":
        out.append("placement auto rests on timings: another run may place and round differently")
    if public and config.scheme in ("mixing", "monomial"):
        out.append(f"weights of {len(public)} modules are public: {public_note(config.scheme)}")
    if repeated := stats.count("repeated_dy"):
        out.append(
            f"{repeated} gradients were computed here: too many of their rows repeat (setting repeats)"
        )
    if left := stats.count("unfilled"):
        filled = stats.count("filled")
        out.append(f"features alike in all rows: {filled} filled, {left} left as they are (setting fill)")
    if config.scheme == "mixing" and config.key_shift:
        out.append("with key shift a worker can recognise a batch or a model it already knows")
    if not config.precision.full:
        full, rounded = stats.count("sent_full"), stats.count("sent_rounded")
        out.append(
            f"wire {config.wire}, arithmetic {config.arithmetic}: {full} of {full + rounded} X and dY were "
            f"kept in float32 all the same (rows that differ by more than {EVEN:g} times, or F(4,3))"
        )
    return out


def with_visible(rows: Iterable[OpRow], config: Config, public: Collection[str]) -> list[OpRow]:
    """The rows, those that were sent with what is visible of them by construction."""

    def seen(row: OpRow) -> OpRow:
        layer = Layer(public=row.module in public, trains=row.backward_flops > 0)
        return replace(row, visible=ordered(visible(config.scheme, config, layer)))

    return [seen(row) if row.offloaded else row for row in rows]
