"""No secret on a page or in a JSON object: report, plan, doctor, bench and log are run where values are
planted in data, labels, weights, keys and the environment, and all that they wrote is searched
(test_canaries.py is about runs)."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import canaries
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

import tempo
from tempo.wire.authority import issue, make_authority

pytestmark = [pytest.mark.security, pytest.mark.timeout(280)]

SCRIPT = Path(__file__).with_name("canary_pages_script.py")
PAGES = {"report.html": b"<html", "plan.html": b"<html"} if importlib.util.find_spec("jinja2") else {}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[dict[str, bytes], dict[str, list[bytes]]]:
    outside, folder = tmp_path_factory.mktemp("outside"), tmp_path_factory.mktemp("pages")
    draw = random.Random(20261124)
    labels = [draw.randrange(10) for _ in range(16)]
    session_key = draw.randbytes(32)
    password = "correct horse of ward 4711"
    make_authority(outside)
    tls = issue(outside, "m", "master")
    (outside / "secrets.json").write_text(
        json.dumps(
            {
                "data": [31337.0625, 27182.71875],
                "weights": [16180.34375, 14142.15625],
                "labels": labels,
                "session_key": session_key.hex(),
            }
        )
    )
    (folder / "tempo.toml").write_text('workers = "cpu"\n[prices]\ntee_per_hour = 1.0\ngpu_per_hour = 1.0\n')
    (folder / "tmp").mkdir()
    environ = {
        **os.environ,
        "CANARIES": str(outside / "secrets.json"),
        "DATABASE_PASSWORD": password,
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": os.pathsep.join([str(Path(tempo.__file__).parents[1]), str(SCRIPT.parent)]),
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(outside)], cwd=folder, env=environ, capture_output=True, timeout=270
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    pem = tls.key.read_bytes()
    raw = load_pem_private_key(pem, None).private_bytes_raw()
    forms = {
        "data": [*canaries.of_floats(31337.0625, 27182.71875)],
        "weights": [*canaries.of_floats(16180.34375, 14142.15625)],
        "labels": [*canaries.of_integers(labels), *canaries.of_integers(labels[2:])],
        "session key": [*canaries.of_bytes(session_key)],
        "TLS key": [*canaries.of_bytes(raw), *pem.splitlines()[1:-1]],
        "environment": [*canaries.of_text(password)],
    }
    outputs = canaries.files(folder) | {"stdout": done.stdout, "stderr": done.stderr}
    return outputs, forms


def test_no_planted_value_is_on_a_page_or_in_a_json_object(ran) -> None:
    assert canaries.found(*ran) == []


def test_every_page_and_object_was_there_to_be_searched(ran) -> None:
    outputs, _ = ran
    for name, says in {
        **PAGES,
        "whole.json": b"tempo_run",
        "figures.json": b"",
        "step.json": b"encode",
        "layer.json": b"encode",
        "plan-text.out": b"Linear",
        "doctor-text.out": b"memory",
        "bench-text.out": b"tee-only",
        "log.out": b"session",
        "bench/bench-layers.md": b"tee-only",
    }.items():
        assert outputs[name], name
        assert says in outputs[name], name
    for name in ("report.out", "plan.out", "doctor.out", "bench.out", "bench/bench-layers.json"):
        assert json.loads(outputs[name])["rows"], name
