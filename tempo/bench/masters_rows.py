"""What several masters gained over one, from their runs: rows of suite `scale`, and two tables beside them.

    efficiency      (seconds of one master / n) / seconds of n
    own_efficiency  the same of own_seconds: machines of their own, workers never waited for (masters.py)
    cpu_efficiency  the same of the CPU seconds of the busiest master, which say little of waiting, but do not
                    depend on who else runs on the machine

Losses are held to those of plain training of the same run, within what rounding may do (docs/numerics.md).
"""

from __future__ import annotations

from typing import Any, Final

from tempo.bench.crew import Crew
from tempo.bench.masters import Runs, cores
from tempo.bench.one_master import Found, Trained
from tempo.bench.result import Result
from tempo.bench.variant import Variant
from tempo.numerics import loss_tolerance

PHASE: Final = "masters"


def add(result: Result, runs: Runs, crew: Crew, variant: Variant) -> None:
    """Rows of phase "masters"; `masters` and `losses` of the JSON object; and what was broken."""
    _notes(result, runs, crew)
    _rows(result, runs, crew, variant)
    compared = [_compared(runs, variant, masters) for masters in runs.found]
    result.extra["masters"] = result.extra.get("masters", []) + compared
    result.extra["losses"] = result.extra.get("losses", []) + _losses(runs, variant)
    for each in compared:
        if (times := each["loss_difference_over_allowed"]) > 1.0:
            result.broken.append(
                f"losses of {each['masters']} masters are {times:.1f} times as far from plain ones as allowed"
            )
    failed = sum(rank.failed for ranks in runs.found.values() for rank in ranks)
    if failed:
        result.broken.append(f"{failed} checks of honest workers failed")


def _rows(result: Result, runs: Runs, crew: Crew, variant: Variant) -> None:
    plan, plain = runs.plan, _one(runs).plain
    tee = min(plain[each].seconds.median for each in ("fp32", "bf16"))

    def row(op: str, trained: Trained, **values: Any) -> None:
        spread = trained.seconds
        result.add(
            op=op,
            shape=[plan.rows, *[plan.width] * (plan.layers + 1), 10],
            phase=PHASE,
            workers_are=crew.text,
            seconds=spread.median,
            seconds_min=spread.low,
            seconds_max=spread.high,
            repeats=spread.count,
            samples_per_second=plan.rows / spread.median,
            speedup_over_tee_only=tee / spread.median,
            **values,
        )

    for arithmetic in ("fp32", "bf16"):
        row(
            "training",
            plain[arithmetic],
            mode="tee-only",
            arithmetic=arithmetic,
            verify=False,
            workers=0,
            bytes=0,
            masters=1,
            master_seconds=plain[arithmetic].seconds.median,
            master_cpu_seconds=plain[arithmetic].cpu_seconds,
        )
    for masters, ranks in runs.found.items():
        own = max(rank.own_seconds for rank in ranks)
        row(
            f"training by {masters} master{'s' * (masters > 1)}",
            _slowest(ranks),
            mode="tempo",
            scheme=variant.scheme,
            arithmetic=variant.arithmetic,
            verify=True,
            workers=crew.count * masters,
            bytes=round(sum(rank.bytes for rank in ranks)),
            master_seconds=own,
            check_seconds=max(rank.check_seconds for rank in ranks),
            speedup_if_workers_were_free=tee / own,
            masters=masters,
            master_cpu_seconds=max(rank.trained.cpu_seconds for rank in ranks),
            exchange_seconds=_exchange(ranks),
            exchange_bytes=round(sum(rank.trained.sent for rank in ranks)),
        )


def _compared(runs: Runs, variant: Variant, masters: int) -> dict[str, Any]:
    ranks, one, plan = runs.found[masters], _one(runs), runs.plan
    seconds, own = _slowest(ranks).seconds.median, max(rank.own_seconds for rank in ranks) + _exchange(ranks)
    cpu, cpu_one = max(rank.trained.cpu_seconds for rank in ranks), one.trained.cpu_seconds
    ideal, own_ideal = one.trained.seconds.median / masters, one.own_seconds / masters
    plain = {name: trained.losses for name, trained in one.plain.items()}
    exact = plain["fp64" if variant.arithmetic == "fp32" else "bf16"]
    allowed = loss_tolerance(plain["fp32"], exact, variant.config().precision)
    losses = ranks[0].trained.losses
    gaps = [abs(a - b) for a, b in zip(losses, plain["fp32"], strict=True)]
    return {
        "masters": masters,
        "scheme": variant.scheme,
        "arithmetic": variant.arithmetic,
        "cores_each": len(plan.cores[0]) if plan.cores else None,
        "samples_per_second": plan.rows / seconds,
        "seconds": seconds,
        "ideal_seconds": ideal,
        "efficiency": ideal / seconds,
        "own_seconds": own,
        "own_ideal_seconds": own_ideal,
        "own_efficiency": own_ideal / own,
        "cpu_seconds": cpu,
        "cpu_efficiency": cpu_one / masters / cpu,
        "exchange_seconds": _exchange(ranks),
        "exchange_bytes_each": round(max(rank.trained.sent for rank in ranks)),
        "loss_difference": max(gaps),
        "loss_difference_over_allowed": max(a / b for a, b in zip(gaps, allowed, strict=True)),
        "loss_difference_from_one": max(abs(a - b) for a, b in zip(losses, one.trained.losses, strict=True)),
    }


def _losses(runs: Runs, variant: Variant) -> list[dict[str, Any]]:
    """A line for each step: plainly, and by so many masters."""
    return [
        {"scheme": variant.scheme, "arithmetic": variant.arithmetic, "step": step, "tee_only": loss}
        | {f"masters_{masters}": ranks[0].trained.losses[step] for masters, ranks in runs.found.items()}
        for step, loss in enumerate(_one(runs).plain["fp32"].losses)
    ]


def _notes(result: Result, runs: Runs, crew: Crew) -> None:
    result.note(
        "masters: evidence is simulated, since there need be no TEE here; TLS, keys and checks are real"
    )
    here = len(cores())
    if not runs.plan.cores:
        most = max(runs.found)
        result.note(f"masters: {most} share {here} cores, so seconds say little: see own_seconds of masters")
        return
    each = len(runs.plan.cores[0])
    who = "which its workers share, " if crew.shared else ""
    result.note(
        f"masters: each is pinned to {each} of {here} cores, {who}one master alone and plain training "
        "too; memory, caches and power are those of one machine"
    )


def _one(runs: Runs) -> Found:
    return runs.found[1][0]


def _slowest(ranks: list[Found]) -> Trained:
    return max((rank.trained for rank in ranks), key=lambda trained: trained.seconds.median)


def _exchange(ranks: list[Found]) -> float:
    return max(rank.exchange_seconds for rank in ranks)
