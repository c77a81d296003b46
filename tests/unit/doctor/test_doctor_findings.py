"""Every finding reaches each of its statuses, on machines made of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tempo.doctor import Finding, Host, Status, examine_host, hardware, software, trust
from tempo.kernels import Serving

OK, NOTE, PROBLEM = Status.OK, Status.NOTE, Status.PROBLEM


def machine(root: Path, environ: dict[str, str] | None = None, **files: str) -> Host:
    """Files by path with / written as __."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host(root, environ or {})


def check(finding: Finding, status: Status, *says: str) -> None:
    assert finding.status is status, finding
    for word in says:
        assert word in finding.found + finding.mend
    # Whoever reads of a problem also reads what to do.
    assert finding.mend or status is not PROBLEM
    assert not finding.mend or status is not OK


def test_python_and_torch() -> None:
    check(software.python(), OK, "3.")
    check(software.pytorch(), OK)
    check(software.pytorch("2.13.0+cpu"), OK, "2.13.0")
    check(software.pytorch("2.5.1"), PROBLEM, "pip install")
    check(software.pytorch("strange"), PROBLEM)


@pytest.mark.parametrize(
    ("status", "expected", "says"),
    [
        (Serving("avx512", ""), OK, "avx512"),
        (Serving("avx2", "no AVX-512"), OK, "avx2"),
        (Serving("portable", "the CPU has no AVX2"), NOTE, "the CPU has no AVX2"),
        (Serving("plain", "no compiler when it was built"), NOTE, "no compiler when it was built"),
    ],
)
def test_kernels(status: Serving, expected: Status, says: str) -> None:
    check(software.kernels(status), expected, says)


def test_kernels_that_are_absent_say_how_to_mend_it() -> None:
    check(software.kernels(Serving("plain", "x")), NOTE, "C++ compiler", "reinstall")


def test_compiler(tmp_path: Path) -> None:
    host = Host(tmp_path, {"PATH": str(tmp_path)})
    check(software.compiler(host), NOTE, "no C++ compiler")
    program = tmp_path / "g++"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    check(software.compiler(host), NOTE)
    program.write_text("#!/bin/sh\necho 'g++ 12.2'; echo more\n")
    finding = software.compiler(host)
    check(finding, OK)
    assert finding.found == "g++ 12.2"


@pytest.mark.parametrize(
    ("flags", "status", "has", "has_not"),
    [
        ("fpu sse4_2", NOTE, "no AVX2", "AMX"),
        ("fma avx2", OK, "AVX2;", "AVX-512"),
        ("fma avx2 avx512f", OK, "AVX2;", "AVX-512"),
        ("fma avx2 avx512f avx512bw avx512vl avx512_bf16 amx_tile amx_bf16", OK, "AMX bf16", "no AVX2"),
    ],
)
def test_processor(tmp_path: Path, flags: str, status: Status, has: str, has_not: str) -> None:
    host = machine(tmp_path, proc__cpuinfo=f"model name\t: Some CPU\nflags\t\t: {flags}\n")
    finding = hardware.processor(host)
    check(finding, status, "Some CPU", has)
    assert has_not not in finding.found.partition("torch")[0]


