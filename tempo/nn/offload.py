"""The linear functions of PyTorch as Tempo computes them: lowered and offloaded, or kept and listed.

Everything here runs with the interceptor's mode off; each function returns what PyTorch's would,
in the dtype PyTorch's would (autocast included), with its own gradient.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from tempo.lowering import lower_conv, lower_conv_transposed, lower_linear, lower_matmul
from tempo.lowering.base import Lowering
from tempo.nn.autograd import Call, offloaded
from tempo.nn.calls import arranged, candidate_of, is_weight, once_differentiated, refusal, shifted
from tempo.nn.einsum import einsum
from tempo.nn.flops import FlopMeter, Flops, linear_flops, matmul_flops
from tempo.nn.placement import Account, Candidate, Places, Rules, sizes
from tempo.nn.sdpa import dot_product_attention, stays
from tempo.products import Products


@final
class Offload:
    """Decides for each call, runs it, and enters it in the account."""

    def __init__(self, engine: Products[Any] | None, rules: Rules, account: Account, places: Places) -> None:
        """engine: None where `places` keeps every call, as a plan does that looks on only."""
        self._engine = engine
        self._rules = rules
        self._places = places
        self._account = account
        self._local = threading.local()

    # Where we are in the user's model, per thread.

    @contextmanager
    def module(self, name: str, keep: str | None, place: str | None) -> Iterator[None]:
        """Inside the forward of a module. keep: why all of it stays in the TEE; place: where the user
        wants its calls; or None."""
        stack = self._stack
        depth = len(stack)
        try:
            stack.append((name, keep or (stack[-1][1] if stack else None), place))
            yield
        finally:
            del stack[depth:]  # right too where an interrupt came before the append

    @property
    def _stack(self) -> list[tuple[str, str | None, str | None]]:
        stack: list[tuple[str, str | None, str | None]] = self._local.__dict__.setdefault("stack", [])
        return stack

    @property
    def kept_here(self) -> str | None:
        """Why everything in the module whose forward runs stays in the TEE, or None."""
        return self._stack[-1][1] if self._stack else None

    def know_parameters(self, reasons: dict[int, str], public: frozenset[int]) -> None:
        """Per thread: parameters, by id, that stay in the TEE whoever uses them, and why; and public ones."""
        self._local.parameters = reasons
        self._local.public = public

    # The functions.

    def linear(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        reason = self._refusal(x, w) or ("weight is no matrix" if w.ndim != 2 else None)
        if reason or x.ndim == 0 or x.shape[-1] != w.shape[-1]:
            return self.keep("linear", reason or "shapes PyTorch refuses", F.linear, (x, w, b))
        lowering = lower_linear(x.shape, w.shape)
        if reason := self._rules.keep(lowering):
            return self.keep("linear", reason, F.linear, (x, w, b))
        y, reason = self._send(lowering, x, w, linear_flops(x.shape, w.shape))
        if reason:
            return self.keep("linear", reason, F.linear, (x, w, b))
        return y if b is None else shifted(y, b)

    def matmul(self, a: Tensor, b: Tensor, *, function: Callable[..., Tensor] = torch.matmul) -> Tensor:
        """a (..., R, K) times b (..., K, N). A parameter on either side plays the weight."""
        args = (a, b)
        if reason := self._refusal(a, b):
            return self.keep("matmul", reason, function, args)
        if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
            return self.keep("matmul", "a vector", function, args)
        if function in (torch.mm, torch.bmm, Tensor.mm, Tensor.bmm) and a.ndim != b.ndim:
            return function(*args)  # PyTorch's own error
        if a.ndim == 2 and is_weight(a) and not is_weight(b):
            # W X = (X^T W^T)^T: the parameter stays the weight.
            return self._matmul(b.mT, a.mT, function, args).mT.contiguous()
        return self._matmul(a, b, function, args)

    def _matmul(
        self, x: Tensor, w: Tensor, function: Callable[..., Tensor], args: tuple[Tensor, ...]
    ) -> Tensor:
        lowering = lower_matmul(x.shape, w.shape)
        reason = self._rules.keep(lowering)
        if not reason and not is_weight(w) and not self._rules.offload_attention:
            reason = "product of two activations"
        if not reason:
            y, reason = self._send(lowering, x, w, matmul_flops(x.shape, w.shape))
            if not reason:
                return y
        y = self.keep("matmul", reason, function, args)
        return y if args[0] is x else y.mT

    def addmm(
        self, function: Callable[..., Tensor], c: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float
    ) -> Tensor:
        """beta c + alpha a b; HF's Conv1D stores its weight as b."""
        lowering = lower_matmul(a.shape, b.shape) if a.ndim >= 2 and a.shape[-1] == b.shape[-2] else None
        reason = self._refusal(a, b) or ("shapes PyTorch refuses" if lowering is None else None)
        if not reason and lowering is not None:
            reason = self._rules.keep(lowering)
        if not reason and not is_weight(b) and not self._rules.offload_attention:
            reason = "product of two activations"
        if reason or lowering is None:
            return self.keep("addmm", reason or "", function, (c, a, b), {"beta": beta, "alpha": alpha})
        y, reason = self._send(lowering, a, b, matmul_flops(a.shape, b.shape))
        if reason:
            return self.keep("addmm", reason, function, (c, a, b), {"beta": beta, "alpha": alpha})
        y = y if alpha == 1 else alpha * y
        return y if beta == 0 else y + (c if beta == 1 else beta * c).to(y.dtype)

    def conv(
        self,
        function: Callable[..., Tensor],
        x: Tensor,
        w: Tensor,
        b: Tensor | None,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
    ) -> Tensor:
        args = (x, w, b, stride, padding, dilation, groups)
        dims = w.ndim - 2
        reason = self._refusal(x, w)
        if not reason and x.ndim not in (dims + 1, dims + 2):
            return function(*args)  # PyTorch's own error
        reason = reason or self._rules.keep_conv(x.shape[-dims - 1], groups, dims)
        if reason:
            return self.keep("conv", reason, function, args)
        lowering = lower_conv(
            x.shape,
            w.shape,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            smallest=self._rules.min_size,
            delicate=self._rules.delicate,
        )
        return self._convolved("conv", lowering, groups, function, args)

    def conv_transposed(
        self,
        function: Callable[..., Tensor],
        x: Tensor,
        w: Tensor,
        b: Tensor | None,
        stride: Any,
        padding: Any,
        output_padding: Any,
        groups: int,
        dilation: Any,
    ) -> Tensor:
        args = (x, w, b, stride, padding, output_padding, groups, dilation)
        dims = w.ndim - 2
        reason = self._refusal(x, w)
        if not reason and x.ndim not in (dims + 1, dims + 2):
            return function(*args)  # PyTorch's own error
        reason = reason or self._rules.keep_conv(x.shape[-dims - 1], groups, dims)
        if reason:
            return self.keep("conv_transposed", reason, function, args)
        y_shape = function(x.detach().to("meta"), w.detach().to("meta"), None, *args[3:]).shape
        lowering = lower_conv_transposed(
            x.shape, w.shape, y_shape, stride=stride, padding=padding, dilation=dilation, groups=groups
        )
        return self._convolved("conv_transposed", lowering, groups, function, args)

    def _convolved(
        self,
        name: str,
        lowering: Lowering,
        groups: int,
        function: Callable[..., Tensor],
        args: tuple[Any, ...],
    ) -> Tensor:
        x, w, b = args[:3]
        # PyTorch's counter takes the gradient of a grouped weight for that of a full one; so do we.
        flops = Flops(lowering.flops, ((lowering.flops, (0,)), (lowering.flops * groups, (1,))))
        y, reason = x, self._rules.keep(lowering)
        if not reason:
            y, reason = self._send(lowering, x, w, flops)
        if reason:
            return self.keep(name, reason, function, args)
        return arranged(y if b is None else shifted(y, b.view(-1, *[1] * (w.ndim - 2))), x, w)

    def attend(self, *args: Any, **options: Any) -> Tensor:
        """Scaled dot-product attention of q, k and v, options as PyTorch's: one kernel, or two products where
        those are to be sent."""
        reason: str | None = self.kept_here or "attention: a softmax stands between its two products"
        if self._rules.offload_attention and not self.kept_here:
            reason = stays(self._stays, *args, **options)
        if reason:
            return self.keep("attention", reason, F.scaled_dot_product_attention, args, options)
        return dot_product_attention(self.matmul, *args, **options)

    def _stays(self, lowering: Lowering, x: Tensor, w: Tensor) -> str | None:
        """Why a product of two activations is not to be sent, or None."""
        if (reason := self._rules.keep(lowering)) or self._engine is None:  # a plan is asked once for each
            return reason
        return self._places.keep(*self._asked(lowering, x, w))

    def einsum(self, equation: Any, *operands: Any) -> Tensor:
        return einsum(self.matmul, self.linear, equation, *operands)

    def keep(
        self,
        operation: str,
        reason: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
    ) -> Tensor:
        """Run it here, and list it with its flops."""
        with FlopMeter() as meter:
            y: Tensor = function(*args, **(kwargs or {}))
        module = self._stack[-1][0] if self._stack else ""
        shape = sizes(*(a for a in args[:3] if isinstance(a, Tensor)))
        backward = self._account.add(module, operation, shape, reason, meter.forward)
        if meter.backward:
            once_differentiated(y, meter.backward, backward)
        return y

    def keep_compiled(self, module: str) -> None:
        """List a compiled module that runs here. Nobody sees what it multiplies."""
        self._account.add(module, "compiled", "", "kept by the user, compiled: flops not counted", 0)

    # Shared.

    def _refusal(self, x: Tensor, w: Tensor) -> str | None:
        """Why this call stays, whatever its shapes. UnsupportedError: it could only go on unprotected."""
        return self.kept_here or refusal(x, w, getattr(self._local, "parameters", {}))

    def _asked(self, lowering: Lowering, x: Tensor, w: Tensor) -> tuple[str | None, Candidate]:
        name, _, place = self._stack[-1] if self._stack else ("", None, None)
        return place, candidate_of(name, lowering, x, w, getattr(self._local, "public", frozenset()))

    def _send(self, lowering: Lowering, x: Tensor, w: Tensor, flops: Flops) -> tuple[Tensor, str | None]:
        """y, or why the caller has to keep it after all: values that cannot be sent, which are for PyTorch's
        own kernel, since a lowering may spread a NaN further; or it is not wanted at the workers."""
        place, candidate = self._asked(lowering, x, w)
        if reason := self._places.keep(place, candidate):
            return x, reason
        if self._engine is None:
            raise AssertionError("without an engine every call is kept")
        out = None  # autocast leaves float64 alone, and gets float32: more precise than it asked for
        if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
            out = torch.get_autocast_dtype("cpu")
            x, w = x.float(), w.float()
        backward: Callable[[int], None] | None = None

        def on_backward(want_x: bool, want_w: bool) -> None:
            if backward is not None:
                backward(flops.backward((want_x, want_w)))

        y, reason = offloaded(Call(self._engine, lowering, on_backward, candidate.public), x, w)
        if reason:
            return y, reason
        backward = self._account.add(candidate.module, lowering.name, sizes(x, w), None, flops.forward)
        return y if out is None else y.to(out), None
