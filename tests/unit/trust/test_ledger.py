"""The audit log: what is written is found again, what is torn is cut and said, what is altered is located."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest

from tempo.errors import DataError, OutsideError, TamperedError, UsageError
from tempo.trust.ledger import Kind, Ledger, Signer, VerifierKey, read_verified
from tempo.trust.ledger.files import CHECKPOINT, ENTRIES, HASHES
from tempo.trust.ledger.proof import check, prove, to_json

pytestmark = pytest.mark.security


@pytest.fixture
def signer():
    return Signer.generate("example.org/tempo")


@pytest.fixture
def folder(tmp_path, signer):
    """A log of nine entries, closed."""
    with Ledger.create(tmp_path / "log", signer) as log:
        for i in range(8):
            log.append(Kind.WORKER_EVENT, worker=f"gpu-{i}", detail="lost")
    return tmp_path / "log"


def test_round_trip(folder, signer):
    found = read_verified(folder, signer.verifier)
    assert [e.kind for e in found.entries] == [Kind.LOG_OPENED] + [Kind.WORKER_EVENT] * 8
    assert found.entries[3].fields == {"worker": "gpu-2", "detail": "lost"}
    assert found.checkpoint.size == 9
    assert found.beyond == b""


def test_times_are_utc_with_milliseconds(tmp_path, signer):
    clock = lambda: datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)  # noqa: E731
    Ledger.create(tmp_path / "log", signer, clock).close()
    assert read_verified(tmp_path / "log", signer.verifier).entries[0].at == "2026-01-02T03:04:05.678Z"


def test_the_checkpoint_is_a_signed_note(folder, signer):
    note = (folder / CHECKPOINT).read_text()
    origin, size, root, blank, line = note.splitlines()
    assert (origin, size, blank) == ("example.org/tempo", "9", "")
    assert line.startswith("— example.org/tempo ")
    assert len(root) == 44


def test_the_public_key_survives_printing(signer):
    again = VerifierKey.parse(str(signer.verifier))
    assert again.open(signer.sign(head(signer))).size == 3


def head(signer):
    from tempo.trust.ledger import Checkpoint

    return Checkpoint(signer.name, 3, b"r" * 32)


def test_a_frozen_vector():
    """The body of C2SP's example, signed with openssl by the key of 32 zero bytes."""
    key = VerifierKey.parse("example.com/behind-the-sofa+" + VECTOR_ID + "+" + VECTOR_KEY)
    assert key.open(VECTOR_NOTE).size == 20852163


VECTOR_ID = "9c51ce3d"
VECTOR_KEY = "ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
VECTOR_NOTE = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa nFHOPUO63Y13dtnQuHZB0ONl5ojQtyglZGuN5ue+kCPefAokf76QnnOHoKOX\
c1iSPksY1qdR7Ud+xxPLfe+A+ar/4QE=
"""


def test_the_signer_is_not_printed_or_pickled(signer):
    assert "hidden" in repr(signer)
    with pytest.raises(TypeError):
        pickle.dumps(signer)


def test_a_log_goes_on_where_it_stopped(folder, signer):
    with Ledger.open(folder, signer) as log:
        log.append(Kind.SESSION_CLOSED, steps=3)
    assert [e.kind for e in read_verified(folder, signer.verifier).entries][-1] is Kind.SESSION_CLOSED


def test_a_key_in_pem_needs_its_password(signer):
    pem = signer.to_pem(b"owner's words")
    assert str(Signer.from_pem(signer.name, pem, b"owner's words").verifier) == str(signer.verifier)
    with pytest.raises(UsageError):
        Signer.from_pem(signer.name, pem, b"other words")


# Crashes.


@pytest.mark.parametrize(
    "torn", [b'{"at":"2026', b"\x00\x00", b'{"at":"x","kind":"log_opened","fields":{}}\n']
)
def test_a_torn_record_is_cut_off_and_said(folder, signer, torn):
    with (folder / ENTRIES).open("ab") as file:
        file.write(torn)
    assert read_verified(folder, signer.verifier).beyond == torn
    Ledger.open(folder, signer).close()
    last = read_verified(folder, signer.verifier).entries[-1]
    assert last.kind is Kind.LOG_RECOVERED
    assert last.fields["bytes_cut"] == len(torn)


def test_a_torn_hash_is_written_again(folder, signer):
    with (folder / HASHES).open("ab") as file:
        file.write(b"half")
    with Ledger.open(folder, signer) as log:
        log.append(Kind.SESSION_CLOSED)
    assert read_verified(folder, signer.verifier).checkpoint.size == 10
    assert (folder / HASHES).stat().st_size == 320


WRITER = """
import sys
from pathlib import Path
from tempo.trust.ledger import Kind, Ledger, Signer
signer = Signer.from_pem("crash", Path(sys.argv[2]).read_bytes(), b"w")
with Ledger.open(Path(sys.argv[1]), signer) as log:
    for i in range(100000):
        print(log.append(Kind.WORKER_EVENT, number=i).size, flush=True)
