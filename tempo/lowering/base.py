"""What a lowering is: a layer as one batched product, and the way back.

Axes: G groups, R rows, K in-features, N out-features. With x and w the layer's own operands:

    X_GRK = lower_x(x)    W_GNK = lower_w(w)    Y_GRN = X W^T    y = raise_y(Y)

All three maps are linear, so the gradients take their adjoints:

    dY_GRN = lower_dy(dy)      adjoint of raise_y
    dx     = raise_dx(dX_GRK)  adjoint of lower_x
    dw     = raise_dw(dW_GNK)  adjoint of lower_w

A lowering is built from shapes alone and holds no tensor of the user's. The bias is the caller's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class ProductShape:
    """Sizes of the batched product a layer is lowered to."""

    groups: int
    rows: int
    k: int
    n: int


class Lowering(ABC):
    """Abstract: one final subclass per way of lowering."""

    #: Name for reports, such as "linear" or "winograd F(4,3)".
    name: str
    shape: ProductShape
    #: Flops of the layer computed directly, as PyTorch's flop counter counts its forward pass.
    flops: int

    @property
    def live_GR(self) -> Tensor | None:
        """Rows that count, (G, R) bool, or None for all of them. The others are padding by shape alone:
        raise_y drops their Y, and lower_dy leaves them zero."""
        return None

    @property
    def delicate(self) -> bool:
        """Its maps amplify errors too much for operands rounded to bfloat16."""
        return False

    @abstractmethod
    def lower_x(self, x: Tensor) -> Tensor:
        """x of the layer -> X_GRK."""

    @abstractmethod
    def lower_w(self, w: Tensor) -> Tensor:
        """w of the layer -> W_GNK."""

    @abstractmethod
    def raise_y(self, y_GRN: Tensor) -> Tensor:
        """Y_GRN -> y of the layer, without bias."""

    @abstractmethod
    def lower_dy(self, dy: Tensor) -> Tensor:
        """dy of the layer -> dY_GRN."""

    @abstractmethod
    def raise_dx(self, dx_GRK: Tensor) -> Tensor:
        """dX_GRK -> dx of the layer."""

    @abstractmethod
    def raise_dw(self, dw_GNK: Tensor) -> Tensor:
        """dW_GNK -> dw of the layer."""
