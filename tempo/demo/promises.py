"""What the demo promises, and whether a run kept it. A broken promise is exit code 1.

Both runs start from the same parameters and see the same batches; they differ by rounding alone. How far
that may drive their losses apart is derived in docs/numerics.md, section 4, and owned by
`tempo.numerics.loss_tolerance`.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Of the test images. 2,000 images: one standard error is 0.4 %.
ACCURACY_BOUND = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is needed to judge a run."""

    plain_losses: list[float]
    tempo_losses: list[float]
    allowed_differences: list[float]
    plain_accuracy: float
    tempo_accuracy: float
    encodings_per_step: float
    encodings_without_key_shift: float
    lies_told: int
    checks_failed: int
    liar: str
    quarantined: list[str]
    killed: bool


def broken(run: Kept) -> list[str]:
    """One sentence per broken promise; empty if all were kept."""
    found: list[str] = []
    if len(run.tempo_losses) != len(run.plain_losses):
        found.append(f"training ended after {len(run.tempo_losses)} of {len(run.plain_losses)} steps")
    curves = zip(run.plain_losses, run.tempo_losses, run.allowed_differences, strict=False)
    for step, (plain, tempo, allowed) in enumerate(curves):
        # Negated, so that a NaN breaks the promise too.
        if not abs(plain - tempo) <= allowed:
            found.append(
                f"at step {step} the losses differ by {abs(plain - tempo):.2g}; allowed {allowed:.2g}"
            )
            break
    if not abs(run.plain_accuracy - run.tempo_accuracy) <= ACCURACY_BOUND:
        found.append(
            f"accuracies are {run.plain_accuracy:.4f} plain and {run.tempo_accuracy:.4f} with Tempo; "
            f"allowed difference {ACCURACY_BOUND}"
        )
    if not 0 < 2 * run.encodings_per_step <= run.encodings_without_key_shift:
        found.append(
            f"{run.encodings_per_step:g} encodings per step, {run.encodings_without_key_shift:g} without key "
            "shift; promised is half"
        )
    if run.lies_told == 0:
        found.append(f"{run.liar} never came to lie: nothing was shown (more steps, or lie earlier)")
    elif run.checks_failed != run.lies_told:
        found.append(f"{run.liar} lied {run.lies_told} times and was caught {run.checks_failed} times")
    elif run.liar not in run.quarantined:
        found.append(f"{run.liar} lied and was not quarantined")
    if not run.killed:
        found.append("no worker was killed: nothing was shown")
    return found