"""


def test_killed_while_writing_every_acknowledged_entry_is_there(tmp_path):
    signer = Signer.generate("crash")
    (tmp_path / "key").write_bytes(signer.to_pem(b"w"))
    Ledger.create(tmp_path / "log", signer).close()
    acknowledged = 1
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "log"), str(tmp_path / "key")],
            stdout=subprocess.PIPE,
            text=True,
        )
        with process.stdout as lines:
            for _ in range(20):
                acknowledged = int(next(lines))
            os.kill(process.pid, signal.SIGKILL)
            acknowledged = max([acknowledged, *(int(line) for line in lines if line.endswith("\n"))])
        process.wait()
        found = read_verified(tmp_path / "log", signer.verifier)
        assert found.checkpoint.size in (acknowledged, acknowledged + 1)
        Ledger.open(tmp_path / "log", signer).close()


def test_a_full_disk_acknowledges_nothing(folder, signer, monkeypatch):
    log = Ledger.open(folder, signer)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutsideError, match="No space left"):
        log.append(Kind.SESSION_CLOSED)
    monkeypatch.undo()
    with pytest.raises(OutsideError, match="open the log again"):
        log.append(Kind.SESSION_CLOSED)
    assert read_verified(folder, signer.verifier).checkpoint.size == 9
    with Ledger.open(folder, signer) as again:
        again.append(Kind.SESSION_CLOSED)


def test_two_writers_are_refused(folder, signer):
    with Ledger.open(folder, signer), pytest.raises(UsageError, match="another process"):
        Ledger.open(folder, signer)


def test_many_threads_lose_nothing(folder, signer):
    with Ledger.open(folder, signer) as log:

        def write(name):
            for i in range(10):
                log.append(Kind.WORKER_EVENT, worker=name, number=i)

        threads = [threading.Thread(target=write, args=(f"t{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    entries = read_verified(folder, signer.verifier).entries[9:]
    assert sorted((e.fields["worker"], e.fields["number"]) for e in entries) == [
        (f"t{i}", j) for i in range(4) for j in range(10)
    ]


# Attacks on the files.


def test_attack_one_byte_of_an_entry(folder, signer):
    path = folder / ENTRIES
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 7):
        bent = bytearray(data)
        bent[at] ^= 1
        path.write_bytes(bent)
        line = bytes(data[:at]).count(b"\n")
        with pytest.raises(TamperedError) as refused:
            read_verified(folder, signer.verifier)
        # A newline more or less shifts all that follows.
        assert f"entry {line}" in str(refused.value) or b"\n" in (bent[at : at + 1], data[at : at + 1])
        with pytest.raises(TamperedError):
            Ledger.open(folder, signer)


def test_attack_entry_and_its_hash(folder, signer):
    from tempo.trust.ledger.merkle import leaf_hash

    lines = (folder / ENTRIES).read_bytes().splitlines()
    lines[4] = lines[4].replace(b"gpu-3", b"gpu-9")
    (folder / ENTRIES).write_bytes(b"\n".join(lines) + b"\n")
    (folder / HASHES).write_bytes(b"".join(map(leaf_hash, lines)))
    with pytest.raises(TamperedError, match="step 2"):
        read_verified(folder, signer.verifier)


def test_attack_cut_at_the_end(folder, signer):
    lines = (folder / ENTRIES).read_bytes().splitlines(keepends=True)
    (folder / ENTRIES).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(TamperedError, match="8 are left"):
        read_verified(folder, signer.verifier)


def test_attack_entries_swapped(folder, signer):
    lines = (folder / ENTRIES).read_bytes().splitlines(keepends=True)
    lines[2], lines[3] = lines[3], lines[2]
    (folder / ENTRIES).write_bytes(b"".join(lines))
    with pytest.raises(TamperedError, match="entry 2"):
        read_verified(folder, signer.verifier)


def test_attack_rolled_back(folder, signer, tmp_path):
    """The cloud puts an older copy of the whole folder in place: only a checkpoint kept elsewhere tells."""
    old = {name: (folder / name).read_bytes() for name in (ENTRIES, HASHES, CHECKPOINT)}
    with Ledger.open(folder, signer) as log:
        kept = log.append(Kind.KEY_RELEASED, to="master")
    for name, data in old.items():
        (folder / name).write_bytes(data)
    assert read_verified(folder, signer.verifier).checkpoint.size == 9
    with pytest.raises(TamperedError, match="rolled back"):
        read_verified(folder, signer.verifier, since=kept)
    with pytest.raises(TamperedError, match="rolled back"):
        Ledger.open(folder, signer, since=kept)


def test_attack_rolled_back_and_continued(folder, signer):
    """As before, and the master went on writing: a fork."""
    old = {name: (folder / name).read_bytes() for name in (ENTRIES, HASHES, CHECKPOINT)}
    with Ledger.open(folder, signer) as log:
        kept = log.append(Kind.KEY_RELEASED, to="master")
    for name, data in old.items():
        (folder / name).write_bytes(data)
    with Ledger.open(folder, signer) as log:
        for _ in range(3):
            log.append(Kind.SESSION_CLOSED)
    with pytest.raises(TamperedError, match="not those that were signed before"):
        read_verified(folder, signer.verifier, since=kept)


def test_attack_a_log_signed_by_someone_else(tmp_path, signer):
    Ledger.create(tmp_path / "log", Signer.generate(signer.name)).close()
    with pytest.raises(TamperedError, match="another key"):
        read_verified(tmp_path / "log", signer.verifier)


@pytest.mark.parametrize(
    "note",
    ["", "x", "a\n1\nAAAA\n\n", "a\n1\nAAAA\n\n— a !!\n", "\n\n— example.org/tempo AAAA\n", "x" * 5000],
)
def test_attack_rubbish_for_a_checkpoint(folder, signer, note):
    (folder / CHECKPOINT).write_text(note)
    with pytest.raises(TamperedError):
        read_verified(folder, signer.verifier)


def test_no_log_is_said_in_words(tmp_path, signer):
    with pytest.raises(DataError, match="no audit log"):
        read_verified(tmp_path, signer.verifier)
    with pytest.raises(UsageError, match="create"):
        Ledger.open(tmp_path / "none", signer)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UsageError, match="not empty"):
        Ledger.create(tmp_path / "full", signer)


@pytest.mark.parametrize(
    "fields", [{"X": 1}, {"a": "b" * 1001}, {"a": b"key"}, {"a": {"b": 1}}, {"a": [[1]]}]
)
def test_what_a_log_does_not_take(folder, signer, fields):
    with Ledger.open(folder, signer) as log, pytest.raises(UsageError):
        log.append(Kind.CONFIGURATION, **fields)


# Proofs that stand alone.


def test_a_proof_without_the_log(folder, signer):
    earlier = (folder / CHECKPOINT).read_text()
    with Ledger.open(folder, signer) as log:
        for _ in range(4):
            log.append(Kind.SESSION_CLOSED)
    found = read_verified(folder, signer.verifier)
    opened = signer.verifier.open(earlier)
    data = to_json(prove(found, 5, (earlier, opened)))
    entry, proof, checkpoint = check(data, signer.verifier)
    assert entry == found.entries[5]
    assert (proof.index, checkpoint.size) == (5, 13)
    fields = json.loads(data)
    for name, value in {
        "index": 6,
        "entry": fields["entry"].replace("gpu-4", "gpu-1"),
        "inclusion": fields["inclusion"][:-1],
        "consistency": fields["consistency"][1:],
        "format": "tempo-log-proof-2",
        "more": 1,
    }.items():
        with pytest.raises(TamperedError):
            check(json.dumps({**fields, name: value}).encode(), signer.verifier)
