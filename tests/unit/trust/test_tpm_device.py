"""A quote by a real TPM in software (swtpm), end to end: extend a PCR, quote, verify, hold to a policy.

Needs swtpm, libtss2 and tpm2-pytss; skips without. What a quote may not say is in test_tpm_quote.py, always.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from authorities import NOW

from tempo.errors import OutsideError, RefusedError, UsageError
from tempo.trust.evidence import Anchors, Expected, Kind, tpm_device
from tempo.trust.evidence.tpm import key_name
from tempo.trust.policy import Demands, Policy
from tempo.trust.policy import Step as PolicyStep
from tempo.trust.verifier import Step as VerifierStep
from tempo.trust.verifier import Verifier

tpm2_pytss = pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is not installed (pip extra tpm)")
EXPECTED = Expected.answer(b"n" * 32, b"key", b"vault")


@pytest.fixture
def tcti(tmp_path_factory) -> Iterator[str]:
    """A TPM that has just started."""
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed (apt-get install swtpm libtss2-dev)")
    # A Unix socket's path is short, pytest's folders are not.
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    listen = ["--server", f"type=unixio,path={folder}/s", "--ctrl", f"type=unixio,path={folder}/s.ctrl"]
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", *listen]
    flags = ["--flags", "not-need-init,startup-clear"]
    process = subprocess.Popen([*command, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            if (folder / "s").exists() and (folder / "s.ctrl").exists():
                break
            time.sleep(0.02)
        yield f"swtpm:path={folder}/s"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def extend(tcti: str, index: int, digest: bytes) -> None:
    with tpm2_pytss.ESAPI(tcti) as tpm:
        library = tpm2_pytss
        value = library.TPMT_HA(hashAlg=library.TPM2_ALG.SHA256, digest=library.TPMU_HA(sha256=digest))
        values = library.TPML_DIGEST_VALUES([value])
        tpm.pcr_extend(tpm2_pytss.ESYS_TR(index), values)


def test_a_quote_from_the_machine_to_the_policy(tcti) -> None:
    kernel = hashlib.sha256(b"kernel").digest()
    extend(tcti, 8, kernel)
    evidence = tpm_device.produce(EXPECTED.report_data, tcti)
    again = tpm_device.produce(EXPECTED.report_data, tcti)
    assert evidence.parts["key"] == again.parts["key"]  # derived, not stored
    name = key_name(evidence.parts["key"])
    pcr8 = hashlib.sha256(bytes(32) + kernel).hexdigest()
    policy = Policy("made", {Kind.TPM: Demands(({"pcr8": pcr8, "pcr0": "00" * 32},), keys=frozenset({name}))})
    claims = Verifier(policy.anchors).verify(evidence, EXPECTED, NOW)
    assert claims.measurements["pcr8"] == pcr8
    assert claims.platform == name
    policy.check(claims, NOW)

    with pytest.raises(RefusedError) as error:
        Verifier(policy.anchors).verify(evidence, Expected.answer(b"m" * 32, b"key", b"vault"), NOW)
    assert error.value.step == VerifierStep.BINDING
    with pytest.raises(RefusedError) as error:
        Verifier(Anchors(keys=frozenset({"00" * 32}))).verify(evidence, EXPECTED, NOW)
    assert error.value.step == "tpm 2 key"

    extend(tcti, 8, hashlib.sha256(b"another kernel").digest())
    other = Verifier(policy.anchors).verify(tpm_device.produce(EXPECTED.report_data, tcti), EXPECTED, NOW)
    with pytest.raises(RefusedError, match=pcr8) as error:
        policy.check(other, NOW)
    assert error.value.step == PolicyStep.CODE


def test_the_tpm_keeps_no_key_of_ours(tcti) -> None:
    for _ in range(8):  # a TPM holds three at once
        tpm_device.produce(EXPECTED.report_data, tcti, pcrs=[0])


def test_no_tpm_and_no_such_pcr(tmp_path) -> None:
    with pytest.raises(OutsideError, match="gives no quote"):
        tpm_device.produce(EXPECTED.report_data, f"device:{tmp_path}/none")
    with pytest.raises(UsageError, match="0 to 23"):
        tpm_device.produce(EXPECTED.report_data, "device:/none", pcrs=[24])
