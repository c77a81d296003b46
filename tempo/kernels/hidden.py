"""What is secret, or must not be doubled."""

from __future__ import annotations

from typing import NoReturn


class Hidden:
    """Base of what is never printed, pickled or copied."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} never leaves its process: it is not pickled or copied")
