"""The passes over tensors that secret bases and checks are made of."""

from tempo.kernels.axis import Axis, Monomial
from tempo.kernels.hidden import Hidden
from tempo.kernels.images import from_points, from_rows, from_windows, pooled, to_points, to_rows, to_windows
from tempo.kernels.passes import Serving, contract, native_status, norms, project, ranking, survey, transform
from tempo.kernels.pieces import pieces
from tempo.kernels.plain import along, mix
from tempo.kernels.plainness import resolved
from tempo.kernels.survey import Sums, Survey
from tempo.kernels.threads import threads_for
from tempo.kernels.tiles import Tiles
from tempo.kernels.transform import Transform
from tempo.kernels.windows import Windows

__all__ = [
    "Axis",
    "Hidden",
    "Monomial",
    "Serving",
    "Sums",
    "Survey",
    "Tiles",
    "Transform",
    "Windows",
    "along",
    "contract",
    "from_points",
    "from_rows",
    "from_windows",
    "pooled",
    "mix",
    "native_status",
    "norms",
    "pieces",
    "project",
    "ranking",
    "resolved",
    "survey",
    "threads_for",
    "to_points",
    "to_rows",
    "to_windows",
    "transform",
]
