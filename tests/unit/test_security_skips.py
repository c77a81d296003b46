"""A skipped security test fails the run (tests/security_skips.py), in one process or in two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
CONFTEST = """
from security_skips import SecuritySkips
def pytest_configure(config): config.pluginmanager.register(SecuritySkips())
"""
PROCESSES = [
    pytest.param([], id="one"),
    pytest.param(["-p", "xdist", "-n", "2", "--dist", "loadfile"], id="two"),
]
# What a file may hold and still let the run pass; and what may not be, with the name that must be told.
FINE = {
    "passes": "@pytest.mark.security\ndef test(): pass",
    "another_may_skip": "def test(): pytest.skip()",
    "another_may_fail": "@pytest.mark.xfail\ndef test(): assert 0",
    "another_file": "pytest.importorskip('no_such')",
}
SKIPPED = {
    "skips": "@pytest.mark.security\ndef test(): pytest.skip()",
    "marked": "@pytest.mark.security\n@pytest.mark.skip\ndef test(): pass",
    "xfail": "@pytest.mark.security\n@pytest.mark.xfail\ndef test(): assert 0",
    "of_a_class": "@pytest.mark.security\nclass TestIt:\n    def test(self): pytest.skip()",
    "of_a_fixture": "@pytest.fixture\ndef no(): pytest.skip()\n@pytest.mark.security\ndef test(no): pass",
    "one_case": "@pytest.mark.parametrize('n', [pytest.param(1, marks=pytest.mark.security)])\n"
    "def test(n): pytest.skip()",
    "file": "pytestmark = pytest.mark.security\npytest.importorskip('no_such')\ndef test(): pass",
    "for_a_helper": "pytestmark = pytest.mark.security\nimport helper\ndef test(): pass",
    "for_it_too": "pytestmark = pytest.mark.security\nimport helper\ndef test(): pass",
}
TOLD = {
    **{name: f"test_{name}.py::test" for name in SKIPPED},
    "of_a_class": "test_of_a_class.py::TestIt::test",
    "one_case": "test_one_case.py::test[1]",
    "file": "test_file.py",
    "for_a_helper": "test_for_a_helper.py",
    "for_it_too": "test_for_it_too.py",
}


def run(folder: Path, options: list[str], files: dict[str, str]) -> tuple[int, list[str]]:
    """What pytest returns for these files, and the names that it says were skipped."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  security: as in the project\n")
    (folder / "conftest.py").write_text(CONFTEST)
    # Reports of all who need it say the same.
    (folder / "helper.py").write_text("import pytest\npytest.skip('not here', allow_module_level=True)\n")
    for name, body in files.items():
        (folder / f"test_{name}.py").write_text(f"import pytest\n{body}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert not done.stderr
    told = [line.split(": ")[-1] for line in done.stdout.splitlines() if "security test skipped" in line]
    return done.returncode, told


@pytest.mark.parametrize("options", PROCESSES)
def test_all_that_may_skip(options: list[str], tmp_path: Path) -> None:
    assert run(tmp_path, options, FINE) == (0, [])


@pytest.mark.parametrize("options", PROCESSES)
def test_all_that_may_not_skip(options: list[str], tmp_path: Path) -> None:
    code, told = run(tmp_path, options, FINE | SKIPPED)
    assert code == 1
    assert sorted(told) == sorted(TOLD.values())


def test_the_rule_holds_here(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.has_plugin("security-skips")
