"""Builds the native passes (tempo/kernels/cpp): one translation unit per instruction set, one library.

Without a C++ compiler the package installs all the same and computes in plain PyTorch; `tempo doctor`
says so. With TEMPO_REQUIRE_NATIVE=1 that is an error, for wheels that are given to others. No -march=native:
the instruction set is chosen at run time.

The library is loaded through ctypes and uses nothing of Python's, so one wheel serves every Python from 3.11
on (abi3). Two builds of one commit are the same bytes, where compiler and SOURCE_DATE_EPOCH are: no date, no
path and no debug information goes in (docs/packaging.md).
"""

from __future__ import annotations

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CPP = Path("tempo/kernels/cpp")
FLAGS = [
    "-std=c++17", "-O3", "-g0", "-fPIC", "-fopenmp", "-fvisibility=hidden", "-fno-math-errno", "-Wall",
    "-Wno-uninitialized", "-Wno-maybe-uninitialized",  # false alarms in GCC's own headers of intrinsics
]  # fmt: skip
SETS = {"portable": []}
if platform.machine() in ("x86_64", "AMD64"):
    SETS["avx2"] = ["-mavx2", "-mfma"]
    SETS["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"]


class BuildPasses(build_ext):
    def build_extension(self, ext: Extension) -> None:
        def compile_set(name: str) -> list[str]:
            folder = str(Path(self.build_temp) / name)
            macros, flags = [("TEMPO_ISA", name)], FLAGS + SETS[name]
            return self.compiler.compile([str(CPP / "passes.cpp")], folder, macros, extra_postargs=flags)

        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        for older in target.parent.glob("_passes*.so"):
            older.unlink()  # first: what fails to compile leaves nothing that looks like it
        common = [str(CPP / "dispatch.cpp"), str(CPP / "ranking.cpp")]
        with ThreadPoolExecutor() as pool:
            sets = [pool.submit(compile_set, name) for name in SETS]
            objects = self.compiler.compile(common, self.build_temp, extra_postargs=FLAGS)
            for compiled in sets:
                objects += compiled.result()
        self.compiler.link_shared_object(
            objects, str(target), extra_postargs=["-fopenmp", "-s"], target_lang="c++"
        )


setup(
    ext_modules=[
        Extension(
            "tempo.kernels._passes",
            [str(path) for path in sorted(CPP.glob("*.cpp"))],
            depends=[str(path) for path in sorted(CPP.glob("*.h"))],
            optional=os.environ.get("TEMPO_REQUIRE_NATIVE", "") in ("", "0"),
            py_limited_api=True,
        )
    ],
    cmdclass={"build_ext": BuildPasses},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
