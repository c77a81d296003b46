"""What computes lowered products away from home: the seam between autograd and whatever hides operands.

tempo/engine.py      one fleet, operands in secret bases
tempo/sharing        a fleet for each owner of workers, operands in shares
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from tempo.lowering.base import Lowering


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class Receipt:
    """What backward needs of a forward pass. Holds no operand; dies with the graph, and with it what workers
    keep for it. reason: why nothing was sent, or None."""

    reason: str | None = None


R = TypeVar("R", bound=Receipt)


class Products(ABC, Generic[R]):
    """Abstract: runs lowered products and their gradients on workers."""

    @abstractmethod
    def forward(
        self, lowering: Lowering, x: Tensor, w: Tensor, *, train_w: bool, public: bool = False
    ) -> tuple[Tensor, R]:
        """y of the layer, without bias, and the receipt for its gradients.

        train_w: dW will be wanted. public: w was declared public and is not trained. Raises NoWorkersLeft
        where the master may not compute.
        """

    @abstractmethod
    def backward(
        self,
        ticket: R,
        lowering: Lowering,
        x: Tensor,
        w: Tensor,
        dy: Tensor,
        *,
        want_x: bool,
        want_w: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """(dx, dw) of the layer, None where not wanted. May be called again with the same receipt."""
