"""Protecting a module tree: validate, wrap each forward, carry on.

Nothing is replaced but the way `forward` is called: same modules, same parameters, same state_dict.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn

from tempo.errors import UnsupportedError, UsageError
from tempo.nn.classifier import classifier, has_matrix
from tempo.nn.consent import Consent
from tempo.nn.interceptor import Interceptor
from tempo.nn.placement import NEVER, PLACES
from tempo.nn.wrapped import KeptParameters, Protection, is_compiled, is_protected, unwrap, wrap

_DTYPES = (torch.float32, torch.float64)
_CLASSIFIER = "last weighted layer: its gradient gives away labels"
_VOCABULARY = "weight of an embedding: a product with it gives away tokens"


def protect(
    model: nn.Module,
    interceptor: Interceptor,
    *,
    keep: Iterable[str],
    unsafe_offload: Iterable[str],
    place: Mapping[str, str],
    public: Iterable[str] = (),
    consent: Consent | None = None,
) -> set[str]:
    """Wrap every submodule of `model`.

    keep: names or patterns ("encoder.*") of modules that stay in the TEE with all they hold.
    place: names or patterns, and for each "auto", "always" or "never", for a module with all it holds;
    where several match, the last one counts.
    unsafe_offload: names of layers to offload although they would stay for secrecy's sake.
    public: names or patterns of modules whose weights, with all they hold, are public knowledge.
    consent: asked whether what workers will see of each layer is allowed.
    Returns the labels, as reports name modules, of those with public weights.
    Raises UsageError and UnsupportedError before anything is changed.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"protect takes a torch.nn.Module, not a {type(model).__name__}")
    names = dict(model.named_modules())
    kept = _matching(names, keep, "keep")
    offloaded = _matching(names, unsafe_offload, "unsafe_offload")
    known = _matching(names, public, "public")
    known = {name for name in names if any(_inside(name, k) for k in known)}
    places = _places(names, place)
    # All they hold too: a ModuleList has no forward, and others call submodules past their parent.
    reasons = {name: "kept by the user" for name in names if any(_inside(name, k) for k in kept)}
    for name, module in names.items():
        if name not in reasons:
            _validate(name, module)
    last = classifier(names)
    if last is not None and last not in offloaded:
        for name in names:
            if _inside(name, last):
                reasons.setdefault(name, _CLASSIFIER)
    nowhere = [name for name, where in places.items() if where == "never"]
    if consent is not None:
        consent.ask(_sent(names, {*nowhere, *reasons}), {_label(name, names[name]) for name in known})
    sent = {id(p) for name in offloaded for p in names[name].parameters()}
    embeddings = [m for m in names.values() if isinstance(m, nn.Embedding) and id(m.weight) not in sent]
    parameters = KeptParameters(
        [(names[name], why) for name, why in reasons.items()]
        + [(m, _VOCABULARY) for m in embeddings]
        + [(names[name], NEVER) for name in nowhere],
        [names[name] for name in known],
        [
            (names[name.rpartition(".")[0]], name.rpartition(".")[2], why)
            for name, why in [*reasons.items(), *((name, NEVER) for name in nowhere)]
            if name
        ],
    )
    compiled = [name for name, module in names.items() if is_compiled(module)]
    for name, module in names.items():
        # Nothing within a compiled module is called any more: its code is.
        if _has_forward(module) and not any(_within(name, outer) for outer in compiled):
            label, said = _label(name, module), places.get(name)
            wrap(module, Protection(interceptor, label, reasons.get(name), said, parameters))
    return {_label(name, names[name]) for name in known}


def unprotect(model: nn.Module) -> None:
    """Undo `protect`."""
    for module in model.modules():
        unwrap(module)


def _label(name: str, module: nn.Module) -> str:
    """What reports call a module."""
    return name or type(module).__name__


def _sent(names: Mapping[str, nn.Module], stay: Container[str]) -> list[str]:
    """Labels of modules with a weight matrix that may leave the TEE."""
    return [_label(name, m) for name, m in names.items() if name not in stay and has_matrix(m)]


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


def _places(names: Iterable[str], wanted: Mapping[str, str]) -> dict[str, str]:
    """What the user said of each module, by its name; modules that nothing was said of are left out."""
    if not isinstance(wanted, Mapping):
        raise UsageError(f"place takes a mapping of module names to {', '.join(PLACES)}, not {wanted!r}")
    found: dict[str, str] = {}
    for pattern, where in wanted.items():
        if where not in PLACES:
            raise UsageError(f"place: {pattern!r} is {where!r}; expected one of {', '.join(PLACES)}")
        matches = _matching(names, [pattern], "place")
        found |= {name: where for name in names if any(_inside(name, match) for match in matches)}
    return found


def _inside(name: str, parent: str) -> bool:
    return name == parent or name.startswith(parent + ".") or parent == ""


def _within(name: str, parent: str) -> bool:
    return name != parent and _inside(name, parent)


def _has_forward(module: nn.Module) -> bool:
    unimplemented = nn.Module.forward
    return getattr(module.forward, "__func__", None) is not unimplemented


def _validate(name: str, module: nn.Module) -> None:
    where = f"module {name!r}" if name else "the model"
    if is_protected(module):
        raise UsageError(f"{where} is protected already: call unprotect first")
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedError(
            f"{where} is compiled ({type(module).__name__}); its products cannot be reached",
            "protect the module before it was compiled",
        )
    if is_compiled(module):
        keep = name if name else "part"
        raise UnsupportedError(
            f"{where} is compiled; its products cannot be reached",
            f"leave it uncompiled, or keep it in the TEE whole: session.protect(model, keep=[{keep!r}])",
        )
    if getattr(module, "_compiled_call_impl", None) is not None:
        raise UnsupportedError(
            f"{where} was compiled in place, by compile(); its products cannot be reached",
            "leave it uncompiled, or put torch.compile(module) in its place and name that in keep=[...]",
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
