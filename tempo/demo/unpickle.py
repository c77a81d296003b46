"""Reads plain float32 and int64 arrays out of a NumPy pickle, and nothing else.

A pickle is a program. Here it may name three things, those that NumPy writes for an array, and gets
stand-ins for them that compute nothing: no function of NumPy, or of anyone else, is within its reach.

    numpy.core.multiarray._reconstruct    makes an empty stand-in
    numpy.ndarray                         only an argument of that
    numpy.dtype                           a stand-in that knows "<f4" and "<i8"
"""

from __future__ import annotations

import pickle
from typing import Any, BinaryIO, NoReturn, final

import numpy as np
from numpy.typing import NDArray

from tempo.errors import DataError

_KINDS: dict[str, np.dtype[Any]] = {"f4": np.dtype("<f4"), "i8": np.dtype("<i8")}
_MAX_DIMENSIONS = 4


def load_arrays(stream: BinaryIO) -> Any:
    """Tuples and lists of arrays. Raises DataError for anything else."""
    try:
        return _finished(_ArrayUnpickler(stream, encoding="latin1").load())
    except DataError:
        raise
    except Exception as error:  # a hostile pickle can raise anything
        _refuse(f"a pickle that fails with {type(error).__name__}", error)


def _refuse(what: str, cause: Exception | None = None) -> NoReturn:
    raise DataError(
        f"refused {what}; expected NumPy arrays of float32 or int64. Do not use this file."
    ) from cause


@final
class _NdarrayName:
    """What `numpy.ndarray` stands for in the pickle: a name."""

    def __new__(cls, *_: object) -> NoReturn:
        _refuse("a pickle that calls numpy.ndarray")


@final
class _Dtype:
    def __init__(self, kind: object, align: object = 0, copy: object = 1) -> None:
        if kind not in ("f4", "i8"):
            _refuse(f"an array of type {kind!r:.20}")
        self.kind = str(kind)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if state[:2] != (3, "<") or state[2:5] != (None, None, None):
            _refuse("an array that is not little-endian and plain")


@final
class _Array:
    """One array on its way: made by `_reconstruct`, filled by its state."""

    value: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[object, ...]) -> None:
        version, shape, dtype, fortran, data = state
        if version != 1 or fortran or not isinstance(dtype, _Dtype):
            _refuse("an array in a form that NumPy does not write")
        if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS:
            _refuse("an array with a strange shape")
        sizes = [n for n in shape if isinstance(n, int) and n >= 0]
        if len(sizes) != len(shape):
            _refuse("an array with a strange shape")
        if not isinstance(data, str | bytes):
            _refuse("an array without bytes")
        raw: bytes = data.encode("latin1") if isinstance(data, str) else data
        self.value = np.frombuffer(raw, _KINDS[dtype.kind]).reshape(sizes)


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    if kind is not _NdarrayName:
        _refuse("a pickle that rebuilds something else than numpy.ndarray")
    return _Array()


_ADMITTED: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _NdarrayName,
    ("numpy", "dtype"): _Dtype,
}


@final
class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            _refuse(f"a pickle that asks for {module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        _refuse("a pickle with references outside itself")


def _finished(loaded: object) -> Any:
    """Stand-ins turned into arrays; only tuples and lists of them pass."""
    if isinstance(loaded, _Array) and loaded.value is not None:
        return loaded.value
    if isinstance(loaded, tuple | list):
        return tuple(_finished(each) for each in loaded)
    _refuse(f"a {type(loaded).__name__} where an array should be")
