"""How autograd meets the engine: one differentiable product with two operands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from tempo.errors import UnsupportedError
from tempo.kernels import threads_for
from tempo.lowering.base import Lowering
from tempo.products import Products, Receipt


@final
@dataclass(frozen=True, slots=True)
class Call:
    """One layer call. on_backward(want_x, want_w) is told when its gradients were computed. public: its
    weight was declared public."""

    engine: Products[Any]
    lowering: Lowering
    on_backward: Callable[[bool, bool], None]
    public: bool = False


def offloaded(call: Call, x: Tensor, w: Tensor) -> tuple[Tensor, str | None]:
    """y of the layer, without bias, differentiable in x and w; and why it was computed in the master
    after all, or None. Same dtype as x and w: float32 or float64."""
    if torch.is_grad_enabled() and (x.requires_grad or w.requires_grad):
        ticket = Receipt()
        y: Tensor = _Product.apply(x, w, call, ticket)
    else:
        with _arithmetic(call):
            y, ticket = call.engine.forward(call.lowering, x, w, train_w=False, public=call.public)
    return y, ticket.reason


@contextmanager
def _arithmetic(call: Call) -> Iterator[None]:
    """The engine computes in the dtype of its operands, whatever the user's autocast says, and on as many
    threads as its tiles deserve."""
    shape = call.lowering.shape
    with torch.autocast("cpu", enabled=False), threads_for(shape.rows * max(shape.k, shape.n)):
        yield


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, call: Call, ticket: Receipt) -> Tensor:
        # Saved even where the worker keeps X': unpacking them is what notices in-place changes.
        ctx.save_for_backward(x, w)
        ctx.call = call
        with _arithmetic(call):
            train_w, public = w.requires_grad, call.public
            y, ctx.ticket = call.engine.forward(call.lowering, x, w, train_w=train_w, public=public)
        ticket.reason = ctx.ticket.reason
        # The same memory as a tensor of its own: autograd lets nobody change a view in place.
        return y.data

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        if torch.is_grad_enabled():
            raise UnsupportedError(
                "gradients of gradients (create_graph=True) are not computed by protected layers",
                "keep the layers they pass through in the TEE: session.protect(model, keep=[...])",
            )
        x, w = ctx.saved_tensors
        call: Call = ctx.call
        want_x, want_w = ctx.needs_input_grad[:2]
        with _arithmetic(call):
            dx, dw = call.engine.backward(
                ctx.ticket, call.lowering, x, w, grads[0], want_x=want_x, want_w=want_w
            )
        call.on_backward(want_x, want_w)
        return dx, dw, None, None
