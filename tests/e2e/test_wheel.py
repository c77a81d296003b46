"""The wheel that others get: the same bytes from two builds, and native passes in a fresh environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BUILD = PROJECT / "deploy" / "wheel" / "build"

pytestmark = [
    pytest.mark.timeout(1200),  # every instruction set is compiled twice, half a minute each
    pytest.mark.skipif(
        not (PROJECT / ".git").exists() or shutil.which("c++") is None, reason="needs git and a C++ compiler"
    ),
]


def built(out: Path, **environ: str) -> Path:
    """Without auditwheel: where it is installed must not decide what is compared."""
    path = os.pathsep.join(
        p for p in os.environ["PATH"].split(os.pathsep) if not Path(p, "auditwheel").exists()
    )
    environ = {**os.environ, "PATH": path, "PYTHON": sys.executable, **environ}
    done = subprocess.run([BUILD, out], env=environ, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("first"))


def test_one_wheel_for_every_python_with_all_that_it_needs_and_nothing_else(wheel: Path) -> None:
    assert wheel.name.split("-")[2:4] == ["cp311", "abi3"]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
    assert [n for n in names if n.endswith(".so")] == ["tempo/kernels/_passes.abi3.so"]
    assert {"tempo/py.typed", "tempo/report/verdicts.json", "tempo/worker/__main__.py"} <= set(names)
    assert not [n for n in names if n.startswith("tests") or n.endswith((".pyc", ".cpp", ".h"))]
    base = [
        re.split(r"[^A-Za-z0-9._-]", line.split()[1])[0]
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert base == ["torch", "numpy", "msgspec", "cryptography", "typer", "rich"]
    assert wheel.stat().st_size < 3e6


def test_two_builds_are_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    """Elsewhere, under other habits: folder, umask, time zone, language, a day later."""
    old = os.umask(0o077)
    try:
        second = built(tmp_path, TMPDIR=str(tmp_path), TZ="Asia/Tokyo", LC_ALL="C.UTF-8", LANG="C.UTF-8")
    finally:
        os.umask(old)
    assert second.name == wheel.name
    assert second.read_bytes() == wheel.read_bytes()


def test_it_installs_into_a_fresh_environment_and_native_passes_serve(wheel: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", fresh], check=True, timeout=120)
    python = fresh / "bin" / "python"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            wheel,
        ],
        check=True,
        timeout=120,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    # What it depends on is there already: torch alone would take minutes. Editable installs are not followed.
    site = next(fresh.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TEMPO_KERNELS")}
    where = [python, "-c", "import tempo; print(tempo.__file__)"]
    done = subprocess.run(where, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(site)
    done = subprocess.run(
        [fresh / "bin" / "tempo", "doctor", "--json"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
    )
    (kernels,) = [row for row in json.loads(done.stdout)["rows"] if row["name"] == "kernels"]
    assert kernels["found"].startswith("native"), kernels
    expected = "ok" if {"avx2", "fma"} <= set(Path("/proc/cpuinfo").read_text().split()) else "note"
    assert kernels["status"] == expected
