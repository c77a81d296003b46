"""The one operation that crosses the trust boundary. Shared by both sides; knows no secret."""

from tempo.ops.job import Job, Op, Operand, compute, result_shape
from tempo.ops.product import grad_w, grad_x, product, spans
from tempo.ops.unverified import Unverified

__all__ = [
    "Job",
    "Op",
    "Operand",
    "Unverified",
    "compute",
    "grad_w",
    "grad_x",
    "product",
    "result_shape",
    "spans",
]
