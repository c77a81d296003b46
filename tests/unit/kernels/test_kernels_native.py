"""What is refused before any address is handed out, which passes serve, and several callers at once."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import threading

import pytest
import torch

from tempo.errors import UsageError
from tempo.kernels import Axis, Monomial, Transform, native, native_status, passes, project, transform
from tempo.kernels.native import SETS, Native

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16


def available():
    found = []
    for name in SETS:
        try:
            Native(name)
        except OSError:
            continue
        found.append(name)
    return found


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_where_there_is_a_compiler_there_are_native_passes():
    """Else all tests of them would be left out without a word."""
    assert "portable" in available()


needs_native = pytest.mark.skipif(not available(), reason="the native passes are not built here")


def monomial(length, seed=0):
    g = torch.Generator().manual_seed(seed)
    scale = torch.rand(length, dtype=F64, generator=g) + 0.5
    return Monomial(torch.randperm(length, generator=g).int(), scale)


def mixed(length, seed=0):
    ends = {"enter": monomial(length, seed), "leave": monomial(length, seed + 1)}
    return Axis(length, rounds=1, block=64, **ends)


# ---- refusals ----------------------------------------------------------------------------------


def make(**changed):
    fields = {
        "source": torch.zeros(4, 6),
        "target": torch.zeros(4, 6),
        "rows": [Axis(4)],
        "features": Axis(6),
    }
    return Transform(**{**fields, **changed})


REFUSED = {
    "source of other rows": ({"source": torch.zeros(5, 6)}, "differ"),
    "source of other features": ({"source": torch.zeros(4, 5)}, "6 features"),
    "target of other rows": ({"target": torch.zeros(3, 6)}, "differ"),
    "target of other features": ({"target": torch.zeros(4, 7)}, "6 features"),
    "three axes": ({"source": torch.zeros(1, 4, 6)}, "6 features"),
    "one axis": ({"target": torch.zeros(24)}, "6 features"),
    "source by columns": ({"source": torch.zeros(6, 4).mT}, "unit stride"),
    "target by columns": ({"target": torch.zeros(6, 4).mT}, "unit stride"),
    "every other feature": ({"source": torch.zeros(4, 12)[:, ::2]}, "unit stride"),
    "rows of the target in one place": ({"target": torch.zeros(1, 6).expand(4, 6)}, "overlap"),
    "rows of the target that overlap": ({"target": torch.zeros(30).as_strided((4, 6), (3, 1))}, "overlap"),
    "half precision": ({"source": torch.zeros(4, 6).half()}, "no pass from"),
    "integers": ({"source": torch.zeros(4, 6).int()}, "no pass from"),
    "float32 to float64": ({"target": torch.zeros(4, 6).double()}, "no pass from"),
    "float64 to bfloat16": (
        {"source": torch.zeros(4, 6).double(), "target": torch.zeros(4, 6, dtype=BF16)},
        "no pass from",
    ),
    "source on a device": ({"source": torch.zeros(4, 6, device="meta")}, "main memory"),
    "target on a device": ({"target": torch.zeros(4, 6, device="meta")}, "main memory"),
    "index too short": ({"source_rows": torch.arange(3)}, "differ"),
    "index too long": ({"target_rows": torch.arange(5) % 4}, "differ"),
    "index of int32": ({"source_rows": torch.arange(4).int()}, "int64"),
    "index of floats": ({"target_rows": torch.arange(4).float()}, "int64"),
    "index with strides": ({"source_rows": torch.arange(4).repeat_interleave(2)[::2]}, "int64"),
    "index of two axes": ({"source_rows": torch.arange(4).view(2, 2)}, "int64"),
    "index below the tensor": ({"source_rows": torch.tensor([0, 1, -1, 2])}, "leaves"),
    "index beyond the tensor": ({"target_rows": torch.tensor([0, 1, 4, 2])}, "leaves"),
    "before too short": ({"before": torch.zeros(5)}, "6 entries"),
    "after of another shape": ({"after": torch.zeros(1, 6)}, "6 entries"),
    "before of another dtype": ({"before": torch.zeros(6, dtype=F64)}, "6 entries"),
    "after with strides": ({"after": torch.zeros(12)[::2]}, "contiguous"),
    "before that is expanded": ({"before": torch.zeros(1).expand(6)}, "contiguous"),
    "before on a device": ({"before": torch.zeros(6, device="meta")}, "main memory"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_a_transform_refuses_what_a_pass_would_misread(which):
    changed, word = REFUSED[which]
    with pytest.raises(ValueError, match=word):
        make(**changed)


def test_what_a_transform_accepts():
    make()
    make(source=torch.zeros(9, 6), source_rows=torch.tensor([8, 8, 0, 3]))
    make(source=torch.zeros(1, 6).expand(4, 6))  # read only
    make(rows=[], source=torch.zeros(0, 6), target=torch.zeros(0, 6))
    make(rows=[Axis(1), Axis(3)], before=torch.zeros(6), after=torch.ones(6))
    make(source=torch.zeros(4, 6).bfloat16())
    column = torch.zeros(4, 3)[:, 1:2]
    make(source=column, target=torch.zeros(4, 1), features=Axis(1))


def test_axes_refuse_monomials_that_do_not_fit():
    for index, scale in (
        (torch.arange(4), torch.ones(4, dtype=F64)),
        (torch.arange(4).int(), torch.ones(4)),
        (torch.arange(4).int(), torch.ones(3, dtype=F64)),
        (torch.arange(4).int().view(2, 2), torch.ones(2, 2, dtype=F64)),
    ):
        with pytest.raises(ValueError, match=r"a permutation is int32|coefficients of float64"):
            Monomial(index, scale)
    for fields in ({"enter": monomial(5)}, {"leave": monomial(3)}):
        with pytest.raises(ValueError, match="no monomial of"):
            Axis(4, **fields)
    with pytest.raises(ValueError, match="no monomial of"):
        Axis(4, middle=[monomial(5)], rounds=2, block=2)
    with pytest.raises(ValueError, match="monomials between"):
        Axis(4, middle=[monomial(4)], rounds=1, block=2)
    for block in (0, -1, 3, 8):
        with pytest.raises(ValueError, match="cannot be mixed"):
            Axis(4, rounds=1, block=block)


def test_one_call_computes_in_one_dtype():
    wide = make(source=torch.zeros(4, 6).double(), target=torch.zeros(4, 6).double())
    with pytest.raises(ValueError, match="one dtype"):
        transform([make(), wide])
    transform([make(), make(target=torch.zeros(4, 6).bfloat16())])
    transform([])


# ---- which passes serve ------------------------------------------------------------------------


@pytest.fixture
def choosing(monkeypatch):
    """A choice made anew for each setting of the variable."""
    passes._kernels.cache_clear()

    def set_to(value):
        passes._kernels.cache_clear()
        if value is None:
            monkeypatch.delenv(passes.VARIABLE, raising=False)
        else:
            monkeypatch.setenv(passes.VARIABLE, value)

    yield set_to
    monkeypatch.undo()
    passes._kernels.cache_clear()


def works():
    x = torch.arange(24.0).view(4, 6)
    out = torch.empty_like(x)
    transform([Transform(x, out, [Axis(4)], Axis(6))])
    return torch.equal(out, x)


def test_the_fastest_that_is_there_serves(choosing):
    for value in (None, ""):
        choosing(value)
        assert native_status().serving == (*available(), "plain")[0]
        assert works()


@pytest.mark.parametrize("name", [*available(), "plain"])
def test_what_is_asked_for_serves(choosing, name):
    choosing(name)
    status = native_status()
    assert status.serving == name
    assert "TEMPO_KERNELS" in status.reason
    assert works()


@pytest.mark.parametrize("value", ["AVX2", "sse", "native", " plain", "0"])
def test_an_unknown_kind_is_an_error(choosing, value):
    choosing(value)
    for ask in (native_status, works):
        with pytest.raises(UsageError, match="expected one of avx512, avx2, portable, plain"):
            ask()


@pytest.mark.parametrize("name", SETS)
def test_a_kind_that_is_asked_for_and_missing_is_an_error(choosing, monkeypatch, name):
    def lacking(asked):
        raise OSError(f"this processor lacks {asked}")

    monkeypatch.setattr(passes, "Native", lacking)
    choosing(name)
    with pytest.raises(UsageError, match=f"TEMPO_KERNELS={name}: this processor lacks {name}"):
        native_status()
    choosing(None)
    assert native_status().serving == "plain"
    assert native_status().reason == "this processor lacks portable"


def test_without_a_library_the_twin_serves_and_says_why(choosing, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        native.importlib.util, "find_spec", lambda name: None if name.endswith("_passes") else real(name)
    )
    choosing(None)
    assert native_status().serving == "plain"
    assert "not built" in native_status().reason
    assert "compiler" in native_status().reason
    assert works()
    choosing("portable")
    with pytest.raises(UsageError, match="not built"):
        native_status()


@needs_native
def test_instructions_that_no_processor_has_are_an_error():
    with pytest.raises(OSError, match="lacks sse9"):
        Native("sse9")
    assert "portable" in available(), "portable code runs everywhere"


def test_the_library_is_built_where_a_compiler_is():
    compiler = (sysconfig.get_config_var("CXX") or "c++").split()[0]
    if shutil.which(compiler) is None:
        pytest.skip("no C++ compiler here")
    assert available(), "run `python setup.py build_ext --inplace`: the tests of native passes test nothing"


def test_failure_of_a_pass_is_an_error():
    with pytest.raises(MemoryError):
        native._done(1)


# ---- several at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*available(), "plain"])
@pytest.mark.parametrize("threads", [1, 2])
def test_several_threads_share_bases_and_get_their_own_results(serve, name, threads):
    a, b = mixed(300), mixed(130, 7)
    xs = [torch.randn(300, 130, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    v = torch.randn(130, 2, dtype=F64, generator=torch.Generator().manual_seed(9))
    wrong, expected = [], []
    with serve(name):
        for x in xs:
            out = torch.empty_like(x)
            transform([Transform(x, out, [a], b)])
            expected.append((out, project(x, v)[0]))

    # New axes of the same maps: their native forms are made while others use them.
    a, b = mixed(300), mixed(130, 7)
    start = threading.Barrier(len(xs))

    def work(i):
        start.wait()
        for _ in range(20):
            out = torch.empty_like(xs[i])
            transform([Transform(xs[i], out, [a], b)])
            if not (torch.equal(out, expected[i][0]) and torch.equal(project(xs[i], v)[0], expected[i][1])):
                wrong.append(i)

    with serve(name, threads):
        callers = [threading.Thread(target=work, args=(i,)) for i in range(len(xs))]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert not wrong


def test_two_threads_that_prepare_one_axis_share_one_form_of_it():
    """Regression: the second replaced the first, whose memory was freed while a pass read it."""

    class Late(dict):
        """As a thread sees it that looked before the other one was done."""

        def get(self, key, default=None):
            return default

    axis = mixed(100)
    axis.native = Late()
    first, second = native._native(axis, F32), native._native(axis, F32)
    assert first is second
    assert len(axis.native) == 1


FORK = """
import os, signal, sys, torch
from tempo.kernels import Axis, Monomial, Transform, contract, project, transform, passes

