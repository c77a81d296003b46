"""State as PyTorch hands it out (nested dicts, lists, numbers, tensors) as plain data and back, no pickle.

    value              packed
    None, bool, number, str, bytes   itself
    tensor             ["T", number of the tensor]
    list, tuple        ["L" | "U", [value, ...]]
    dict, Counter      ["D" | "C", [[key, value], ...]]      keys are str, int, float or bool

Anything else is refused by name and path: it would come back as something else, or run code.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from torch import Tensor

from tempo.errors import TamperedError, UnsupportedError

_PLAIN: Final = (bool, int, float, str, bytes)
#: State that nests deeper is no state.
_DEEPEST: Final = 50


def pack(value: Any, tensors: list[Tensor], path: str = "state") -> Any:
    """`value` as plain data; its tensors are appended to `tensors`. Raises UnsupportedError."""
    if path.count("/") > _DEEPEST:
        raise UnsupportedError(f"{path} nests too deeply", "keep the state flat")
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        tensors.append(value)
        return ["T", len(tensors) - 1]
    if type(value) in (list, tuple):
        mark = "L" if type(value) is list else "U"
        return [mark, [pack(each, tensors, f"{path}/{i}") for i, each in enumerate(value)]]
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (str, int, float, bool):
                raise UnsupportedError(f"{path} has a {type(key).__name__} for a key", "use names or numbers")
        pairs = [[key, pack(each, tensors, f"{path}/{key}")] for key, each in value.items()]
        return ["C" if isinstance(value, Counter) else "D", pairs]
    raise UnsupportedError(
        f"{path} is a {type(value).__name__}, which a checkpoint cannot hold without pickle",
        "leave it out, or put its numbers into a dict",
    )


def unpack(packed: Any, tensors: list[Tensor]) -> Any:
    """What `pack` was given. Raises TamperedError for what it never made."""
    if packed is None or type(packed) in _PLAIN:
        return packed
    try:
        mark, inside = packed
        match mark:
            case "T":
                return tensors[inside]
            case "L":
                return [unpack(each, tensors) for each in inside]
            case "U":
                return tuple(unpack(each, tensors) for each in inside)
            case "D":
                return {key: unpack(each, tensors) for key, each in inside}
            case "C":
                return Counter({key: unpack(each, tensors) for key, each in inside})
    except (TypeError, ValueError, IndexError) as error:
        raise TamperedError("the checkpoint holds something that none was ever made of") from error
    raise TamperedError("the checkpoint holds something that none was ever made of")
