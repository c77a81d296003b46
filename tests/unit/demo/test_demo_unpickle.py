"""The restricted unpickler: arrays as NumPy writes them, and nothing else."""

from __future__ import annotations

import io
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from tempo.demo.unpickle import load_arrays
from tempo.errors import DataError


def read(data: bytes):
    return load_arrays(io.BytesIO(data))


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_arrays_come_back(protocol: int, dtype: type) -> None:
    wanted = ((np.arange(12, dtype=dtype).reshape(3, 4), np.arange(3, dtype=dtype)),)
    got = read(pickle.dumps(wanted, protocol=protocol))
    for a, b in zip(got[0], wanted[0], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_arrays_of_python_2() -> None:
    head = rb"cnumpy.core.multiarray" + b"\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    kind = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    got = read(
        head + b"(I1\n(I2\nt" + kind + rb"I00" + b"\n" + rb"S'\x00\x00\x80?\x00\x00\x00\xc0'" + b"\ntb."
    )
    np.testing.assert_array_equal(got, np.array([1, -2], np.float32))


class Runs:
    def __init__(self, call, *args) -> None:
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def test_nothing_is_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    for call, *args in [
        (os.system, f"touch {witness}"),
        (open, str(witness), "w"),
        (eval, f"open({str(witness)!r}, 'w')"),
        (getattr, "text", "upper"),
        (time.sleep, 10),
        (np.fromfile, str(witness)),
        (np.array, [1]),
    ]:
        with pytest.raises(DataError, match="refused a pickle that asks for"):
            read(pickle.dumps(Runs(call, *args)))
    assert not witness.exists()


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(b"cnumpy\nndarray\n(I4\ntR.", id="calls-ndarray"),
        pytest.param(
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.", id="rebuilds-dtype"
        ),
        pytest.param(b"cnumpy\ndtype\n(S'O'\nI0\nI1\ntR.", id="objects"),
        pytest.param(b"cnumpy\ndtype.type\n(S'f4'\ntR.", id="attribute"),
        pytest.param(b"cposix\nsystem\n(S'true'\ntR.", id="system"),
        pytest.param(
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR.", id="never-filled"
        ),
        pytest.param(b"S'text'\n.", id="text"),
        pytest.param(b"}.", id="dict"),
        pytest.param(b"Pfile\n.", id="persistent"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\x80\x02garbage", id="garbage"),
        pytest.param(pickle.dumps(np.arange(3.0, dtype=">f4")), id="big-endian"),
        pytest.param(pickle.dumps(np.arange(3, dtype=np.int8)), id="int8"),
        pytest.param(pickle.dumps(np.array([{}], dtype=object)), id="object-array"),
        pytest.param(pickle.dumps(np.zeros((1,) * 5, np.float32)), id="five-dimensions"),
        pytest.param(pickle.dumps(np.zeros(4, np.float32))[:-8], id="cut"),
        pytest.param(
            pickle.dumps(np.arange(4, dtype=np.float32), 2).replace(b"K\x04", b"K\x05"), id="wrong-shape"
        ),
    ],
)
def test_refused(hostile: bytes) -> None:
    with pytest.raises(DataError, match="expected NumPy arrays"):
        read(hostile)
