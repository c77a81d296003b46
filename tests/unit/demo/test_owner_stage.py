"""Processes and the private folder of the owner's demo; interrupts; what is looked for and measured."""

from __future__ import annotations

import base64
import os
import py_compile
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tempo.demo.owner import canaries, master, masters, measure
from tempo.demo.owner.interrupts import Interrupts
from tempo.demo.owner.orders import Orders, Refused, SimulatedMachine
from tempo.demo.owner.stage import Child, Stage
from tempo.errors import OutsideError, UsageError

ORDERS = Orders(
    folder="none",
    machine=SimulatedMachine(bytes(48)),
    vault="none",
    workers=[],
    cert="none",
    tls_key="none",
    ca="none",
    key="none",
    sealed="none",
    recipient="none",
    nonce=bytes(32),
    scheme="mixing",
    steps=1,
    batch=1,
    seed=0,
    channels=1,
    classes=10,
)
SECRET = bytes(range(7, 39))


@pytest.fixture
def stage():
    with Interrupts() as interrupts, Stage(interrupts) as made:
        yield made


def python(stage: Stage, program: str, given: bytes = b"") -> Child:
    return stage.start("child", [sys.executable, "-c", program], given)


def test_the_folder_is_private_and_goes(stage: Stage) -> None:
    assert stat.S_IMODE(stage.folder.stat().st_mode) == 0o700
    (stage.folder / "secret").write_text("")
    stage.close()
    assert not stage.folder.exists()
    stage.close()


def test_lines_documents_and_input(stage: Stage) -> None:
    child = python(stage, "print(input()); print('{\\n \"rows\": []\\n}\\nlast')", b"given\n")
    assert child.line(30) == b"given\n"
    assert child.document(30) == {"rows": []}
    assert child.line(30) == b"last\n"
    assert child.wait(30) == 0
    assert child.said.endswith(b"last\n")


def test_a_child_that_ends_early_is_quoted(stage: Stage) -> None:
    child = python(stage, "import sys; sys.exit('no such [thing]')")
    with pytest.raises(
        OutsideError, match=r"child ended before it was done\. Its last words: no such \[thing\]"
    ):
        child.line(30)


def test_a_silent_child_is_given_up(stage: Stage) -> None:
    child = python(stage, "import time; time.sleep(60)")
    with pytest.raises(OutsideError, match="said nothing for 0.2 s"):
        child.line(0.2)
    with pytest.raises(OutsideError, match="did not end within 0.1 s"):
        child.wait(0.1)


def test_closing_kills_what_will_not_end(stage: Stage) -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
    child = python(stage, program + "; time.sleep(600)")
    child.line(30)
    assert child.alive
    stage.close()
    assert not child.alive
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_child_has_a_group_of_its_own(stage: Stage) -> None:
    child = python(stage, "import os; print(os.getpgid(0) == os.getpid(), flush=True)")
    assert child.line(30) == b"True\n"


def test_no_such_program(stage: Stage) -> None:
    with pytest.raises(OutsideError, match="cannot be started"):
        stage.start("nothing", ["/no/such/program"])


# ---- interrupts --------------------------------------------------------------------------------


