"""What a reader of a session's report must know about its settings."""

from __future__ import annotations

from tempo.config import Config
from tempo.secrecy.form import EVEN
from tempo.stats import Stats


def notes(config: Config, stats: Stats, *, truth: bool) -> list[str]:
    """truth: plain operands were written to disk."""
    known = {
        "monomial": "scheme monomial is the paper's mask; several attacks undo it. Use mixing for secrets",
        "unsafe_none": "scheme unsafe_none hides nothing",
        "mixing": "mixing is a heuristic: see docs/secrecy.md for what is measured and what leaks",
    }
    out = [known[config.scheme]]
    if truth:
        out.append("unsafe_truth: every plain operand and every basis was written to disk")
    if config.placement == "auto":
        out.append("placement auto rests on timings: another run may place and round differently")
    if config.scheme == "mixing" and config.key_shift:
        out.append("with key shift a worker can recognise a batch or a model it already knows")
    if not config.precision.full:
        full, rounded = stats.count("sent_full"), stats.count("sent_rounded")
        out.append(
            f"wire {config.wire}, arithmetic {config.arithmetic}: {full} of {full + rounded} X and dY were "
            f"kept in float32 all the same (rows that differ by more than {EVEN:g} times, or F(4,3))"
        )
    return out