@pytest.mark.parametrize(
    ("environ", "status", "says"),
    [
        ({"OMP_WAIT_POLICY": "passive"}, OK, "unset"),
        ({"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}, OK, "OMP_NUM_THREADS 1"),
        ({"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "99999"}, NOTE, "unset it"),
        ({"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "\x1b[2J"}, NOTE, "\\x1b[2J"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, NOTE, "PASSIVE before Python starts"),
        ({}, NOTE, "PASSIVE before Python starts"),
    ],
)
def test_cores(tmp_path: Path, environ: dict[str, str], status: Status, says: str) -> None:
    check(hardware.cores(Host(tmp_path, environ)), status, says)


def test_a_quota_below_the_cores(tmp_path: Path) -> None:
    passive = {"OMP_WAIT_POLICY": "PASSIVE"}
    path = tmp_path / "sys/fs/cgroup/cpu.max"
    path.parent.mkdir(parents=True)
    path.write_text("50000 100000\n")
    check(hardware.cores(Host(tmp_path, passive)), NOTE, "0.5 cores", "OMP_NUM_THREADS=1")
    path.write_text("max 100000\n")
    check(hardware.cores(Host(tmp_path, passive)), OK)


@pytest.mark.parametrize(
    ("available_kib", "status"), [(512 << 10, PROBLEM), (2 << 20, NOTE), (6 << 20, OK), (None, NOTE)]
)
def test_memory(tmp_path: Path, available_kib: int | None, status: Status) -> None:
    text = f"MemTotal: {8 << 20} kB\nMemAvailable: {available_kib} kB\n" if available_kib else ""
    check(hardware.memory(machine(tmp_path, proc__meminfo=text)), status)


def test_memory_of_a_control_group(tmp_path: Path) -> None:
    host = machine(tmp_path, proc__meminfo=f"MemTotal: {8 << 20} kB\nMemAvailable: {6 << 20} kB\n")
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{2 << 30}\n")
    (group / "memory.current").write_text(f"{3 << 29}\n")
    check(hardware.memory(host), PROBLEM, "0.5 GiB available of 2.0 GiB")
    (group / "memory.max").write_text("max\n")
    check(hardware.memory(host), OK)


@pytest.mark.parametrize(
    ("text", "status"), [("[always] madvise never", OK), ("always madvise [never]", NOTE), ("", NOTE)]
)
def test_huge_pages(tmp_path: Path, text: str, status: Status) -> None:
    check(hardware.huge_pages(machine(tmp_path, sys__kernel__mm__transparent_hugepage__enabled=text)), status)


def test_gpus() -> None:
    check(hardware.gpus([]), NOTE, "fine for a master")
    check(hardware.gpus(["Some GPU"]), OK, "cuda:0 Some GPU")


def test_tee(tmp_path: Path) -> None:
    check(trust.tee(Host(tmp_path)), NOTE, "no TEE found: fine for development")
    host = machine(tmp_path, **{"dev__sev-guest": ""})
    check(trust.tee(host), NOTE, "SEV-SNP", "configfs")
    (tmp_path / "sys/kernel/config/tsm/report").mkdir(parents=True)
    check(trust.tee(host), OK, "SEV-SNP", "guess")
    (tmp_path / "dev/sev-guest").rename(tmp_path / "dev/tdx_guest")
    check(trust.tee(host), OK, "TDX")
    (tmp_path / "dev/tdx_guest").unlink()
    check(trust.tee(host), NOTE, "no guest device")
    (tmp_path / "dev/tpmrm0").touch()
    check(trust.tee(host), NOTE, "no guest device", "a TPM is there")
    (tmp_path / "dev/sev-guest").touch()
    check(trust.tee(host), OK, "SEV-SNP", "evidence of kind tpm", "tempo attest produce")
    assert not any((tmp_path / "sys/kernel/config/tsm/report").iterdir())


def test_clock() -> None:
    check(trust.clock(), OK, "UTC")
    check(trust.clock(86400.0), PROBLEM, "1970-01-02")


@pytest.mark.parametrize(
    ("error", "status"), [(None, OK), (BlockingIOError(), PROBLEM), (OSError(), PROBLEM)]
)
def test_entropy(error: OSError | None, status: Status) -> None:
    def draw() -> bytes:
        if error:
            raise error
        return b"x"

    check(trust.entropy(draw), status)


@pytest.mark.security
def test_nothing_of_the_environment_but_openmp_is_told() -> None:
    environ = {**os.environ, "TOKEN": "hunter2-secret", "OMP_SECRET": "hunter2-secret"}
    findings = examine_host(Host(environ=environ))
    assert "hunter2-secret" not in repr([f.fields() for f in findings]) + repr(Host(environ=environ))
    names = [f.name for f in findings]
    assert len(set(names)) == len(names) == 13