def held_twice(interrupts: Interrupts, number: signal.Signals, done: list[str]) -> None:
    with interrupts.held():
        with interrupts.held():
            signal.raise_signal(number)
            done.append("inner")
        done.append("outer")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_interrupt_but_not_while_held(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    # Whoever runs the tests in the background may have had it ignored.
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    signal.signal(number, usual)
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            held_twice(interrupts, number, done)
        with interrupts.held():
            pass  # it was raised once
    assert done == ["inner", "outer"]
    assert signal.getsignal(number) == usual
    signal.signal(number, before)


def test_what_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def interrupted(seen: list[Child | Path]) -> None:
    with Interrupts() as interrupts, Stage(interrupts) as stage:
        seen += [python(stage, "import time; time.sleep(600)"), stage.folder]
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_leaves_nothing() -> None:
    seen: list[Child | Path] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(seen)
    child, folder = seen
    assert not child.alive
    assert not folder.exists()


# ---- looking for secrets -----------------------------------------------------------------------


@pytest.mark.security
@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        SECRET.hex().encode(),
        SECRET.hex().upper().encode(),
        *(base64.b64encode(b"x" * shift + SECRET + b"tail") for shift in range(6)),
        base64.urlsafe_b64encode(b"ab" + SECRET),
    ],
)
def test_a_secret_is_found_however_it_is_written(written: bytes, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_bytes(b"before " + written + b" after")
    (tmp_path / "other").write_bytes(os.urandom(1000))
    assert canaries.search(tmp_path, {"the key": SECRET}) == (2, [f"the key lies in {Path('deep', 'log')}"])


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(SECRET[:-1] + b"\xff" + base64.b64encode(SECRET[:-2] + b"zz"))
    assert canaries.search(tmp_path, {"the key": SECRET}) == (1, [])


# ---- what is measured --------------------------------------------------------------------------


def test_any_byte_of_the_package_counts(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "part" / "b.py").write_text("2")
    (tmp_path / "notes.txt").write_text("not loaded")
    before = measure.package(tmp_path)
    assert len(before) == 32
    (tmp_path / "notes.txt").write_text("others")
    assert measure.package(tmp_path) == before
    (tmp_path / "part" / "b.py").write_text("3")
    changed = measure.package(tmp_path)
    (tmp_path / "part" / "__pycache__").mkdir()
    (tmp_path / "part" / "__pycache__" / "b.cpython-311.pyc").write_text("4")
    assert measure.package(tmp_path) == changed, "masters are told of another cache"
    (tmp_path / "part" / "__init__.pyc").write_text("5")
    assert measure.package(tmp_path) != changed, "Python would load it"
    (tmp_path / "part" / "__init__.pyc").unlink()
    (tmp_path / "part" / "b.py").rename(tmp_path / "part" / "c.py")
    assert len({before, changed, measure.package(tmp_path)}) == 3


PROBE = """
import sys
sys.path.insert(0, {folder!r})
import measured
from tempo.demo.owner.orders import Refused, encode
sys.stdout.buffer.write(encode(Refused(code="evidence", step=measured.SAYS, message="")))
"""


@pytest.mark.security
def test_a_master_runs_the_source_and_not_what_lies_in_a_cache(stage: Stage, tmp_path: Path) -> None:
    source = tmp_path / "measured.py"
    source.write_text("SAYS = 'bad '\n")
    cached = Path(py_compile.compile(str(source), doraise=True))
    stamp = source.stat()
    source.write_text("SAYS = 'good'\n")  # of the same length
    os.utime(source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # and time, so that Python takes the cache
    ask = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import measured; print(measured.SAYS)"
    usual = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=60
    )
    assert usual.stdout == "bad \n", "the attack is one"
    program = tmp_path / "program.py"
    program.write_text(PROBE.format(folder=str(tmp_path)))
    master = masters.start(stage, program, "probe", lambda _: ORDERS)
    assert isinstance(master.answer, Refused)
    assert master.answer.step == "good"
    assert list((stage.folder / "probe" / "caches").iterdir()) == []
    assert cached.exists()


def test_the_altered_program_is_the_program_with_one_line_more(tmp_path: Path) -> None:
    program, target = Path(master.__file__), tmp_path / "altered.py"
    line = measure.altered(program, target)
    ours, theirs = program.read_text().splitlines(), target.read_text().splitlines()
    (place,) = [i for i, each in enumerate(theirs) if each.strip() == line]
    assert theirs[:place] + theirs[place + 1 :] == ours
    compile(target.read_text(), str(target), "exec")
    assert measure.program(target) != measure.program(program)
    (tmp_path / "another.py").write_text("pass\n")
    with pytest.raises(UsageError, match="does not have the line"):
        measure.altered(tmp_path / "another.py", target)
