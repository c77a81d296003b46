"""Stand-in machines: configfs-tsm and Gramine's files on an ordinary folder, reports and quotes with the real
structures, signed by platforms that the tests make, whose roots take the place of the vendors'.

    FOLDER/measurement    what the machine runs, hex: SEV-SNP's launch measurement, MRTD, or MRENCLAVE;
                          read for each report, so who writes there boots something else
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import authorities
import dcap_maker as dcap
import snp_maker as snp
from configfs_kernel import Kernel
from cryptography.hazmat.primitives.serialization import Encoding

from tempo.trust.evidence import anchors, machine
from tempo.trust.evidence.claims import Kind

_MADE: dict[str, object] = {}


def make_platforms(folder: str) -> None:
    """Valid now, not at the tests' usual date. Their papers lie in FOLDER/papers, as from the vendors."""
    now = datetime.now(UTC)
    for made in (authorities.certify, authorities.revoke):
        made.__kwdefaults__.update(start=now - timedelta(days=1), end=now + timedelta(days=30))
    dcap.collateral.__kwdefaults__.update(start=now - timedelta(days=1), end=now + timedelta(days=20))
    amd, intel = snp.platform(leaf_end=now + timedelta(days=30)), dcap.platform()
    _MADE.update(amd=amd, intel=intel)
    vendors = anchors.VENDORS
    vendors[Kind.SEV_SNP] = amd.anchors.of(Kind.SEV_SNP)
    vendors[Kind.TDX] = vendors[Kind.SGX_DCAP] = intel.anchors().of(Kind.TDX)
    for name, holders in {"amd": (amd.ark, amd.ask, amd.vcek), "intel": (intel.root,)}.items():
        papers = Path(folder) / "papers" / name
        papers.mkdir(parents=True)
        for number, holder in enumerate(holders):
            (papers / f"{number}.pem").write_bytes(holder.certificate.public_bytes(Encoding.PEM))
    lists = {"ark": authorities.revoke(amd.ark), "ask": authorities.revoke(amd.ask)}
    for name, made in lists.items():
        (Path(folder) / "papers" / "amd" / f"{name}.crl").write_bytes(made.public_bytes(Encoding.DER))
    for tee in ("TDX", "SGX"):
        (text,) = dcap.collateral(intel, tee).dcap
        (Path(folder) / "papers" / "intel" / f"{tee.lower()}.json").write_text(text)


def stand_in(where: str | None) -> None:
    """Make this process one on such a machine, until it ends. None: on this one."""
    if where is None:
        machine._CONFIGFS = machine._GRAMINE = Path("nowhere")
        machine._TPMS = ()
        return
    kind, _, folder = where.partition(":")
    runs = Path(folder) / "measurement"
    machine._TPMS = ()
    machine._CONFIGFS, machine._GRAMINE = Path("nowhere"), Path("nowhere")
    if kind == Kind.SGX_DCAP:
        machine._GRAMINE = Path(folder) / "attestation"
        return _gramine(Path(folder) / "attestation", runs)
    root = Path(folder) / "tsm"
    root.mkdir(exist_ok=True)
    machine._CONFIGFS = root
    if kind == Kind.SEV_SNP:
        amd = _MADE["amd"]

        def report(data: bytes) -> bytes:
            return snp.report(amd.vcek.key, data=data, measurement=bytes.fromhex(runs.read_text()))

        kernel = Kernel("sev_guest", report, snp.table(amd), 0)
    else:
        kernel = Kernel("tdx_guest", lambda data: _quote("TDX", "mr_td", data, runs), None, 0)
    mock.patch("os.write", kernel.write).start()
    for name in ("mkdir", "rmdir"):
        mock.patch(f"os.{name}", _within(root, getattr(kernel, name), getattr(os, name))).start()


def _within(root: Path, made, real):
    """The kernel's own for entries of `root`; elsewhere the system's."""

    def call(path, *more, **named):
        ours = not named and Path(os.fsdecode(path)).parent == root
        return made(path, *more) if ours else real(path, *more, **named)

    return call


def _quote(tee: str, register: str, data: bytes, runs: Path) -> bytes:
    with mock.patch.dict(dcap.MR, {register: bytes.fromhex(runs.read_text())}):
        return dcap.quote(_MADE["intel"], tee, data=data)


def _gramine(root: Path, runs: Path) -> None:
    """Gramine makes the quote when it is read: here when the report data were written."""
    root.mkdir(exist_ok=True)
    (root / "attestation_type").write_text("dcap")
    (root / "user_report_data").write_bytes(bytes(64))
    (root / "quote").write_bytes(b"")
    produce = machine.sgx_dcap.produce

    def quoted(data: bytes, folder: Path):
        (root / "quote").write_bytes(_quote("SGX", "mr_enclave", data, runs))
        made = produce(data, folder)
        assert (root / "user_report_data").read_bytes() == data
        return made

    mock.patch.object(machine.sgx_dcap, "produce", quoted).start()
