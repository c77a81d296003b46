"""The one operation that crosses the trust boundary. Shared by both sides; knows no secret."""

from tempo.ops.arithmetic import Arithmetic, result_dtype
from tempo.ops.devices import compute, temporary_bytes
from tempo.ops.job import Job, Operand, result_shape
from tempo.ops.kind import Op
from tempo.ops.product import grad_w, grad_x, product, spans
from tempo.ops.unverified import Unverified

__all__ = [
    "Arithmetic",
    "Job",
    "Op",
    "Operand",
    "Unverified",
    "compute",
    "grad_w",
    "grad_x",
    "product",
    "result_dtype",
    "result_shape",
    "spans",
    "temporary_bytes",
]
