"""Meets the linear functions that run inside a protected module, whoever calls them.

A TorchFunctionMode, entered in the forward of every protected submodule, so that it is there under
activation-checkpoint recomputation too. Composite functions are taken apart here, since inside them
the mode is off: multi-head attention, einsum, recurrent layers and
grouped products (experts).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Self, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tempo.errors import UnsupportedError
from tempo.nn.attention import multi_head_attention_forward
from tempo.nn.flops import LINEAR_FUNCTIONS, Kind
from tempo.nn.grouped import grouped, grouped_mm
from tempo.nn.offload import Offload
from tempo.nn.recurrent import cell, sequence


@final
class Interceptor(TorchFunctionMode):
    def __init__(self, offload: Offload) -> None:
        super().__init__()
        self._offload = offload
        self._local = threading.local()

    @contextmanager
    def inside(
        self,
        name: str,
        keep: str | None,
        place: str | None,
        parameters: Callable[[], dict[int, str]],
        public: Callable[[], frozenset[int]] = frozenset,
    ) -> Iterator[None]:
        """Within the forward of one protected module. The mode is entered once per thread, however deep.

        keep: why the module stays in the TEE, or None. parameters: the same for single parameters, by id.
        place: where the user wants the module's calls, or None. public: ids of parameters that are public.
        """
        _refuse_tracing()
        with self._offload.module(name, keep, place):
            if getattr(self._local, "active", False):
                yield
                return
            self._offload.know_parameters(parameters(), public())
            try:
                # Inside, since an interrupt that left it set would send nothing from this thread again.
                self._local.active = True
                # With any function mode on, nn.TransformerEncoderLayer leaves its fused kernels alone.
                with self:
                    yield
            finally:
                self._local.active = False

    @contextmanager
    def outside(self, name: str) -> Iterator[None]:
        """Within a module that the user compiled and keeps in the TEE: its code calls kernels of its own."""
        self._offload.keep_compiled(name)
        with torch._C.DisableTorchFunction():
            yield

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = LINEAR_FUNCTIONS.get(func)
        if kind is None:
            return func(*args, **kwargs)
        if kwargs.get("out") is not None:
            return self._offload.keep(func.__name__, "result wanted in out=", func, args, kwargs)
        return _ADAPTERS[kind](self._offload, func, *args, **kwargs)

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a protected model is not pickled: save its state_dict(), or call session.unprotect(model) first"
        )


def _refuse_tracing() -> None:
    """Tracers would record the master's own work, or run it on values that are not there."""
    if torch.compiler.is_compiling() or torch._C._is_tracing():
        raise UnsupportedError(
            "a protected module cannot be compiled or traced: nothing would be sent to the workers",
            "compile what stays in the TEE: the loss, the optimizer's step, or a part of the model, "
            "model.part = torch.compile(model.part), before session.protect(model, keep=['part'])",
        )
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise UnsupportedError(
            "torch.func transforms (vmap, grad, jvp) do not reach through a protected module",
            "call backward() or torch.autograd.grad, or unprotect the model for this",
        )


# One adapter per kind, with PyTorch's own parameter names: users pass them by keyword.


def _linear(offload: Offload, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    return offload.linear(input, weight, bias)


def _matmul(offload: Offload, func: Any, *args: Any, **kwargs: Any) -> Any:
    a = args[0] if args else kwargs.pop("input", None)
    b = args[1] if len(args) > 1 else _second(kwargs)
    return func(*args, **kwargs) if a is None or b is None else offload.matmul(a, b, function=func)


def _second(kwargs: dict[str, Any]) -> Any:
    """The right-hand factor, whatever PyTorch calls it here."""
    return next((kwargs[name] for name in ("other", "mat2", "tensor2", "batch2") if name in kwargs), None)


def _rmatmul(offload: Offload, func: Any, b: Tensor, a: Tensor) -> Any:
    return offload.matmul(a, b)


def _addmm(
    offload: Offload,
    func: Any,
    input: Tensor,
    *factors: Tensor,
    beta: float = 1,
    alpha: float = 1,
    **named: Tensor,
) -> Any:
    a = factors[0] if factors else named.get("mat1", named.get("batch1"))
    b = factors[1] if len(factors) > 1 else _second(named)
    if a is None or b is None or len(factors) > 2:
        # A deprecated order of arguments, or an error that is PyTorch's to raise.
        return func(input, *factors, beta=beta, alpha=alpha, **named)
    return offload.addmm(func, input, a, b, beta, alpha)


def _conv(
    offload: Offload,
    func: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    return offload.conv(func, input, weight, bias, stride, padding, dilation, groups)


def _einsum(offload: Offload, func: Any, equation: Any, *operands: Any) -> Any:
    return offload.einsum(equation, *operands)


def _mha(offload: Offload, func: Any, *args: Any, **kwargs: Any) -> Any:
    return multi_head_attention_forward(offload.linear, offload.matmul, offload.attend, *args, **kwargs)


def _sdpa(
    offload: Offload, func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any
) -> Any:
    return offload.attend(query, key, value, *args, **options)


def _recurrent(offload: Offload, func: Any, *args: Any, **kwargs: Any) -> Any:
    if offload.kept_here or kwargs:  # by keyword nobody calls them; modules do not
        return offload.keep(func.__name__, offload.kept_here or "not lowered", func, args, kwargs)
    name: str = func.__name__
    if name.endswith("_cell"):
        return cell(offload.linear, name.removesuffix("_cell"), *args)
    return sequence(offload.linear, name, *args)


def _grouped(
    offload: Offload,
    func: Any,
    mat_a: Tensor,
    mat_b: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Any:
    if offload.kept_here or offs is None or not grouped(mat_a, mat_b, offs, bias, out_dtype):
        kwargs = {"offs": offs, "bias": bias, "out_dtype": out_dtype}
        return offload.keep("grouped_mm", offload.kept_here or "not lowered", func, (mat_a, mat_b), kwargs)
    with torch.autocast("cpu", enabled=False):  # which leaves PyTorch's own function alone
        return grouped_mm(offload.matmul, mat_a, mat_b, offs)


def _conv_transposed(
    offload: Offload,
    func: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    return offload.conv_transposed(
        func, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def _other(offload: Offload, func: Any, *args: Any, **kwargs: Any) -> Any:
    return offload.keep(func.__name__, offload.kept_here or "not lowered", func, args, kwargs)


_ADAPTERS: dict[Kind, Callable[..., Any]] = {
    Kind.LINEAR: _linear,
    Kind.MATMUL: _matmul,
    Kind.RMATMUL: _rmatmul,
    Kind.ADDMM: _addmm,
    Kind.CONV: _conv,
    Kind.CONV_TRANSPOSED: _conv_transposed,
    Kind.EINSUM: _einsum,
    Kind.MHA: _mha,
    Kind.SDPA: _sdpa,
    Kind.RECURRENT: _recurrent,
    Kind.GROUPED: _grouped,
    Kind.OTHER_LINEAR: _other,
}
