"""A torchvision without its compiled operators can be imported once their schemas are declared.

There is no CPU build of torchvision for every torch; timm imports it, and uses its Python parts alone.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def declare() -> torch.library.Library | None:
    """To be called before anything imports torchvision. The library is kept by the cache: schemas go with
    it."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _compiled(Path(spec.origin).parent):
        return None
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    return library


def _compiled(folder: Path) -> bool:
    """Its operators are there, and built for this torch."""
    try:
        for path in folder.glob("_C*.so"):
            torch.ops.load_library(path)
            return True
    except OSError:  # built for another torch, or for CUDA
        return False
    return False
