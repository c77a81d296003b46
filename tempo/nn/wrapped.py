"""The forward of a protected module: the module's own, with the interceptor on.

It is set on the instance as a bound method, as others set theirs: whoever wraps, restores or copies it
(accelerate's mixed precision, hooks, copy.deepcopy) gets one that is bound to the right module. What it has
to know lies in the module's __dict__ by the function that asks for it, and is copied along with the module.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from types import MethodType
from typing import Any, Final, final

from torch import nn

from tempo.nn.interceptor import Interceptor

Forward = Callable[..., Any]
#: Where a module keeps its protections, by the id of the function that asks.
_KEY: Final = "_tempo_protections"


@final
class KeptParameters:
    """Parameters that stay in the TEE whoever uses them: a weight may be multiplied without its module
    being called (tied embeddings, the out_proj of attention). Copies along with the modules."""

    def __init__(
        self,
        kept: list[tuple[nn.Module, str]],
        public: list[nn.Module],
        places: list[tuple[nn.Module, str, str]],
    ) -> None:
        """public: modules whose weights are public knowledge, those that are frozen now. (Of what was made in
        inference mode nobody counts the changes: that stays secret.) places: where modules that are kept
        hang, as parent, attribute and reason: what is put there later, such as an adapter around the module,
        is kept with all it holds."""
        self._kept = kept
        # Parents themselves: a copy of the model holds its own, where a weak reference would stay with ours.
        self._places = places
        self._public = [
            (module, name, p._version)
            for module in public
            for name, p in module.named_parameters(recurse=False)
            if not p.requires_grad and not p.is_inference()
        ]

    def reasons(self) -> dict[int, str]:
        """By id of the parameter, as they are now; the first reason counts."""
        same = {id(module) for module, _ in self._kept}
        there = ((getattr(parent, attribute, None), why) for parent, attribute, why in self._places)
        there = ((module, why) for module, why in there if id(module) not in same)
        now = {
            id(p): why for module, why in there if isinstance(module, nn.Module) for p in module.parameters()
        }
        return now | {
            id(p): why for module, why in reversed(self._kept) for p in module.parameters(recurse=False)
        }

    def public(self) -> frozenset[int]:
        """Ids of the public ones. What has been written to since, or is trained now, is secret: nobody
        declared what it holds by now."""
        now = ((getattr(module, name), version) for module, name, version in self._public)
        return frozenset(
            id(p)
            for p, version in now
            if isinstance(p, nn.Parameter) and p._version == version and not p.requires_grad
        )


@final
class Protection:
    """Of one module. interceptor: None once the protection was taken back and others still call through it.
    keep: why all of the module stays in the TEE, or None. place: what the user said of it, or None."""

    def __init__(
        self, interceptor: Interceptor, name: str, keep: str | None, place: str | None, known: KeptParameters
    ) -> None:
        self.interceptor: Interceptor | None = interceptor
        self.forward: Forward | None = None  # what was set on the instance before; None: that of its class
        self._name = name
        self._keep = keep
        self._place = place
        self._known = known

    def run(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plain = self.forward or MethodType(type(module).forward, module)
        if self.interceptor is None:
            return plain(*args, **kwargs)
        if is_compiled(module):
            with self.interceptor.outside(self._name):
                return plain(*args, **kwargs)
        known = self._known
        with self.interceptor.inside(self._name, self._keep, self._place, known.reasons, known.public):
            return plain(*args, **kwargs)


def wrap(module: nn.Module, protection: Protection) -> None:
    """From now on `module` runs under `protection`."""
    protection.forward = module.__dict__.get("forward")
    method = _method(module.forward)
    # Before the method, so that pickling meets the interceptor first, which says what to do instead.
    module.__dict__.setdefault(_KEY, {})[id(method)] = protection
    module.__dict__["forward"] = MethodType(method, module)


def unwrap(module: nn.Module) -> None:
    """Take back what `wrap` did, if it did. Where others have wrapped the forward since, theirs stays, and
    ours within it only hands on."""
    protections: dict[int, Protection] = module.__dict__.get(_KEY, {})
    for asking, protection in list(protections.items()):
        if id(getattr(module.__dict__.get("forward"), "__func__", None)) != asking:
            protection.interceptor = None
            continue
        del protections[asking]
        if protection.forward is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = protection.forward
    if not protections:
        module.__dict__.pop(_KEY, None)


def is_protected(module: nn.Module) -> bool:
    return any(p.interceptor is not None for p in module.__dict__.get(_KEY, {}).values())


def is_compiled(module: nn.Module) -> bool:
    """By torch.compile. Asked by name, since importing the compiler takes seconds."""
    return type(module).__name__ == "OptimizedModule"


def _method(plain: Forward) -> Forward:
    """A function to bind to the module whose forward is `plain`, with its name, text and signature."""

    def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if args and args[0] is module:  # accelerate binds what is bound already
            args = args[1:]
        protection = module.__dict__.get(_KEY, {}).get(id(forward))
        if protection is None:  # somebody kept the method of a module that is plain again
            return type(module).forward(module, *args, **kwargs)
        return protection.run(module, args, kwargs)

    update_wrapper(forward, plain)
    # accelerate goes down `__wrapped__` to take its own wrapper off: it must not go past this one.
    del forward.__wrapped__  # type: ignore[attr-defined]
    try:
        told = inspect.signature(plain)
    except (TypeError, ValueError):  # of a callable that does not say
        return forward
    name = "_module"
    while name in told.parameters:  # of a wrapper around a method of ours, which took its signature over
        name += "_"
    first = inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY)
    forward.__signature__ = told.replace(  # type: ignore[attr-defined]
        parameters=[first, *told.parameters.values()]
    )
    return forward
