"""The three products there are."""

from __future__ import annotations

from enum import Enum


class Op(Enum):
    PRODUCT = "product"
    GRAD_X = "grad_x"
    GRAD_W = "grad_w"
