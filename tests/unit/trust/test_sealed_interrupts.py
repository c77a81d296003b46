"""Ctrl-C before every line, and every step, that a sealed file is written or read by; files that claim to
be endless."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from tempo.errors import TamperedError, UsageError
from tempo.trust.sealed import DataKey, SealedFile, SealedWriter, beside
from tempo.trust.sealed import index as index_module
from tempo.trust.sealed.stream import MAX_SEGMENTS, SEGMENT, TAG, Segments

pytestmark = pytest.mark.security

SEALED = str(Path(index_module.__file__).parent)


class Interrupted:
    """Calls something; Ctrl-C comes before the `line`-th line of tempo.trust.sealed that it runs."""

    def __init__(self, line: int) -> None:
        self.left = line
        self.came = False

    def __call__(self, call: Callable[[], object]) -> None:
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            call()
        except KeyboardInterrupt:
            self.came = True
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(SEALED):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace


def test_attack_reading_goes_on_after_an_interrupt_before_any_line(tmp_path: Path) -> None:
    """As in a notebook: no segment is ever taken for another one."""
    key, size, count = DataKey.generate(), SEGMENT // 2, 12
    rows = np.frombuffer(os.urandom(size * count), np.uint8).reshape(count, size)
    with SealedWriter(tmp_path / "f", key, kind="files", name="n") as out:
        out.add_rows(rows)
    line, came = 0, True
    while came:
        line += 1
        with SealedFile(tmp_path / "f", key, keep=3 * SEGMENT) as file:
            assert np.array_equal(file.rows([0, 2, 4], size), rows[[0, 2, 4]])  # all places are taken
            interrupt = Interrupted(line)
            interrupt(lambda file=file: (file.rows([6, 8], size), file.record(11), file.records([1, 10])))
            came = interrupt.came
            for each in (6, 0, 2, 4, 8, 10, 11, 6, 3):
                assert bytes(file.record(each)) == rows[each].tobytes(), (line, each)
            for batch in ([0, 2, 4], [6, 8], [10, 0], [4, 6, 9]):
                assert np.array_equal(file.rows(batch, size), rows[batch]), (line, batch)
    assert line > 100


def test_attack_writing_goes_on_after_an_interrupt_before_any_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who catches it and goes on has a whole file or an error, never a nonce twice, and no remains."""
    key, numbers = DataKey.generate(), list[int]()
    records = [os.urandom(size) for size in (SEGMENT - 5, 9, 3 * SEGMENT, 7)]
    plain = Segments.seal_into

    def counting(self: Segments, number: int, *given: Any, **options: Any) -> int:
        numbers.append(number)
        return plain(self, number, *given, **options)

    monkeypatch.setattr(Segments, "seal_into", counting)
    path, line, came, whole = tmp_path / "f", 0, True, 0
    while came:
        line += 1
        numbers.clear()
        added: list[bytes] = []
        interrupt = Interrupted(line)
        try:
            with SealedWriter(path, key, kind="files", name="n") as out:

                def fill(out: SealedWriter = out, added: list[bytes] = added) -> None:
                    for record in records:
                        out.add(record)
                        added.append(record)
                    out.add_rows(np.frombuffer(records[2], np.uint8).reshape(3, SEGMENT))

                interrupt(fill)
                came = interrupt.came
                out.add(b"more")
        except UsageError as error:
            refused = str(error)
            assert not path.exists(), line
        else:
            with SealedFile(path, key) as file:
                found = [bytes(file.record(number)) for number in range(len(file))]
            assert found[: len(added)] == added, line
            assert found[-1] == b"more", line
            path.unlink()
            whole += 1
            refused = ""
        assert refused == "" or "interrupt" in refused, line
        assert len(numbers) == len(set(numbers)), line
        assert list(tmp_path.iterdir()) == [], line
    assert line > 50
    assert whole >= 1


def test_an_interrupt_before_any_line_of_the_end_leaves_all_or_nothing(tmp_path: Path) -> None:
    key, path, line, came = DataKey.generate(), tmp_path / "f", 0, True
    while came:
        line += 1
        out = SealedWriter(path, key, kind="files", name="n")
        out.add(b"one")
        interrupt = Interrupted(line)
        interrupt(lambda out=out: out.__exit__(None, None, None))
        came = interrupt.came
        if path.exists():
            with SealedFile(path, key) as file:
                assert bytes(file.record(0)) == b"one"
            path.unlink()
        if list(tmp_path.iterdir()):  # it came before anything was done: the writer is as it was
            assert line < 8
            out.discard()
        assert list(tmp_path.iterdir()) == []
    assert line > 20


class AtAnyMoment(Interrupted):
    """Ctrl-C comes before the `line`-th step of the interpreter: in `of`, or where Tempo's sealing runs."""

    def __init__(self, line: int, of: Callable[[], object]) -> None:
        super().__init__(line)
        self._of = of.__code__  # type: ignore[attr-defined]

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code is not self._of and not frame.f_code.co_filename.startswith(SEALED):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event in ("call", "opcode"):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace


def test_an_interrupt_at_any_moment_of_a_file_leaves_all_or_nothing(tmp_path: Path) -> None:
    """Before the writer is in the caller's hand and as its block is left, too."""
    key, path, step, came = DataKey.generate(), tmp_path / "f", 0, True

    def whole() -> None:
        with SealedWriter(path, key, kind="files", name="n", replace=True) as out:
            out.add(b"one")

    def open_here() -> list[str]:
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return [
            to for to in (os.readlink(link) for link in links if os.path.islink(link)) if str(tmp_path) in to
        ]

    while came:
        step += 1
        interrupt = AtAnyMoment(step, whole)
        interrupt(whole)
        came = interrupt.came
        if path.exists():
            with SealedFile(path, key) as file:
                assert bytes(file.record(0)) == b"one"
            path.unlink()
        assert list(tmp_path.iterdir()) == [], step
        assert open_here() == [], step
    assert step > 1000


@pytest.mark.parametrize("how", ["discarded", "forgotten"])
def test_a_child_that_was_forked_meanwhile_removes_nothing(how: str, tmp_path: Path) -> None:
    """It shares the lock, and its copy of the writer ends with it."""
    writer = SealedWriter(tmp_path / "f", DataKey.generate(), kind="files", name="n")
    child = os.fork()
    if child == 0:
        failed = 1
        try:
            if how == "discarded":
                writer.discard()
            del writer
            gc.collect()
            failed = 0
        finally:
            os._exit(failed)
    assert os.waitpid(child, 0)[1] == 0
    writer.add(b"one")
    writer.finish()
    assert (tmp_path / "f").exists()


def test_a_second_interrupt_of_the_last_removal_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finalizer is called once; what is raised in it is printed, not raised."""
    writer = SealedWriter(tmp_path / "f", DataKey.generate(), kind="files", name="n")
    plain, calls = beside._ours, 0

    def interrupted(*given: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        return plain(*given)

    monkeypatch.setattr(beside, "_ours", interrupted)
    unraised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: unraised.append(each.exc_type))
    del writer
    gc.collect()
    assert unraised == [KeyboardInterrupt]
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_in_one_process(tmp_path: Path) -> None:
    first = SealedWriter(tmp_path / "f", DataKey.generate(), kind="files", name="n")
    first.add(b"one")
    with pytest.raises(UsageError, match="another writer"):
        SealedWriter(tmp_path / "f", DataKey.generate(), kind="files", name="n")
    assert [path.name for path in tmp_path.iterdir()] == [".f.new"]
    first.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_traceback_that_is_kept_keeps_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a notebook keeps the last one."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(beside.Beside, "write", interrupted)
    with pytest.raises(KeyboardInterrupt) as kept:
        SealedWriter(tmp_path / "f", DataKey.generate(), kind="files", name="n")
    assert kept.traceback
    assert list(tmp_path.iterdir()) == []


def test_a_piece_that_is_none_spoils_the_file(tmp_path: Path) -> None:
    """Half a record may lie there: the next one would begin with it."""
    writer = SealedWriter(tmp_path / "f", DataKey.generate(), kind="files", name="n")
    with pytest.raises(TypeError):
        writer.add(b"abc", 5)  # type: ignore[arg-type]
    for then in (lambda: writer.add(b"def"), writer.finish, lambda: writer.__exit__(None, None, None)):
        with pytest.raises(UsageError, match="spoilt"):
            then()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_added_after_the_end(tmp_path: Path) -> None:
    with SealedWriter(tmp_path / "f", DataKey.generate(), kind="files", name="n") as out:
        out.add(b"one")
        out.finish()
        for late in (lambda: out.add(b"two"), lambda: out.add_rows(np.zeros((2, 2))), out.finish):
            with pytest.raises(UsageError, match="finished"):
                late()
    assert (tmp_path / "f").exists()


def test_attack_a_file_that_claims_to_be_endless(tmp_path: Path) -> None:
    """A length costs whoever keeps the file nothing; nothing is taken for it."""
    shared = Path("/dev/shm")  # noqa: S108 (only such file systems take these lengths)
    folder = shared if os.access(shared, os.W_OK) else tmp_path
    path, key = folder / f"tempo-test-{os.getpid()}", DataKey.generate()
    try:
        with SealedWriter(path, key, kind="files", name="n", replace=True) as out:
            out.add(b"one")
        for length in (MAX_SEGMENTS * (SEGMENT + TAG) + SEGMENT, 2**62):
            try:
                os.truncate(path, length)
            except OSError:
                pytest.skip("no file system here takes such a length")
            with pytest.raises(TamperedError, match="more than any sealed file"):
                SealedFile(path, key)
    finally:
        path.unlink(missing_ok=True)
