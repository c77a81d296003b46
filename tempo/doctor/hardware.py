"""Processor, memory and GPUs."""

from __future__ import annotations

import platform
import re

import torch

from tempo.doctor.finding import Finding, note, ok, problem
from tempo.doctor.host import Host

_FLAGS = {
    "AVX2": ("avx2", "fma"),
    "AVX-512": ("avx512f", "avx512bw", "avx512vl"),
    "AVX-512 bf16": ("avx512_bf16",),
    "AMX bf16": ("amx_tile", "amx_bf16"),
}
_GIB = 1 << 30
#: A process with torch and the frames of one worker.
_LEAST_MEMORY = 1 * _GIB
#: A small model, its optimizer and the operands under way.
_COMFORTABLE_MEMORY = 4 * _GIB


def processor(host: Host) -> Finding:
    text = host.text("proc/cpuinfo") or ""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = set(line[1].split()) if line else set()
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = named[1].strip() if named else platform.machine()
    has = [feature for feature, needed in _FLAGS.items() if flags.issuperset(needed)]
    found = f"{name}: {', '.join(has) or 'no AVX2'}; torch uses {torch.backends.cpu.get_cpu_capability()}"
    if "AVX2" in has:
        return ok("cpu", found)
    return note("cpu", found, "the master's passes are slow without AVX2: take another machine for it")


def cores(host: Host) -> Finding:
    """Cores and what OpenMP is told. OMP_WAIT_POLICY is as this command has it, which sets PASSIVE."""
    count = host.cores()
    threads, policy = host.environ.get("OMP_NUM_THREADS"), host.environ.get("OMP_WAIT_POLICY")
    quota = _quota(host)
    found = (
        f"{count} usable, torch takes {torch.get_num_threads()}; "
        f"OMP_NUM_THREADS {_shown(threads)}, OMP_WAIT_POLICY {_shown(policy)}"
    )
    if quota is not None and quota < count:
        return note(
            "cores",
            f"{found}; the control group allows {quota:g} cores' time",
            f"threads beyond the quota are stopped midway: set OMP_NUM_THREADS={max(1, int(quota))}",
        )
    if threads is not None and not (threads.isdecimal() and 1 <= int(threads) <= count):
        return note("cores", found, f"OMP_NUM_THREADS is from 1 to {count} here: unset it")
    if (policy or "").upper() != "PASSIVE":
        return note(
            "cores",
            found,
            "set OMP_WAIT_POLICY=PASSIVE before Python starts: threads that spin take the cores of workers",
        )
    return ok("cores", found)


def memory(host: Host) -> Finding:
    text = host.text("proc/meminfo") or ""
    total, available = (_kib(text, key) for key in ("MemTotal", "MemAvailable"))
    if total is None or available is None:
        return note("memory", "the system does not say how much", "look yourself: 4 GiB are a good start")
    limit = (host.text("sys/fs/cgroup/memory.max") or "").strip()
    if limit.isdecimal():
        used = (host.text("sys/fs/cgroup/memory.current") or "").strip()
        total = min(total, int(limit))
        available = max(0, min(available, total - (int(used) if used.isdecimal() else 0)))
    found = f"{available / _GIB:.1f} GiB available of {total / _GIB:.1f} GiB"
    if available < _LEAST_MEMORY:
        return problem("memory", found, "end other programs or take a larger machine: 1 GiB is the least")
    if available < _COMFORTABLE_MEMORY:
        return note("memory", found, "enough for small models only")
    return ok("memory", found)


def huge_pages(host: Host) -> Finding:
    text = host.text("sys/kernel/mm/transparent_hugepage/enabled") or ""
    chosen = re.search(r"\[(always|madvise|never)\]", text)
    if chosen is None:
        return note("huge pages", "the kernel has no transparent huge pages", "fresh buffers cost more")
    if chosen[1] == "never":
        return note(
            "huge pages",
            "transparent huge pages: never",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        )
    return ok("huge pages", f"transparent huge pages: {chosen[1]}")


def gpus(names: list[str]) -> Finding:
    """names: of the CUDA devices that torch sees."""
    if names:
        return ok("gpus", ", ".join(f"cuda:{i} {name}" for i, name in enumerate(names)))
    return note(
        "gpus",
        "torch sees no CUDA device here",
        "fine for a master; a GPU worker needs a driver and torch built for CUDA",
    )


def cuda_names() -> list[str]:
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _shown(value: str | None) -> str:
    return "unset" if value is None else ascii(value[:32])[1:-1] or "empty"


def _kib(text: str, key: str) -> int | None:
    found = re.search(rf"^{key}:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) << 10 if found else None


def _quota(host: Host) -> float | None:
    found = re.match(r"(\d+) (\d+)\s*$", host.text("sys/fs/cgroup/cpu.max") or "")
    return int(found[1]) / int(found[2]) if found and int(found[2]) else None
