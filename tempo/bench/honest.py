"""False alarms: honest replies in every arithmetic, of every kind of operands, in shapes of all classes.

Three counts, and they are not the same:

    products     replies that were computed, each of operands drawn afresh
    checks       decisions on a whole reply, each with probes of its own: `pairs` of them for every product
    row_checks   decisions on one row of one reply

An alarm is a check that refuses. Operands go as they are or in a secret basis, as a session sends them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final, final

import torch
from torch import Generator, Tensor

from tempo.bench.arithmetics import FORMS, Form, answer, job_of, one_after_another
from tempo.bench.budget import Budget
from tempo.bench.operands import KINDS, LARGE, SHAPES, Shape, constant, pair_of, sealed_pairs
from tempo.bench.result import Result
from tempo.integrity import Verifier
from tempo.integrity.freivalds import judge, prove
from tempo.ops import Job, Op
from tempo.secrecy.keys import SessionKey

Say = Callable[[str], None]

#: Probes of one check: the default of a session.
PROBES: Final = 2
#: How operands are sent.
_HOW: Final = ("as they are", "mixing", "monomial")
#: Inner lengths at which constant operands are summed one after another.
_INNER: Final = (256, 1024, 4096, 8192)


@final
@dataclass(slots=True)
class Tally:
    """products, checks, row_checks, alarms; ratio: the largest |difference| over tolerance, and of what."""

    products: int = 0
    checks: int = 0
    row_checks: int = 0
    alarms: int = 0
    ratio: float = 0.0
    worst: str = ""
    outputs: list[int] = field(default_factory=list)

    def take(self, job: Job, reply: Tensor, pairs: int, what: str) -> None:
        """Check one reply `pairs` times, each with fresh probes."""
        verifier = Verifier(SessionKey(), PROBES * pairs)
        found = judge(prove(verifier, [job])[job], reply)
        rows, outer = found.small.numel(), reply.shape[-1]
        passed_BR = found.within.view(rows, pairs, PROBES).all(2) & found.small.unsqueeze(1)
        self.products += 1
        self.checks += pairs
        self.row_checks += pairs * rows
        self.alarms += pairs - int(passed_BR.all(0).sum())
        self.outputs.append(rows * outer)
        ratio = float((found.difference / found.allowed).nan_to_num(0.0).amax()) if rows else 0.0
        if ratio > self.ratio:
            self.ratio, self.worst = ratio, what


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """checks: of products of all sizes. large: of products with more than 10^6 results. pairs: checks of one
    reply. kinds: of operands."""

    checks: int = 1_000_000
    large: int = 10_000
    pairs: int = 64
    kinds: Sequence[str] = tuple(kind for kind in KINDS if kind != "constant")
    shapes: Sequence[Shape] = SHAPES
    large_shapes: Sequence[Shape] = LARGE


def run(settings: Settings, result: Result, budget: Budget, say: Say) -> None:
    """Rows with `tamper` "none": one for each operation, form and way of sending."""
    large = budget.part(0.4)
    goals = (
        ("more than 10^6 results", settings.large_shapes, settings.large, large),
        ("of all shapes", settings.shapes, settings.checks, budget),
    )
    for name, shapes, goal, limit in goals:
        say(f"integrity: honest workers, {goal:,} checks, products {name}")
        tallies = _count(settings, shapes, goal, limit, seed=len(name))
        for (op, form, how), tally in sorted(tallies.items()):
            result.add(
                op=op,
                dtype=form,
                tamper="none",
                checks=tally.checks,
                false_alarms=tally.alarms,
                row_checks=tally.row_checks,
                products=tally.products,
                largest_ratio=tally.ratio,
                operands=how,
                shape=f"{name}; worst {tally.worst}",
            )
        done = sum(tally.checks for tally in tallies.values())
        alarms = sum(tally.alarms for tally in tallies.values())
        label = "large" if shapes is settings.large_shapes else "all"
        result.extra[f"honest_{label}"] = {
            "products": sum(tally.products for tally in tallies.values()),
            "checks": done,
            "row_checks": sum(tally.row_checks for tally in tallies.values()),
            "false_alarms": alarms,
            "least_results": min(min(tally.outputs) for tally in tallies.values()),
        }
        if done < goal:
            budget.skip(f"honest checks, products {name}", f"{done:,} of {goal:,} were done in the time")
        if alarms:
            result.broken.append(f"{alarms} false alarms in {done:,} checks of honest replies")


def _count(
    settings: Settings, shapes: Sequence[Shape], goal: int, budget: Budget, seed: int
) -> dict[tuple[str, str, str], Tally]:
    tallies: dict[tuple[str, str, str], Tally] = {}
    done = 0
    for shape, kind, how, op, form, job in _jobs(settings, shapes, seed):
        reply = answer(job, form.rounds)
        if not bool(reply.isfinite().all()):
            continue  # heavy tails beyond float32: a session does not send such operands
        tally = tallies.setdefault((op.value, form.name, how), Tally())
        tally.take(job, reply, settings.pairs, f"{kind}, {shape.name}")
        done += settings.pairs
        if done >= goal or budget.left <= 0:
            break
    return tallies


def _jobs(
    settings: Settings, shapes: Sequence[Shape], seed: int
) -> Iterator[tuple[Shape, str, str, Op, Form, Job]]:
    """Without end: all combinations in turn, operands drawn afresh each time; one draw serves all forms."""
    g = torch.Generator().manual_seed(seed)
    combinations = [(s, k, h) for k in settings.kinds for h in _HOW for s in shapes]
    step = next(s for s in (7, 11, 13, 17) if len(combinations) % s)  # neighbours differ in all three
    for number in cycle(range(len(combinations))):
        shape, kind, how = combinations[number * step % len(combinations)]
        for op, pair in _pairs(shape, kind, how, g):
            for form in FORMS:
                yield shape, kind, how, op, form, job_of(op, *pair, shape.rows, form)


def _pairs(shape: Shape, kind: str, how: str, g: Generator) -> Iterator[tuple[Op, tuple[Tensor, Tensor]]]:
    draw = KINDS[kind]
    if how == "as they are":
        for op in Op:
            yield op, pair_of(op, shape, draw, g)
    else:
        yield from sealed_pairs(how, shape, draw, g, torch.float64).items()


def constants(result: Result, pairs: int, say: Say) -> None:
    """Constant operands summed one after another: the model of the calibrated tier leaves these out
    (docs/numerics.md, section 2). How often a worker is wrongly accused, by scheme."""
    say("integrity: constant operands, summed one after another")
    g, form = torch.Generator().manual_seed(5), FORMS[0]
    for how in _HOW:
        for inner in _INNER:
            shape, tally = Shape("constant", (64,), inner, 64), Tally()
            pair = (
                pair_of(Op.PRODUCT, shape, constant, g)
                if how == "as they are"
                else sealed_pairs(how, shape, constant, g, torch.float64)[Op.PRODUCT]
            )
            job = job_of(Op.PRODUCT, *pair, shape.rows, form)
            tally.take(job, one_after_another(job), pairs, "constant")
            result.add(
                op=Op.PRODUCT.value,
                dtype="float32, sequential",
                tamper="none",
                checks=tally.checks,
                false_alarms=tally.alarms,
                row_checks=tally.row_checks,
                products=tally.products,
                largest_ratio=tally.ratio,
                operands=f"constant, {how}",
                shape=shape.text,
            )
            if how == "mixing" and tally.alarms:
                result.broken.append(
                    f"false alarms with constant operands under mixing, inner length {inner}"
                )
