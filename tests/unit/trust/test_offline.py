"""What verifies evidence asks neither clock nor network; its steps are those of docs/attestation.md."""

from __future__ import annotations

import ast
import enum
from pathlib import Path

import pytest

import tempo.trust.verifier
from tempo.trust import policy, verifier
from tempo.trust.evidence import nitro, sev_snp, sgx_dcap, simulated, tdx, tpm

pytestmark = pytest.mark.security
TRUST = Path(tempo.trust.verifier.__file__).parent
#: These take evidence from the machine they run on, and wait for it.
PRODUCERS = {"configfs.py", "machine.py", "tpm_device.py"}
FILES = sorted([*(TRUST / "evidence").glob("*.py"), *TRUST.glob("*.py")])
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "attestation.md"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_clock_and_no_network(path) -> None:
    tree = ast.parse(path.read_text())
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    calls = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not {m.split(".")[0] for m in modules} & {"socket", "urllib", "http", "requests", "asyncio", "ssl"}
    assert not calls & {"get_collateral", "get_collateral_and_verify", "urlopen", "utcnow", "today"}
    if path.name not in PRODUCERS:
        assert "time" not in modules | names
        assert "now" not in calls


def test_the_steps_are_documented_and_numbered() -> None:
    text = DOCUMENT.read_text()
    for module in (sev_snp, tdx, sgx_dcap, nitro, tpm, simulated, verifier, policy):
        steps = list(module.Step)
        assert issubclass(module.Step, enum.StrEnum)
        numbers = [int(step.split()[1]) for step in steps]
        assert numbers == sorted(set(numbers))
        missing = [str(step) for step in steps if f"`{step}`" not in text]
        assert missing == []
