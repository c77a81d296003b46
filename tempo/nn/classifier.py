"""Which layer is the last one of a model, that by its gradient gives away the labels.

Asked by parameters and never by `module.weight`: that of a recurrent layer has other names, and that of a
parametrised one is computed when it is asked for (spectral norm takes a step of its power iteration).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

#: Of the older weight_norm and spectral_norm, which keep what the weight is made of under other names.
_WEIGHTS: Final = ("weight", "weight_v", "weight_orig")


def classifier(names: Mapping[str, nn.Module]) -> str | None:
    """The last layer with a weight matrix, in order of registration, if the model has more than one: the
    sign of its gradient is the label. With what it is wrapped in, such as an adapter beside it."""
    inside = {
        f"{name}.parametrizations." if name else "parametrizations."
        for name, module in names.items()
        if is_parametrized(module)
    }
    matrices = [
        name
        for name, module in names.items()
        if has_matrix(module)
        and not isinstance(module, nn.MultiheadAttention)  # one layer, which its out_proj counts for
        and not any(name.startswith(prefix) for prefix in inside)
    ]
    layers = [name for name in matrices if _is_layer(names[name])]
    if len(matrices) < 2 or not layers:
        return None
    last = layers[-1]
    around = [name for name in names if name != last and (name == "" or last.startswith(name + "."))]
    # A wrapper answers for a weight that is not its own.
    return next((name for name in around if _answers(names[name])), last)


def has_matrix(module: nn.Module) -> bool:
    """Whether a weight matrix is its own, plain or parametrised. An embedding's is a table of rows."""
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return False
    return is_parametrized(module, "weight") or any(p.ndim >= 2 for p in module.parameters(recurse=False))


def _is_layer(module: nn.Module) -> bool:
    """Whether it multiplies by that matrix, which is not a table of positions or the like."""
    if isinstance(module, nn.RNNBase | nn.RNNCellBase) or is_parametrized(module, "weight"):
        return True
    own = dict(module.named_parameters(recurse=False))
    return any(name in own and own[name].ndim >= 2 for name in _WEIGHTS)


def _answers(module: nn.Module) -> bool:
    if any(is_parametrized(each) for each in module.modules()):
        return "weight" not in module._parameters and isinstance(
            getattr(type(module), "weight", None), property
        )
    return "weight" not in module._parameters and isinstance(getattr(module, "weight", None), nn.Parameter)
