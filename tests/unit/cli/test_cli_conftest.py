"""The rule of tests/conftest.py: a security test that is skipped fails the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[2] / "conftest.py"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param("@pytest.mark.security\ndef test(): pass", 0, id="passes"),
        pytest.param("@pytest.mark.security\ndef test(): pytest.skip()", 1, id="skips"),
        pytest.param("@pytest.mark.security\n@pytest.mark.skip\ndef test(): pass", 1, id="marked"),
        pytest.param("@pytest.mark.security\n@pytest.mark.xfail\ndef test(): assert 0", 1, id="xfail"),
        pytest.param("pytestmark = pytest.mark.security\npytest.importorskip('no_such')", 1, id="file"),
        pytest.param("def test(): pytest.skip()", 0, id="another-may-skip"),
    ],
)
def test_skipped_security_test(body: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  security: as in the project\n")
    (tmp_path / "conftest.py").write_text(
        CONFTEST.read_text().replace("import torch\n", "").replace("torch.set", "#")
    )
    (tmp_path / "test_it.py").write_text(f"import pytest\n{body}\n")
    (tmp_path / "test_other.py").write_text("def test_other(): pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout
    assert ("security test skipped" in done.stdout) == bool(code)
