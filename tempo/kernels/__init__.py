"""The passes over tensors that secret bases and checks are made of."""

from tempo.kernels.axis import Axis, Monomial
from tempo.kernels.hidden import Hidden
from tempo.kernels.passes import Serving, contract, native_status, norms, project, ranking, transform
from tempo.kernels.plain import along, mix
from tempo.kernels.threads import threads_for
from tempo.kernels.transform import Transform

__all__ = [
    "Axis",
    "Hidden",
    "Monomial",
    "Serving",
    "Transform",
    "along",
    "contract",
    "mix",
    "native_status",
    "norms",
    "project",
    "ranking",
    "threads_for",
    "transform",
]
