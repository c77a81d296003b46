"""`import tempo` is small: one module of ours, and nothing that is not Python's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tempo

PROJECT = Path(tempo.__file__).parents[1]
CODE = (
    "import sys; before = set(sys.modules); import tempo; "
    "new = {n.partition('.')[0] for n in set(sys.modules) - before}; "
    "print(*sorted(new - set(sys.stdlib_module_names))); "
    "print(*sorted(n for n in sys.modules if n.split('.')[0] == 'tempo'))"
)


def loaded(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.splitlines()


def test_import_tempo_loads_one_module_and_no_dependency() -> None:
    foreign, ours = loaded(CODE)
    assert foreign == "tempo"
    assert ours == "tempo"


def test_import_takes_no_longer_than_a_few_of_the_standard_library() -> None:
    """Best of three, in fresh interpreters; torch alone takes twenty times that."""
    code = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    ours = min(float(loaded(code.format("tempo"))[0]) for _ in range(3))
    other = min(float(loaded(code.format("argparse, pathlib, dataclasses"))[0]) for _ in range(3))
    assert ours < max(0.05, 3 * other)


def test_the_session_brings_no_extra() -> None:
    """What a session imports is in the base install."""
    code = CODE.replace("import tempo;", "import tempo; tempo.Session;")
    foreign = set(loaded(code)[0].split())
    extras = {
        "matplotlib",
        "sklearn",
        "scipy",
        "tensorboard",
        "transformers",
        "ray",
        "plotly",
        "cbor2",
        "dcap_qvl",
    }
    assert "torch" in foreign
    assert not foreign & extras
