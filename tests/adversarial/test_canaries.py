"""No secret in any output: values are planted in data, labels, weights and keys, a script is run with all
that can be watched or written turned on, and whatever came out is searched for them."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import canaries
import pytest

import tempo

pytestmark = pytest.mark.security

SCRIPT = Path(__file__).with_name("canary_script.py")
COMMAND = [sys.executable, "-c", "from tempo.cli import main; main()", "run"]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def plant(folder: Path) -> dict[str, object]:
    draw = random.Random(20261123)
    return {
        "data": [31337.0625, 27182.71875],
        "weights": [16180.34375, 14142.15625],
        "labels": [draw.randrange(10) for _ in range(16)],
        "text": "patient 0815 of ward 4711",
        "session_key": draw.randbytes(32).hex(),
        "metrics": f"127.0.0.1:{free_port()}",
        "key_file": str(folder / "data-key"),
    }


def forms_of(secrets: Mapping[str, object]) -> dict[str, Sequence[bytes]]:
    labels = secrets["labels"]
    return {
        "data": [*canaries.of_floats(*secrets["data"])],
        "weights": [*canaries.of_floats(*secrets["weights"])],
        "labels": [*canaries.of_integers(labels), *canaries.of_integers(labels[2:])],
        "text": [*canaries.of_text(str(secrets["text"]))],
        "session key": [*canaries.of_bytes(bytes.fromhex(str(secrets["session_key"])))],
        "data key": [*canaries.of_bytes(bytes.fromhex(Path(str(secrets["key_file"])).read_text()))],
    }


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[dict[str, bytes], dict[str, Sequence[bytes]]]:
    """All outputs of two runs, with --json and without, and what must not be in them."""
    outside, outputs = tmp_path_factory.mktemp("outside"), {}
    secrets = plant(outside)
    for name, options in (("plain", []), ("json", ["--json"])):
        folder = tmp_path_factory.mktemp(name)
        (folder / "tmp").mkdir()
        (outside / "secrets.json").write_text(json.dumps(secrets))
        board = 'tensorboard = "board"\n' if importlib.util.find_spec("tensorboard") else ""
        (folder / "tempo.toml").write_text(
            f'workers = "local:1"\n[watch]\nprogress = true\nmetrics = "{secrets["metrics"]}"\n{board}'
            'trace = "step.json"\n[prices]\ntee_per_hour = 1.0\ngpu_per_hour = 1.0\n'
        )
        environ = {**os.environ, "TMPDIR": str(folder / "tmp"), "TTY_COMPATIBLE": "1"}
        root = str(Path(tempo.__file__).parents[1])
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [*COMMAND, *options, str(SCRIPT), str(outside / "secrets.json")],
            cwd=folder,
            env=environ,
            capture_output=True,
            timeout=240,
        )
        ended = done.stderr.decode()
        assert done.returncode == 2, ended[-3000:]
        assert "UnsupportedError: weight of the model is bfloat16" in ended, ended[-3000:]
        outputs |= {f"{name}/{path}": data for path, data in canaries.files(folder).items()}
        outputs |= {f"{name}/stdout": done.stdout, f"{name}/stderr": done.stderr}
    return outputs, forms_of(secrets)


def test_no_planted_value_is_in_any_output(ran) -> None:
    outputs, forms = ran
    assert canaries.found(outputs, forms) == []


def test_every_output_was_there_to_be_searched(ran) -> None:
    outputs, _ = ran
    for run in ("plain", "json"):
        for name, says in (
            ("run-json.log", b"check_failed"),
            ("run-text.log", b"check_failed"),
            ("step.json", b"encode"),
            ("metrics.txt", b"tempo_checks_failed_total 1"),
            ("printed.txt", b"UnsupportedError"),
            ("run.sealed", b""),
            ("stderr", b"INTEGRITY: 1 of "),
            ("stderr", b"steps"),
        ):
            assert says in outputs[f"{run}/{name}"], (run, name)
            assert outputs[f"{run}/{name}"], (run, name)
        assert any(name.startswith(f"{run}/audit/") for name in outputs)
        assert any(name.startswith(f"{run}/child-") and b"tempo.worker" in d for name, d in outputs.items())
        if importlib.util.find_spec("tensorboard"):
            assert any("tfevents" in name and b"tempo/sent_bytes" in d for name, d in outputs.items())
    assert json.loads(outputs["json/stdout"])["checks_failed"] == 1
    assert b"What ran where" in outputs["plain/stderr"]


def test_the_search_finds_each_form() -> None:
    """Else an empty list would mean nothing."""
    forms: dict[str, Sequence[bytes]] = {
        "floats": [*canaries.of_floats(31337.0625, 27182.71875)],
        "integers": [*canaries.of_integers([3, 1, 4, 1, 5, 9, 2, 6])],
        "bytes": [*canaries.of_bytes(bytes(range(7, 39)))],
        "text": [*canaries.of_text("patient 0815")],
    }
    import base64

    import numpy as np
    import torch

    pair = torch.tensor([0.5, 31337.0625, 27182.71875, 1.0])
    row = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
    key = bytes(range(7, 39))
    for canary, shown in (
        ("floats", pair.numpy().tobytes()),
        ("floats", pair.double().numpy().astype(">f8").tobytes()),
        ("floats", json.dumps(pair.tolist()).encode()),
        ("floats", f"loss at {pair[1]:.2f}".encode()),
        ("integers", str(row.tolist()).encode()),
        ("integers", json.dumps(row.tolist(), separators=(",", ":")).encode()),
        ("integers", row.numpy().tobytes()),
        ("integers", row.numpy().astype(np.uint8).tobytes()),
        ("bytes", b"key=" + key),
        ("bytes", key.hex().encode()),
        ("bytes", repr(key).encode()),
        ("bytes", b"." + base64.b64encode(b"k" + key + b"rest")),
        ("bytes", base64.urlsafe_b64encode(b"kk" + key)),
        ("bytes", str(list(key)).encode()),
        ("text", b"name: patient 0815"),
        ("text", base64.b64encode(b"xx" + b"patient 0815 and more")),
    ):
        assert canaries.found({"output": shown}, forms) == [f"{canary} in output"], shown
    assert canaries.found({"a name, patient 0815": b""}, forms) == ["text in a name, patient 0815"]
    assert canaries.found({"output": pair[:1].numpy().tobytes()}, forms) == []
