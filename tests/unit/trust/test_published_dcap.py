"""TDX and SGX: quotes that others published, with Intel's own collateral, as they are and with defects."""

from __future__ import annotations

import contextlib
import random
from datetime import UTC, datetime

import dcap_maker as dcap
import pytest
from authorities import vectors

from tempo.errors import RefusedError
from tempo.trust.evidence import Anchors, Collateral, sgx_dcap, tdx
from tempo.trust.evidence.dcap import trimmed

pytest.importorskip("dcap_qvl", reason="dcap-qvl is not installed (pip extra trust)")
THEN = datetime(2025, 6, 25, tzinfo=UTC)
LATER = datetime(2026, 3, 1, tzinfo=UTC)


def published(name: str) -> tuple[bytes, Collateral]:
    folder = vectors("dcap")
    papers = Collateral(dcap=((folder / f"{name}_collateral.json").read_text(),))
    return trimmed((folder / name).read_bytes()), papers


def refused(step: str, match: str, module, tee: str, raw: bytes, papers: Collateral, now: datetime) -> None:
    with pytest.raises(RefusedError, match=match) as error:
        module.verify(dcap.evidence(raw, tee), Anchors(), papers, now)
    assert error.value.step == module.Step[step]


def test_tdx() -> None:
    raw, papers = published("tdx_quote")
    claims = tdx.verify(dcap.evidence(raw, "TDX"), Anchors(), papers, THEN)
    assert claims.status == "UpToDate"
    assert claims.measurements["mr_td"].startswith("91eb2b44d141d4ece09f0c75c2c53d24")
    assert claims.measurements["rt_mr2"].startswith("d833feef2cd945148aa38ead2c53e9b7")
    assert claims.bound.hex().startswith("9a9d48e7f6799642d3d1b34e1e5e1742")
    refused("QUOTE", "expired", tdx, "TDX", raw, papers, LATER)
    refused("FORMAT", "4937 bytes", tdx, "TDX", raw + b"\0", papers, THEN)


def test_sgx() -> None:
    raw, papers = published("sgx_quote")
    claims = sgx_dcap.verify(dcap.evidence(raw, "SGX"), Anchors(), papers, THEN)
    assert claims.status == "ConfigurationAndSWHardeningNeeded"
    assert claims.advisories == ("INTEL-SA-00289", "INTEL-SA-00615")
    assert claims.measurements["mr_enclave"].startswith("33d8736db756ed4997e04ba358d27833")
    assert claims.bound == b"Hello, world!".ljust(64, b"\0")
    refused("QUOTE", "expired", sgx_dcap, "SGX", raw, papers, LATER)


def test_an_old_tcb() -> None:
    raw, papers = published("tdx_quote_outdated")
    refused("TCB", "No matching TCB level", tdx, "TDX", raw, papers, LATER)


def test_under_a_root_that_is_not_trusted() -> None:
    raw, papers = published("tdx_quote")
    made = dcap.platform()
    with pytest.raises(RefusedError, match="under the root 44a0196b") as error:
        tdx.verify(dcap.evidence(raw, "TDX"), made.anchors(), papers, THEN)
    assert error.value.step == tdx.Step.COLLATERAL
    refused("COLLATERAL", "0 sets", tdx, "TDX", raw, Collateral(), THEN)
    _, other = published("sgx_quote")
    refused("COLLATERAL", "1 sets", tdx, "TDX", raw, other, THEN)


@pytest.mark.parametrize(("name", "tee"), [("tdx_quote", "TDX"), ("sgx_quote", "SGX")])
def test_flipped_bits_never_change_a_claim(name, tee) -> None:
    module = tdx if tee == "TDX" else sgx_dcap
    raw, papers = published(name)
    want = module.verify(dcap.evidence(raw, tee), Anchors(), papers, THEN)
    rng = random.Random(5)
    refusals = 0
    for place in range(0, len(raw), 31):
        changed = bytearray(raw)
        changed[place] ^= 1 << rng.randrange(8)
        with contextlib.suppress(RefusedError):
            refusals += 1
            assert module.verify(dcap.evidence(bytes(changed), tee), Anchors(), papers, THEN) == want
            refusals -= 1
    assert refusals > 100  # some 150 tries; line ends and what stands behind the certificates say nothing
