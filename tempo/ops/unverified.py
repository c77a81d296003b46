"""The type of everything a worker sent: nobody may use it before the verifier has."""

from __future__ import annotations

from typing import NoReturn, final

from torch import Tensor


@final
class Unverified:
    """A reply as it came. Only `tempo.integrity` opens it (a test holds every other module to that)."""

    __slots__ = ("_tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def open_for_check(self) -> Tensor:
        """The tensor, for the verifier alone."""
        return self._tensor

    def __repr__(self) -> str:
        return f"Unverified(shape={tuple(self._tensor.shape)}, dtype={self._tensor.dtype})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an unverified reply is not pickled: check it first")
