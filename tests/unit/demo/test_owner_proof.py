"""What the owner's demo says of altered bytes and of logs: its own checks must be able to fail."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pytest

from tempo.demo.data import digits
from tempo.demo.owner import audit, home, machine, measure, tamper
from tempo.demo.owner.interrupts import Interrupts
from tempo.demo.owner.machine import SoftwareTpm, UnsafeSimulator
from tempo.demo.owner.orders import Done, Released
from tempo.demo.owner.stage import Stage
from tempo.errors import RefusedError, TamperedError, UnsupportedError, UsageError
from tempo.trust.evidence import Expected, Kind, report_data, tpm_device
from tempo.trust.evidence.simulated import produce as simulate
from tempo.trust.ledger import Entry, Ledger, Signer
from tempo.trust.ledger import Kind as EntryKind
from tempo.trust.policy_file import parse_policy
from tempo.trust.policy_key import PolicySigner
from tempo.trust.sealed import DataKey, SealedWriter
from tempo.trust.verifier import Verifier

HEAD = 'tempo-policy = 1\nname = "test"\nallow-unsafe = true\n'


# ---- altered bytes -----------------------------------------------------------------------------


def test_what_nobody_notices_is_counted() -> None:
    whole = b"noticed, overlooked"

    def check(data: bytes) -> None:
        if data[:8] != whole[:8]:
            raise TamperedError("its beginning was altered")

    caught = tamper.attempt(check, whole, range(len(whole)), 3)
    assert caught.message == "its beginning was altered"
    assert (caught.size, caught.tried, caught.missed) == (19, 19, list(range(8, 19)))
    assert tamper.attempt(check, whole, [9], 9).message == ""


def test_a_check_that_refuses_everything_proves_nothing() -> None:
    def check(data: bytes) -> None:
        raise TamperedError("always")

    with pytest.raises(TamperedError, match="always"):
        tamper.attempt(check, b"whole", [0], 0)


@pytest.mark.parametrize("size", [1, 2, 5, 64, 65, 100_000])
def test_places(size: int) -> None:
    found = tamper.places(size, size // 2)
    assert len(found) == len(set(found)) == min(size, tamper.PLACES)
    assert {0, size - 1, size // 2} <= set(found) <= set(range(size))


@pytest.mark.security
def test_sealed_data(tmp_path: Path) -> None:
    key, path = DataKey.generate(), tmp_path / "data.tempo"
    with SealedWriter(path, key, kind="files", name="x") as out:
        for _ in range(40):
            out.add(bytes(5000))
    before = path.read_bytes()
    (tmp_path / "scratch").mkdir()
    caught = tamper.data(path, key, tmp_path / "scratch")
    assert (caught.tried, caught.missed) == (tamper.PLACES, [])
    assert "segment 1 was altered" in caught.message
    assert path.read_bytes() == before


@pytest.mark.security
def test_log(tmp_path: Path) -> None:
    signer = Signer.generate("test/log")
    with Ledger.create(tmp_path / "log", signer) as ledger:
        ledger.append(EntryKind.KEY_REFUSED, step="policy 4 code")
        ledger.append(EntryKind.KEY_RELEASED, version=1)
    (tmp_path / "scratch").mkdir()
    caught = tamper.log(tmp_path / "log", signer.verifier, tmp_path / "scratch", "key_refused")
    assert caught.missed == []
    assert caught.message == "step 3: entry 1 (line 2 of entries.jsonl) was altered"


@pytest.mark.security
def test_evidence_and_policy() -> None:
    measurement, expected = bytes(range(48)), Expected.answer(b"n" * 32, b"key", b"about")
    text = f'{HEAD}[unsafe-simulated]\nmeasurements = [{{ measurement = "{measurement.hex()}" }}]\n'.encode()
    policy = parse_policy(text)
    shown = simulate(report_data(b"n" * 32, b"key", b"about"), measurement)
    caught = tamper.evidence(shown, expected, policy)
    assert (caught.tried, caught.missed) == (sum(map(len, shown.parts.values())), [])
    assert caught.message.startswith("refused at step unsafe-simulated")
    with pytest.raises(RefusedError, match="binding"):  # it must be good before it is altered
        tamper.evidence(shown, Expected.answer(b"m" * 32, b"key", b"about"), policy)
    signer = PolicySigner.generate()
    caught = tamper.policy(text, signer.sign(text), signer.public)
    assert (caught.tried, caught.missed) == (len(text), [])
    assert "does not fit the policy" in caught.message


# ---- what the logs must say --------------------------------------------------------------------

STORY = audit.Story("k1", Released("k1", "e1"), Done({}, [], "", b"", "m1"), "p1")
VAULT = [
    Entry("", EntryKind.LOG_OPENED, {}),
    Entry("", EntryKind.KEY_CHANGED, {"action": "added"}),
    Entry("", EntryKind.KEY_CHANGED, {"action": "granted"}),
    Entry("", EntryKind.KEY_REFUSED, {"code": "evidence", "step": "policy 4 code"}),
    Entry("", EntryKind.KEY_RELEASED, {"key_id": "k1", "evidence_sha256": "e1", "policy": "p1"}),
]
MASTER = [
    Entry("", EntryKind.LOG_OPENED, {}),
    Entry("", EntryKind.ATTESTATION, {"evidence_sha256": "e1"}),
    Entry("", EntryKind.SESSION_OPENED, {}),
    Entry("", EntryKind.CONFIGURATION, {}),
    Entry("", EntryKind.SESSION_CLOSED, {}),
    Entry("", EntryKind.CHECKPOINT_WRITTEN, {"sha256": "m1"}),
]


def test_whole_logs_lack_nothing() -> None:
    assert audit.missing(tuple(VAULT), tuple(MASTER), STORY) == []


@pytest.mark.parametrize("entry", [*VAULT[1:], *MASTER[1:]], ids=lambda e: e.kind.value)
def test_each_entry_is_missed_and_not_wanted_twice(entry: Entry) -> None:
    def told(change) -> int:
        logs = [tuple(change(log) if entry in log else log) for log in (VAULT, MASTER)]
        return len(audit.missing(*logs, STORY))

    assert told(lambda log: [e for e in log if e is not entry]) == 1
    assert told(lambda log: [*log, entry]) == 1


@pytest.mark.parametrize(
    "story",
    [
        dataclasses.replace(STORY, key_id="k2"),
        dataclasses.replace(STORY, policy_sha256="p2"),
        dataclasses.replace(STORY, released=Released("k1", "e2")),
        dataclasses.replace(STORY, done=Done({}, [], "", b"", "m2")),
    ],
)
def test_another_key_policy_evidence_or_model(story: audit.Story) -> None:
    assert audit.missing(tuple(VAULT), tuple(MASTER), story)


def test_a_failure_of_integrity_is_told() -> None:
    more = (*MASTER, Entry("", EntryKind.INTEGRITY_FAILURE, {}))
    assert audit.missing(tuple(VAULT), more, STORY) == [
        "the master's log has 1 integrity failures, expected none"
    ]


# ---- data --------------------------------------------------------------------------------------


def test_few_images_of_a_large_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    many = digits()
    many = dataclasses.replace(many, train_x=many.train_x.repeat(2, 1, 1, 1), train_y=many.train_y.repeat(2))
    monkeypatch.setattr(home, "cifar10", lambda folder, say: many)
    few = home.load(tmp_path)
    assert len(few.train_x) == len(few.train_y) == 2000 < len(many.train_x)
    assert few.name == "the first 2,000 of digits 8x8"
    assert len(home.load(None).train_x) == 1437


# ---- machines ----------------------------------------------------------------------------------


def test_the_simulator_says_what_it_is_told(tmp_path: Path) -> None:
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("1")
    other.write_text("2")
    made = UnsafeSimulator()
    policy = parse_policy((HEAD + made.demands(one)).encode())
    wanted = policy.kinds[Kind.SIMULATED].measurements[0]["measurement"]
    assert made.boot(one).measurement.hex() == wanted != made.boot(other).measurement.hex()
    with pytest.raises(UsageError, match="allow-unsafe"):
        parse_policy(('tempo-policy = 1\nname = "x"\n' + made.demands(one)).encode())


def test_without_a_software_tpm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    monkeypatch.setattr(machine.importlib, "import_module", gone)
    with pytest.raises(UnsupportedError) as error:
        machine.require_software_tpm()
    for words in (
        "swtpm",
        "apt-get install",
        "tempo-confidential[tpm]",
        "--unsafe-simulator",
        "proves nothing",
    ):
        assert words in str(error.value)


def test_a_rebooted_tpm_has_the_same_key_and_other_pcrs(tmp_path: Path) -> None:
    pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is not installed (pip extra tpm)")
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed (apt-get install swtpm libtss2-dev)")
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("1")
    other.write_text("2")
    expected = Expected.answer(b"n" * 32, b"key", b"about")
    now = audit.datetime.now(audit.UTC)
    with Interrupts() as interrupts, Stage(interrupts) as stage:
        made = SoftwareTpm(stage)
        first = made.boot(one)
        policy = parse_policy((HEAD + made.demands(one)).encode())

        def claims():
            evidence = tpm_device.produce(expected.report_data, first.tcti)
            return Verifier(policy.anchors).verify(evidence, expected, now)

        policy.check(claims(), now)
        made.boot(other)
        found = claims()  # by the same key: it is the same machine
        with pytest.raises(RefusedError, match="policy 4 code") as error:
            policy.check(found, now)
        assert error.value.found == f"pcr9 {measure.extended(hashlib.sha256(b'2').digest()).hex()}"
        made.boot(one)
        policy.check(claims(), now)
    assert not any(child.alive for child in stage.children)
