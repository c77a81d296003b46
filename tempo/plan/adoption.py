"""The three stages from one pilot to routine use, each with what ends it, in the user's own figures.

    pilot          the most sensitive project, once: does it work, what does it cost, what leaks
    standardise    every project by the same rules: keys, evidence, log, prices
    routine        nothing to decide any more: limits that raise a question when they are passed

A criterion is a name, figures with their unit in the name, and the command that measures it. state: "met" or
"not met" where the plan itself can tell, else "open".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any, Final, final

from tempo.plan.breakeven import Even
from tempo.plan.command import measuring
from tempo.plan.measure import Comparison
from tempo.plan.money import Option
from tempo.plan.plan import Plan

MET: Final = "met"
NOT_MET: Final = "not met"
OPEN: Final = "open"
#: Predictions are off by some tens of per cent (docs/plan.md): what is further off needs a reason.
MARGIN: Final = 1.3
#: Share of lies that a pilot must show is not missed more often than, with 95 % confidence.
MISSED: Final = 0.01
#: Rule of three (Hanley and Lippman-Hand, JAMA 249, 1983): n trials without a miss bound it by 3 / n.
_THREE: Final = 3.0


@final
@dataclass(frozen=True, slots=True)
class Criterion:
    name: str
    values: dict[str, float | str] = field(default_factory=dict)
    command: str = ""
    state: str = OPEN


@final
@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    criteria: tuple[Criterion, ...]

    def fields(self) -> dict[str, Any]:
        return asdict(self) | {"criteria": [asdict(each) for each in self.criteria]}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known before money is spent. samples, epochs: None where they were not given."""

    model: str
    plan: Plan
    scheme: str
    inference: bool
    wire: str
    arithmetic: str
    leakage_class: str
    batch: int
    samples: int | None
    epochs: int | None
    options: Sequence[Option]
    even: Sequence[Even]
    comparisons: Sequence[Comparison]

    @property
    def epoch_cost(self) -> float | None:
        return next((o.cost for o in self.options if o.name == "tempo"), None)

    def point(self, name: str) -> Even | None:
        return next((e for e in self.even if e.name == name), None)


def adoption(facts: Facts) -> list[Stage]:
    """The stages in their order."""
    return [
        Stage("pilot", tuple(_pilot(facts))),
        Stage("standardise", tuple(_standardise(facts))),
        Stage("routine", tuple(_routine(facts))),
    ]


def _pilot(f: Facts) -> list[Criterion]:
    out = [_speed(f)]
    steps = {} if f.samples is None else {"steps_count": float(ceil(f.samples / f.batch))}
    out.append(Criterion("accuracy_epoch" if steps else "accuracy", dict(steps)))
    attack = f"tempo attack --script train.py:subject --scheme {f.scheme} --require visible"
    out.append(Criterion("attacks", {"scheme": f.scheme}, attack))
    out.append(Criterion("leakage", {"leakage_class": f.leakage_class}, "", MET))
    lies = float(ceil(_THREE / MISSED))
    out.append(
        Criterion("lies", {"lies_count": lies, "missed_share": MISSED}, "tempo bench integrity --out results")
    )
    if f.epoch_cost is not None and f.epochs is not None:
        out.append(
            Criterion(
                "pilot_cost",
                {"epochs_count": float(f.epochs), "limit_cost": MARGIN * f.epochs * f.epoch_cost},
            )
        )
    elif f.epoch_cost is not None:
        out.append(Criterion("epoch_cost", {"limit_cost": MARGIN * f.epoch_cost}))
    else:
        out.append(Criterion("cost_unknown", {}, f"tempo plan {f.model} --samples N --tee-per-hour PRICE"))
    return out


def _speed(f: Facts) -> Criterion:
    predicted = f.plan.tempo_seconds
    values: dict[str, float | str] = {
        "predicted_seconds": predicted,
        "limit_seconds": MARGIN * predicted,
        "margin_share": MARGIN - 1,
    }
    command = measuring(
        f.model,
        batch=f.batch,
        scheme=f.scheme,
        inference=f.inference,
        wire=f.wire,
        arithmetic=f.arithmetic,
    )
    measured = next((c.measured_seconds for c in f.comparisons if c.part == "tempo step"), None)
    if measured is None:
        return Criterion("speed", values, command)
    values["measured_seconds"] = measured
    return Criterion("speed_measured", values, command, MET if measured <= MARGIN * predicted else NOT_MET)


def _standardise(f: Facts) -> list[Criterion]:
    gain = f.plan.tee_seconds / f.plan.tempo_seconds if f.plan.tempo_seconds else 1.0
    pays = MET if f.plan.offloaded and gain > 1 else NOT_MET
    out = [Criterion("pays", {"speedup_times": gain}, "", pays)]
    if (gpu := f.point("gpu_per_hour")) is not None:
        if gpu.price is None:
            out.append(Criterion("gpu_never", {}, "", NOT_MET))
        else:
            out.append(Criterion("gpu_price", {"limit_price": gpu.price}, "", _state(gpu)))
    if f.plan.offloaded:
        sizes: dict[str, float | str] = {
            "tee_bytes": float(f.plan.tee_peak_bytes),
            "worker_bytes": float(f.plan.worker_peak_bytes),
        }
        out.append(Criterion("memory", sizes))
    out.append(
        Criterion("attestation", {}, "tempo attest verify EVIDENCE --policy POLICY --signer KEY --nonce HEX")
    )
    out.append(Criterion("keys", {}, "tempo log verify LOG --key KEY"))
    out.append(Criterion("chaos", {}, "tempo bench chaos --minutes 30"))
    return out


def _routine(f: Facts) -> list[Criterion]:
    out = [Criterion("drift", {"margin_share": MARGIN - 1, "limit_seconds": MARGIN * f.plan.tempo_seconds})]
    if f.epoch_cost is not None:
        out.append(Criterion("routine_cost", {"limit_cost": MARGIN * f.epoch_cost}))
    if (confidential := f.point("confidential_gpu_per_hour")) is not None and confidential.price is not None:
        values: dict[str, float | str] = {"limit_price": confidential.price}
        out.append(Criterion("alternative", values, "", _state(confidential)))
    out.append(Criterion("incidents", {}, "tempo log verify LOG --key KEY --since CHECKPOINT"))
    out.append(Criterion("release", {}, f"tempo attack --scheme {f.scheme} --require visible"))
    return out


def _state(even: Even) -> str:
    return {True: MET, False: NOT_MET, None: OPEN}[even.favours_tempo]
