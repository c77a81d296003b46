"""Python, PyTorch, the native kernels and the compiler that makes them."""

from __future__ import annotations

import platform
import re

import torch

from tempo.doctor.finding import Finding, note, ok, problem
from tempo.doctor.host import Host
from tempo.kernels import Serving

_LEAST_TORCH = (2, 6)
_SIMD = ("avx512", "avx2")
_COMPILERS = ("c++", "g++", "clang++")
_MEND_KERNELS = (
    "install a C++ compiler (Debian: apt-get install g++) and Tempo again: pip install --force-reinstall "
    "--no-deps tempo-confidential"
)


def python() -> Finding:
    return ok("python", f"{platform.python_implementation()} {platform.python_version()}")


def pytorch(version: str = torch.__version__) -> Finding:
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < _LEAST_TORCH:
        return problem("torch", version, "install 2.6 or newer: pip install 'torch>=2.6'")
    return ok("torch", version)


def kernels(status: Serving) -> Finding:
    if status.serving in _SIMD:
        return ok("kernels", f"native, {status.serving}")
    if status.serving == "portable":
        why = status.reason or "the CPU has no AVX2"
        return note("kernels", f"native without SIMD ({why})", "a CPU with AVX2 runs the passes faster")
    return note("kernels", f"plain PyTorch serves, correct but slow ({status.reason})", _MEND_KERNELS)


def compiler(host: Host) -> Finding:
    for program in _COMPILERS:
        version = host.version_of(program)
        if version is not None:
            return ok("compiler", version)
    return note(
        "compiler",
        "no C++ compiler found (c++, g++, clang++)",
        "needed only to build the native kernels (Debian: apt-get install g++)",
    )
