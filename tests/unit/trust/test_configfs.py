"""Producing evidence: configfs-tsm on a stand-in directory with the same files, Gramine's files, and none."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import snp_maker as snp
from authorities import NOW
from configfs_kernel import Kernel

from tempo.errors import OutsideError, UnsupportedError
from tempo.trust.evidence import (
    Evidence,
    Expected,
    Kind,
    available,
    configfs,
    produce,
    sev_snp,
    sgx_dcap,
    tdx,
)
from tempo.trust.evidence.machine import best
from tempo.trust.verifier import Verifier

DATA = bytes(range(64))


@pytest.fixture
def stand_in(tmp_path):
    """stand_in(provider, blob of report data): the root of a machine with these."""
    root = tmp_path / "sys/kernel/config/tsm/report"
    root.mkdir(parents=True)
    kernels: list[Kernel] = []
    patches: list = []

    def build(provider: str, blob, auxblob: bytes | None = b"", meddlers: int = 0) -> Path:
        kernel = Kernel(provider, blob, auxblob, meddlers)
        kernels.append(kernel)
        for name in ("mkdir", "rmdir", "write"):
            patches.append(mock.patch(f"os.{name}", getattr(kernel, name)))
            patches[-1].start()
        return tmp_path

    yield build
    for patch in patches:
        patch.stop()
    assert kernels[0].entries
    assert not any(root.iterdir())  # nothing is left behind


def test_sev_snp_through_configfs_to_the_claims(stand_in) -> None:
    made = snp.platform()
    root = stand_in("sev_guest", lambda data: snp.report(made.vcek.key, data=data), auxblob=snp.table(made))
    expected = Expected.answer(b"n" * 32, b"key", b"vault")
    evidence = produce(Kind.SEV_SNP, expected.report_data, root)
    evidence = Evidence.from_json(evidence.to_json())
    assert Verifier(made.anchors).verify(evidence, expected, NOW).platform == snp.CHIP.hex()


@pytest.mark.parametrize("auxblob", [None, b""])
def test_tdx_through_configfs(stand_in, auxblob) -> None:
    quote = (
        (4).to_bytes(2, "little")
        + bytes(2)
        + (0x81).to_bytes(4, "little")
        + bytes(40 + 584)
        + (3).to_bytes(4, "little")
    )
    root = stand_in("tdx_guest", lambda data: quote + data[:3] + bytes(70), auxblob=auxblob)
    evidence = produce(Kind.TDX, DATA, root)
    assert evidence == Evidence(Kind.TDX, {"quote": quote + DATA[:3]})


@pytest.mark.parametrize(("module", "provider"), [(sev_snp, "tdx_guest"), (tdx, "sev_guest")])
def test_another_machine(stand_in, module, provider) -> None:
    root = stand_in(provider, lambda data: data)
    with pytest.raises(OutsideError, match=provider):
        module.produce(DATA, root / "sys/kernel/config/tsm/report")


def test_somebody_else_writes(stand_in) -> None:
    seen = []
    root = stand_in("sev_guest", lambda data: seen.append(data) or data, meddlers=2)
    report = configfs.take(DATA, root / "sys/kernel/config/tsm/report")
    assert report.outblob == DATA
    assert len(seen) == 3  # two were thrown away


def test_somebody_else_keeps_writing(stand_in) -> None:
    root = stand_in("sev_guest", lambda data: data, meddlers=99)
    with pytest.raises(OutsideError, match="somebody else"):
        configfs.take(DATA, root / "sys/kernel/config/tsm/report")


def test_a_kernel_that_gives_too_much(stand_in) -> None:
    root = stand_in("sev_guest", lambda data: bytes(70000))
    with pytest.raises(OutsideError, match="more than 65536"):
        configfs.take(DATA, root / "sys/kernel/config/tsm/report")


def test_gramine(tmp_path) -> None:
    folder = tmp_path / "dev/attestation"
    folder.mkdir(parents=True)
    (folder / "attestation_type").write_text("dcap\n")
    (folder / "user_report_data").write_bytes(b"")
    (folder / "quote").write_bytes(b"quote")
    assert produce(Kind.SGX_DCAP, DATA, tmp_path).parts == {"quote": b"quote"}
    assert (folder / "user_report_data").read_bytes() == DATA
    assert available(tmp_path) == [Kind.SGX_DCAP]
    (folder / "attestation_type").write_text("none\n")
    with pytest.raises(OutsideError, match="'none'"):
        sgx_dcap.produce(DATA, folder)


def test_a_machine_without_any(tmp_path) -> None:
    assert available(tmp_path) == []
    with pytest.raises(OutsideError, match="no evidence"):
        best(tmp_path)
    for kind in (Kind.SEV_SNP, Kind.TDX, Kind.SGX_DCAP):
        with pytest.raises(OutsideError):
            produce(kind, DATA, tmp_path)
    for kind in (Kind.NITRO, Kind.SIMULATED):
        with pytest.raises(UnsupportedError):
            produce(kind, DATA, tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/tpmrm0").touch()
    assert best(tmp_path) is Kind.TPM
