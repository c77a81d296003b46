"""Counts what a model does between its linear operations: the elements that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@final
class OtherWork(TorchDispatchMode):
    """Adds up the elements of results of operations that are neither linear algebra nor views."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket not in flop_registry and not func.is_view:
            results = out if isinstance(out, tuple | list) else (out,)
            self.elements += sum(
                t.numel() for t in results if isinstance(t, Tensor) and t.is_floating_point()
            )
        return out
