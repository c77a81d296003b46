"""Protecting a module tree: validate, wrap each forward, carry on.

Nothing is replaced but the way `forward` is called: same modules, same parameters, same state_dict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import update_wrapper
from typing import Any, final

import torch
from torch import nn

from tempo.errors import UnsupportedError, UsageError
from tempo.nn.interceptor import Interceptor, recurrent

_DTYPES = (torch.float32, torch.float64)
_CLASSIFIER = "last weighted layer: its gradient gives away labels"


@final
class ProtectedForward:
    """Calls the forward of one module with the interceptor on. Copies along with its module."""

    def __init__(
        self, forward: Callable[..., Any], interceptor: Interceptor, name: str, keep: str | None
    ) -> None:
        self._forward = forward
        self._interceptor = interceptor
        self._name = name
        self._keep = keep
        update_wrapper(self, forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._interceptor.inside(self._name, self._keep):
            return self._forward(*args, **kwargs)


def protect(
    model: nn.Module, interceptor: Interceptor, *, keep: Iterable[str], unsafe_offload: Iterable[str]
) -> None:
    """Wrap every submodule of `model`.

    keep: names or patterns ("encoder.*") of modules that stay in the TEE with all they hold.
    unsafe_offload: names of layers to offload although they would stay for secrecy's sake.
    Raises UsageError and UnsupportedError before anything is changed.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"protect takes a torch.nn.Module, not a {type(model).__name__}")
    names = dict(model.named_modules())
    kept = _matching(names, keep, "keep")
    offloaded = _matching(names, unsafe_offload, "unsafe_offload")
    # All they hold too: a ModuleList has no forward, and others call submodules past their parent.
    reasons = {name: "kept by the user" for name in names if any(_inside(name, k) for k in kept)}
    for name, module in names.items():
        if name not in reasons:
            _validate(name, module)
    last = _classifier(names)
    if last is not None and last not in offloaded:
        reasons.setdefault(last, _CLASSIFIER)
    for name, module in names.items():
        # Its forward takes the weight of out_proj without calling that module: it stays as a whole.
        if isinstance(module, nn.MultiheadAttention):
            part = f"{name}.out_proj" if name else "out_proj"
            if part in reasons:
                reasons.setdefault(name, reasons[part])
    for name, module in names.items():
        if _has_forward(module):
            wrapped = ProtectedForward(
                module.forward, interceptor, name or type(model).__name__, reasons.get(name)
            )
            module.__dict__["forward"] = wrapped


def unprotect(model: nn.Module) -> None:
    """Undo `protect`."""
    for module in model.modules():
        wrapped = module.__dict__.get("forward")
        if isinstance(wrapped, ProtectedForward):
            del module.__dict__["forward"]
            if getattr(wrapped._forward, "__func__", None) is not type(module).forward:
                module.__dict__["forward"] = wrapped._forward


def _matching(names: Iterable[str], patterns: Iterable[str], option: str) -> set[str]:
    if isinstance(patterns, str):
        raise UsageError(f"{option} takes a list of module names, not one string: [{patterns!r}]")
    found: set[str] = set()
    for pattern in patterns:
        matches = {name for name in names if fnmatchcase(name, pattern)}
        if not matches:
            some = ", ".join(n for n in list(names)[:12] if n)
            raise UsageError(f"{option}: no module is named {pattern!r}. There are: {some} ...")
        found |= matches
    return found


def _inside(name: str, parent: str) -> bool:
    return name == parent or name.startswith(parent + ".") or parent == ""


def _has_forward(module: nn.Module) -> bool:
    unimplemented = nn.Module.forward
    return getattr(module.forward, "__func__", None) is not unimplemented


def _validate(name: str, module: nn.Module) -> None:
    where = f"module {name!r}" if name else "the model"
    if isinstance(module.__dict__.get("forward"), ProtectedForward):
        raise UsageError(f"{where} is protected already: call unprotect first")
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        raise recurrent(f"{type(module).__name__} ({where})")
    if isinstance(module, torch.jit.ScriptModule) or type(module).__name__ == "OptimizedModule":
        raise UnsupportedError(
            f"{where} is compiled ({type(module).__name__}); its products cannot be reached",
            "protect the module before it was compiled",
        )
    for label, parameter in module.named_parameters(recurse=False):
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise UsageError(f"{where} is lazy and has no weights yet: run it once before protecting it")
        if parameter.device.type != "cpu":
            raise UnsupportedError(
                f"{label} of {where} is on {parameter.device}; the model belongs to the TEE",
                "model.cpu(); workers bring the GPUs",
            )
        if (parameter.is_floating_point() or parameter.is_complex()) and parameter.dtype not in _DTYPES:
            raise UnsupportedError(
                f"{label} of {where} is {str(parameter.dtype).replace('torch.', '')}; Tempo computes in "
                f"float32 and float64",
                "model.float(), with torch.autocast for lower precision, or keep=[...] for this module",
            )


def _classifier(names: dict[str, nn.Module]) -> str | None:
    """The last layer with a weight matrix, in order of registration, if there is more than one: the
    sign of its gradient is the label."""
    weighted = [
        name
        for name, module in names.items()
        if isinstance(weight := getattr(module, "weight", None), nn.Parameter)
        and weight.ndim >= 2
        and not isinstance(module, nn.Embedding | nn.EmbeddingBag)
    ]
    return weighted[-1] if len(weighted) > 1 else None
