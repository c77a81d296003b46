"""The one operation that crosses the trust boundary. Shared by both sides; knows no secret."""

from tempo.ops.arithmetic import Arithmetic, result_dtype
from tempo.ops.devices import Allocate, compute, temporary_bytes
from tempo.ops.job import Job, Operand, result_shape
from tempo.ops.kind import Op
from tempo.ops.product import grad_w, grad_x, product, spans
from tempo.ops.residues import KEY_BYTES, PRIMES, expand, expand_into
from tempo.ops.ring import (
    AnyJob,
    Half,
    Residues,
    RingJob,
    RingOperand,
    Seed,
    ring_compute,
    ring_temporary_bytes,
)
from tempo.ops.unverified import Unverified

__all__ = [
    "KEY_BYTES",
    "PRIMES",
    "Allocate",
    "AnyJob",
    "Arithmetic",
    "Half",
    "Job",
    "Op",
    "Operand",
    "Residues",
    "RingJob",
    "RingOperand",
    "Seed",
    "Unverified",
    "compute",
    "expand",
    "expand_into",
    "grad_w",
    "grad_x",
    "product",
    "result_dtype",
    "result_shape",
    "ring_compute",
    "ring_temporary_bytes",
    "spans",
    "temporary_bytes",
]
