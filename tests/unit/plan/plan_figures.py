"""A made-up machine with round figures, and ops, for the tests of the planner."""

from __future__ import annotations

from tempo.plan.machine import MAPS, OPS, VERSION, Cost, Machine, Map, Pass, Passes, Plain, Tee, WorkerFigures
from tempo.plan.trace import Op


def cost(element=0.0, *, call=0.0, group=0.0, row=0.0):
    return Cost(call_seconds=call, group_seconds=group, row_seconds=row, element_seconds=element)


def each(one):
    return Pass(narrow_one=one, narrow_all=one, wide_one=one, wide_all=one)


def passes(*, encode=5e-9, decode=4e-9, check=1e-9, **others):
    free = dict.fromkeys(("keys", "features", "scan", "centre"), cost())
    return Passes(
        encode=each(cost(encode)),
        decode=each(cost(decode)),
        check=each(cost(check)),
        **{name: each(value) for name, value in (free | others).items()},
    )


def worker(name="w0", *, trip=0.0, up=1e9, down=1e9, flops=1e12, others=None):
    """others: flop/s in other numbers, by what follows the operation in their names."""
    return WorkerFigures(
        name=name,
        round_trip_seconds=trip,
        up_bytes_per_second=up,
        down_bytes_per_second=down,
        flops_per_second={
            op + kind: rate for kind, rate in {"": flops, **(others or {})}.items() for op in OPS
        },
    )


def machine(*, workers=None, scheme=None, overlap=0.0, together=1.0, flops=1e11, lowering=0.0):
    """b = 1e9 elements/s, F = `flops`; m = (min(5, 4) + 1) ns x 1e9 = 5."""
    plain = Plain(call_seconds=0.0, flop_seconds=1 / flops)
    return Machine(
        version=VERSION,
        measured_at="2026-01-01T00:00:00+00:00",
        calibration_seconds=1.0,
        probes=2,
        tee=Tee(
            cpu="made up",
            threads=2,
            memcpy_elements_per_second=1e9,
            matmul_flops_per_second={"float32": flops, "bfloat16": flops / 2},
            plain={"linear": plain, "conv": plain, "bmm": plain},
            other_element_seconds=1e-9,
        ),
        passes={"mixing": scheme or passes()},
        lowerings={"im2col": {name: Map(one=cost(lowering), all=cost(lowering)) for name in MAPS}},
        workers=workers or [worker()],
        together=together,
        overlap=overlap,
    )


def op(rows=1000, k=200, n=300, *, groups=1, want_x=True, want_w=True, operation="linear", **others):
    settings = {
        "itemsize": 4,
        "delicate": False,
        "weight_shared": False,
        "weight_computed": False,
        "module": "layer",
    }
    return Op(
        operation=operation,
        shape=(groups, rows, k, n),
        flops=2 * groups * rows * k * n,
        want_x=want_x,
        want_w=want_w,
        **(settings | others),
    )