torch.set_num_threads(2)
g = torch.Generator().manual_seed(0)
x = torch.randn(4000, 512, generator=g)
v, q = torch.randn(512, 2, dtype=torch.float64, generator=g), torch.randn(4000, 2, dtype=torch.float64)

def work(out):
    transform([Transform(x, out, [Axis(4000, rounds=1, block=64)], Axis(512, rounds=1, block=64))])
    return project(x, v)[0], contract(x, q)[1]

assert passes._threads(x) == 2
before, after = torch.empty_like(x), torch.empty_like(x).share_memory_()
checks = work(before)
child = os.fork()
if child == 0:
    signal.alarm(30)  # a child that hangs is killed, and its status says so
    again = work(after)
    # Small enough for PyTorch to use one thread: its own would hang here as well.
    same = all(bool(((b - a).abs() <= 1e-9 * b.abs().amax()).all()) for a, b in zip(again, checks))
    os._exit(0 if same else 3)
status = os.waitpid(child, 0)[1]
assert os.WIFEXITED(status), f"the child hung: {status}"
assert os.WEXITSTATUS(status) == 0, "the child got other checks"
assert torch.equal(before, after), "the child got other results"
work(after)
assert torch.equal(before, after)
"""


@needs_native
def test_a_forked_child_does_not_wait_for_threads_it_does_not_have():
    """libgomp keeps a pool that fork does not copy: with two threads the child hung."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    environment.pop(passes.VARIABLE, None)
    done = subprocess.run(
        [sys.executable, "-c", FORK], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
